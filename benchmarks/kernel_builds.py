"""Compiles the Triton kernels ahead of time, without a GPU: registers, spills, matrix instructions.

python -m benchmarks.kernel_builds --targets sm_90
python -m benchmarks.kernel_builds --targets sm_80,sm_90,sm_100,gfx942 --candidates --output builds.json

What is compiled is what the launches of kernel_launches.py ask for, recorded on tensors without memory; with
--candidates also its variants: fp16, heads of other sizes. Exit status 1 where a build fails, or a launch of
the recipe spills on sm_90 in its own config.
"""

import argparse
import dataclasses
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from rich.console import Console
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from benchmarks.kernel_launches import LAUNCHES, VARIANTS
from benchmarks.report import circumstances, machine
from megasbp.kernels.gpu import attention, attention_backward
from megasbp.storage import publish_json

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Those to which `has_room` says yes, and `copies_tiles` of heads that are powers of two.
_LARGE = ("sm_90", "sm_100")
_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}
_OPTIONS = ("num_warps", "num_stages", "num_ctas")
# Matrix instructions in the assembly of each target.
_MATRIX = re.compile(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync|v_mfma")
_BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

_OF_THE_RECIPE = {case.name for case in LAUNCHES}

Recorded = tuple[JITFunction, dict[str, Any]]


def recorded_launches(target: str, candidates: bool) -> list[tuple[str, str, Recorded]]:
    """Case, config and launch, of each kernel's own config and, if asked for, of all that may be tried."""
    is_large = target in _LARGE
    launches: list[Recorded] = []

    def record(kernel: JITFunction, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        launches.append((kernel, dict(zip(kernel.arg_names, arguments, strict=False)) | named))

    def copies_tiles(*tensors: torch.Tensor) -> bool:
        row = tensors[0].shape[-1]
        return is_large and row == triton.next_power_of_2(row)

    found = []
    with ExitStack() as patches:
        patches.enter_context(patch.object(JITFunction, "run", record))
        for module in (attention, attention_backward):
            patches.enter_context(patch.object(module, "copies_tiles", copies_tiles))
        patches.enter_context(patch.object(attention, "has_room", lambda _: is_large))
        for case in (*LAUNCHES, *VARIANTS) if candidates else LAUNCHES:
            call = case.prepare(2, "meta")
            for config in (None, *(case.candidates if candidates else ())):
                launches.clear()
                call(*(() if config is None else (config,)))
                label = "own" if config is None else f"{config.blocks} w{config.warps} s{config.stages}"
                given = [_in_fp16(launch) for launch in launches] if case.in_fp16 else launches
                found.extend((case.name, label, launch) for launch in given)
    return found


def _in_fp16(launch: Recorded) -> Recorded:
    """The same with fp16 in place of bf16."""

    def other(value: Any) -> Any:
        if isinstance(value, TensorDescriptor):
            return dataclasses.replace(value, base=other(value.base))
        if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
            return value.to(torch.float16)
        return value

    kernel, arguments = launch
    return kernel, {name: other(value) for name, value in arguments.items()}


def build(launch: Recorded, target: GPUTarget) -> dict[str, Any]:
    """Compiles one launch as the runtime would, pointers and multiples of 16 marked as such."""
    kernel, arguments = launch
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for place, parameter in enumerate(kernel.params):
        value = arguments.get(parameter.name, parameter.default)
        kind = "constexpr" if parameter.is_constexpr or value is None or _is_one(value) else _type_of(value)
        signature[parameter.name] = kind
        if kind == "constexpr":
            constants[(place,)] = value
        elif isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(place,)] = [["tt.divisibility", 16]]
    start = time.perf_counter()
    options = {name: arguments[name] for name in _OPTIONS if name in arguments}
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, attributes), target=target, options=options
    )
    return {
        "kernel": kernel.__name__,
        "seconds": round(time.perf_counter() - start, 2),
        "warps": compiled.metadata.num_warps,
        "shared": compiled.metadata.shared,
        **_resources(compiled.asm),
    }


def _is_one(value: Any) -> bool:
    """Whether the runtime makes the argument a constant."""
    return isinstance(value, int) and not isinstance(value, bool) and value == 1


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _POINTERS[value.dtype]
    if isinstance(value, TensorDescriptor):
        element = _POINTERS[value.base.dtype].removeprefix("*")
        return f"tensordesc<{element}{list(value.block_shape)}>"
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    assert isinstance(value, float), value
    return "fp32"


def _resources(assembly: dict[str, Any]) -> dict[str, Any]:
    """Registers a thread, bytes spilled a thread, and matrix instructions by their kind."""
    text = assembly.get("ptx") or assembly["amdgcn"]
    found = _MATRIX.findall(text)
    matrix = {kind: found.count(kind) for kind in sorted(set(found))}
    if "cubin" not in assembly:
        numbers = {name: int(value) for name, value in re.findall(r"\.(\w+_count):\s+(\d+)", text)}
        return {"registers": numbers["vgpr_count"], "spilled": numbers["vgpr_spill_count"], "matrix": matrix}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(assembly["cubin"])
        file.flush()
        command = [str(_BINARIES / "cuobjdump"), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {"registers": numbers["REG"], "spilled": numbers["STACK"] + numbers["LOCAL"], "matrix": matrix}


def builds(targets: Sequence[str], candidates: bool) -> list[dict[str, Any]]:
    """A row for each target, case, config and kernel; where a build failed, its "error"."""
    rows = []
    for target in targets:
        for case, config, launch in recorded_launches(target, candidates):
            row: dict[str, Any] = {"target": target, "case": case, "config": config}
            try:
                row |= build(launch, TARGETS[target])
            except Exception as error:
                row |= {"kernel": launch[0].__name__, "error": f"{type(error).__name__}: {error}"[:500]}
            rows.append(row)
    return rows


def refused(row: dict[str, Any]) -> bool:
    """Whether a row is one that fails the check: a build that failed, or an own config that spills on Hopper.

    Own configs are chosen for Hopper, at the recipe's sizes. Of others the table tells that they spill.
    """
    if "error" in row:
        return True
    chosen_for = row["target"] == "sm_90" and row["config"] == "own" and row["case"] in _OF_THE_RECIPE
    return chosen_for and row["spilled"] > 0


def show(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints the rows."""
    table = Table(
        "target", "case", "config", "kernel", "registers", "spilled", "shared", "warps", "matrix", "s"
    )
    for row in rows:
        cells = [row[name] for name in ("target", "case", "config", "kernel")]
        if "error" in row:
            table.add_row(*cells, row["error"])
            continue
        matrix = ", ".join(f"{count} {kind}" for kind, count in row["matrix"].items())
        numbers = [str(row[name]) for name in ("registers", "spilled", "shared", "warps")]
        table.add_row(*cells, *numbers, matrix, str(row["seconds"]))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default="sm_90", help=f"of {', '.join(TARGETS)} (sm_90)")
    parser.add_argument(
        "--candidates", action="store_true", help="also every config that may be tried, and variants"
    )
    parser.add_argument("--output", type=Path, help="a JSON file for the rows")
    options = parser.parse_args(arguments)
    targets = options.targets.split(",")
    if unknown := [target for target in targets if target not in TARGETS]:
        parser.error(f"--targets {unknown[0]}; allowed: {', '.join(TARGETS)}")
    rows = builds(targets, options.candidates)
    show(rows, Console(width=None if sys.stdout.isatty() else 200))
    if options.output:
        facts = circumstances(("megasbp",), machine())
        publish_json(options.output, {**facts, "triton": triton.__version__, "builds": rows})
    return int(any(refused(row) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
