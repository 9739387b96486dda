"""Which code computes attention, and why; and the calls of what is not ours.

Ours are C++ on a CPU and Triton on a GPU. FlashAttention (Dao et al., arXiv 2205.14135) is used where its
package for a GPU's generation is installed; PyTorch has the rest.
"""

import functools
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from .cpu import has_head_dim
from .route import route

if TYPE_CHECKING:
    # It imports triton, which only a GPU needs.
    from torch.nn.attention.flex_attention import BlockMask

Backend = Literal[
    "auto",
    "cpp",
    "triton",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "sdpa",
    "flex",
    "torch",
]

# Of FlashAttention: the package on the index, the module that has its functions, generations of NVIDIA GPUs
# (the major number of their compute capability), and the largest head dimension there.
_FLASH: dict[str, tuple[str, str, dict[int, int]]] = {
    "flash_attention_2": ("flash-attn", "flash_attn", {8: 256, 9: 256, 12: 256}),
    "flash_attention_3": ("flash-attn-3", "flash_attn_interface", {9: 256}),
    "flash_attention_4": ("flash-attn-4", "flash_attn.cute", {9: 256, 10: 128}),
}
# What "auto" takes of them, by generation: the fastest first. Hopper runs our kernels before version 2.
_FASTEST: dict[int, tuple[Backend, ...]] = {
    8: ("flash_attention_2",),
    9: ("flash_attention_3", "flash_attention_4"),
    10: ("flash_attention_4",),
}
_TRITON_HEAD_DIM = 128
# torch's FlashAttention takes no larger ones, cuDNN none that are larger than that.
_SDPA_HEAD_DIM = 256
_HALVES = (torch.bfloat16, torch.float16)


class Choice(NamedTuple):
    """A backend other than "auto", and the reason for it, as users read it."""

    backend: Backend
    reason: str


def choose(asked: Backend, q: Tensor, k: Tensor, v: Tensor, segmented: bool, placed: bool = False) -> Choice:
    """The backend for these tensors [B, S, heads, E].

    Gradients have the same bits every time on one device, but for "sdpa", of which torch does not promise it.

    Args:
        asked: what it is to be; "auto" for the fastest that can do it.
        segmented: a row may hold several segments.
        placed: queries are of some places of a row only, as in context parallelism.

    Raises:
        ValueError: what is asked for cannot do it here; names the reason and what can.
    """
    if asked == "auto":
        for backend, reason in _preferred(q.device):
            if _problem(backend, q, k, v, segmented, placed) is None:
                return Choice(backend, reason)
    problem = _problem(asked, q, k, v, segmented, placed)
    if problem is not None:
        every = ("cpp", "triton", *_FLASH, "sdpa", "flex", "torch")
        others = [one for one in every if _problem(one, q, k, v, segmented, placed) is None]
        raise ValueError(f"attention is {asked!r}, which {problem}; allowed here: auto, {', '.join(others)}")
    return Choice(asked, "asked for")


def _preferred(device: torch.device) -> list[tuple[Backend, str]]:
    """Backends and what speaks for them, the best first; the last can do everything."""
    order: list[tuple[Backend, str]] = [("cpp", "C++ for this CPU, each segment on its own")]
    if device.type == "cuda":
        generation = _generation(device.index)
        order = [(name, "installed, and fastest on this GPU") for name in _FASTEST.get(generation, ())]
    order.append(("sdpa", "cuDNN or FlashAttention of torch: rows are whole"))
    order.append(("triton", "our kernels: segments by their bounds"))
    order.append(("torch", "the PyTorch reference, with a mask: no other takes this device, type or size"))
    return order


def _problem(backend: str, q: Tensor, k: Tensor, v: Tensor, segmented: bool, placed: bool) -> str | None:
    """Why a backend cannot do it, as the rest of a sentence that begins with its name."""
    if backend == "torch":
        return None
    if backend in ("cpp", "triton"):
        return _own_problem(backend, q, k, v, placed)
    if q.device.type != "cuda":
        return f"needs a GPU, and this is {q.device.type}"
    if any(x.dtype not in _HALVES or x.dtype != q.dtype for x in (q, k, v)):
        return f"takes bf16 and fp16, not {q.dtype}"
    if backend == "sdpa":
        return _sdpa_problem(q.shape[3], segmented or placed)
    return None if backend == "flex" else _flash_problem(backend, q.shape[3], q.device, placed)


def _own_problem(backend: str, q: Tensor, k: Tensor, v: Tensor, placed: bool) -> str | None:
    head_dim = q.shape[3]
    if route(q, k, v) != backend:
        where = "on a GPU with triton" if backend == "triton" else "on a CPU, outside torch.compile"
        types = "fp32, bf16 and fp16" if backend == "triton" else "fp32 and bf16"
        return f"takes {types} {where}, not {q.dtype} on {q.device.type}"
    if backend == "triton":
        too_large = head_dim > _TRITON_HEAD_DIM
        return f"takes head dimensions to {_TRITON_HEAD_DIM}, not {head_dim}" if too_large else None
    if not has_head_dim(head_dim):
        return f"has no kernel for head dimension {head_dim}"
    return "needs all queries of a row" if placed else None


def _sdpa_problem(head_dim: int, segmented: bool) -> str | None:
    if head_dim > _SDPA_HEAD_DIM:
        return f"takes head dimensions to {_SDPA_HEAD_DIM}, not {head_dim}"
    return "has no segments" if segmented else None


def _flash_problem(backend: str, head_dim: int, device: torch.device, placed: bool) -> str | None:
    package, _, largest = _FLASH[backend]
    generation = _generation(device.index)
    if backend not in _INSTALLED:
        return f"is not installed (pip install {package})"
    if not generation:
        return "runs on GPUs of NVIDIA, and this is none"
    if generation not in largest:
        return f"runs on compute capability {', '.join(map(str, largest))}, not {generation}"
    if head_dim % 8 or head_dim > largest[generation]:
        return f"takes head dimensions that are multiples of 8 to {largest[generation]}, not {head_dim}"
    return "needs all queries of a row" if placed else None


def attend_in_torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Over the keys of a mask [B, 1, Q, S]; without one, over a row's keys up to the query's own."""
    math = q.dtype
    if q.device.type == "cpu":
        # The CPU's fused attention is slower in bf16 than in fp32, its backward pass twice.
        math = torch.promote_types(q.dtype, torch.float32)
    mixed = functional.scaled_dot_product_attention(
        q.transpose(1, 2).to(math),
        k.transpose(1, 2).to(math),
        v.transpose(1, 2).to(math),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return mixed.transpose(1, 2).to(q.dtype)


def attend_in_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Over a row's keys up to the query's own, in cuDNN or torch's FlashAttention."""
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
        return attend_in_torch(q, k, v, None)


def attend_in_flash(backend: str, q: Tensor, k: Tensor, v: Tensor, starts: Tensor, longest: int) -> Tensor:
    """Within segments; see `SegmentBounds`."""
    starts = starts.to(torch.int32)
    found = _flash_function(backend)(
        *(x.flatten(0, 1) for x in (q, k, v)),
        cu_seqlens_q=starts,
        cu_seqlens_k=starts,
        max_seqlen_q=longest,
        max_seqlen_k=longest,
        causal=True,
        deterministic=True,
    )
    # Some versions give the logarithms of the sums too.
    mixed: Tensor = found[0] if isinstance(found, tuple) else found
    return mixed.view(q.shape)


def _flash_function(backend: str) -> Callable[..., Any]:
    module = _FLASH[backend][1]
    return __import__(module, fromlist=["flash_attn_varlen_func"]).flash_attn_varlen_func


def flex_mask(keys: Tensor, size: int) -> "BlockMask":
    """What `attend_in_flex` needs of `SegmentBounds.keys` and the number of keys.

    torch looks at every query and key: while it is made there is a bool [B, Q, S], once a batch.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    first, end = keys

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= first[row, query]) & (key < end[row, query])

    _, rows, queries = keys.shape
    return create_block_mask(sees, rows, None, queries, size, device=keys.device)


def attend_in_flex(q: Tensor, k: Tensor, v: Tensor, mask: "BlockMask") -> Tensor:
    """FlexAttention: compiled on a GPU, and on a CPU a reference that holds all scores."""
    attend = _flex_attention(q.device.type == "cuda")
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]
    mixed: Tensor = attend(*heads_first, block_mask=mask, enable_gqa=q.shape[2] != k.shape[2])
    return mixed.transpose(1, 2)


@functools.cache
def _flex_attention(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention


def _generation(index: int | None) -> int:
    """Of a GPU of NVIDIA; 0 for one of AMD, whose capability looks like it: gfx942 says (9, 4)."""
    return 0 if torch.version.hip is not None else torch.cuda.get_device_capability(index)[0]


def _has(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


_INSTALLED = frozenset(backend for backend, (package, _, _) in _FLASH.items() if _has(package))
