"""Triton's interpreter, with bfloat16 and the rows of products made right: kernels run on CPU tensors.

Import it before anything imports triton. Unmended, the interpreter of triton 3.6 to 3.9 multiplies the raw
bits of bfloat16 in `tl.dot`, and cuts fp32 to bfloat16 instead of rounding it. Its products are
numpy's, whose rows on some CPUs depend on their place, which those of a GPU's tile do not.
"""

import importlib
import os
import pkgutil
from typing import Any

import numpy as np

os.environ["TRITON_INTERPRET"] = "1"

import triton.experimental.gluon  # noqa: F401  # Triton imports it at the first launch.
import triton.language as tl
from triton.runtime import interpreter

import megasbp.kernels.gpu

GPU_MODULES = tuple(
    importlib.import_module(f"megasbp.kernels.gpu.{module.name}")
    for module in pkgutil.iter_modules(megasbp.kernels.gpu.__path__)
)
# What tests start is not to interpret.
del os.environ["TRITON_INTERPRET"]

_BUILDER: Any = interpreter.InterpreterBuilder
_DOT, _CAST = _BUILDER.create_dot, _BUILDER.cast_impl


def _to_fp32(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)


def _dot(self: Any, a: Any, b: Any, d: Any, *others: Any) -> Any:
    if a.dtype.primitive_bitwidth == 8 or b.dtype.primitive_bitwidth == 8:
        return _DOT(self, _to_fp32(a), _to_fp32(b), d, *others)
    # Without BLAS every row is added up alike.
    wide_a, wide_b = _to_fp32(a).data, _to_fp32(b).data
    product = np.einsum("...ij,...jk->...ik", wide_a, wide_b, dtype=d.data.dtype, optimize=False)
    return interpreter.TensorHandle(product + d.data, d.dtype.scalar)


def _cast(self: Any, source: Any, target: Any) -> Any:
    if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
        return _CAST(self, source, target)
    bits = np.ascontiguousarray(source.data, np.float32).view(np.uint32)
    # Half a unit, less one bit where the result would become odd: to the nearest, ties to even.
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    rounded = np.where(np.isnan(source.data), np.uint16(0x7FC0), rounded).reshape(np.shape(source.data))
    return interpreter.TensorHandle(rounded, tl.bfloat16)


def mend() -> None:
    """Puts the corrections in place."""
    _BUILDER.create_dot, _BUILDER.cast_impl = _dot, _cast


def unmend() -> None:
    """Takes them away, for the test that shows what they are for."""
    _BUILDER.create_dot, _BUILDER.cast_impl = _DOT, _CAST


mend()
