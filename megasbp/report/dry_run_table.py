"""Prints what `experiment.dry_run` computed."""

from typing import Any

from rich.console import Console
from rich.table import Table

from megasbp.parallel.estimate.memory import GIB
from megasbp.report.units import quantity

_PARTS = ("weights", "optimizer", "gathered", "gradients", "activations", "working", "buffers")


def print_dry_run(report: dict[str, Any], console: Console | None = None) -> None:
    """Prints a table for each number of GPUs."""
    console = console or Console(highlight=False)
    per_token = report["flops_per_token"]
    console.print(
        f"[bold]{report['name']}[/bold]: {quantity(report['parameters'])} parameters, "
        f"{quantity(report['batch_tokens'])} tokens a step, {quantity(per_token['causal'])} FLOP a token "
        f"causal ({quantity(per_token['full'])} full); figures are a rank's, of one optimiser step, "
        f"in the layout of {report['layout_setting']}"
    )
    for gpus, layout in report["gpus"].items():
        console.print()
        if "problem" in layout:
            console.print(f"[bold]{gpus} GPU[/bold]: impossible: {layout['problem']}")
            continue
        _print_layout(gpus, layout, report["gpu_memory_gib"], console)


def _print_layout(gpus: str, layout: dict[str, Any], memory_gib: float, console: Console) -> None:
    axes = " x ".join(f"{name} {ranks}" for name, ranks in layout["layout"].items() if ranks > 1) or "alone"
    console.print(
        f"[bold]{gpus} GPU[/bold]: {axes}; {layout['micro_batches']} micro-batches; "
        f"{quantity(layout['parameters'])} parameters a rank; {quantity(layout['flops']['causal'])} FLOP "
        f"causal ({quantity(layout['flops']['full'])} full)"
    )
    pipeline = layout["pipeline"]
    if layout["layout"]["pp"] > 1:
        most = "at most " if pipeline["bubble_is_bound"] else ""
        console.print(
            f"pipeline: waits {most}{pipeline['bubble_share']:.1%} of a step; fullest is rank "
            f"{pipeline['place']}, with stages of {' and '.join(map(str, pipeline['stages']))} blocks"
        )
    memory = layout["memory"]
    table = Table(box=None, pad_edge=False)
    table.add_column(f"memory, fullest: {memory['moment']}")
    table.add_column("GiB", justify="right")
    for part in _PARTS:
        table.add_row(part, f"{memory[part] / GIB:.2f}")
    table.add_row("[bold]together[/bold]", f"[bold]{memory['total'] / GIB:.2f}[/bold]")
    table.add_row(f"fits a GPU of {memory_gib:g} GiB", "yes" if layout["fits"] else "[bold]no[/bold]")
    console.print(table)
    if not layout["communication"]:
        return
    sent = Table(box=None, pad_edge=False)
    for heading in ("axis", "collective", "ranks", "calls", "tensors", "sent by a rank"):
        sent.add_column(heading, justify="left" if heading in {"axis", "collective"} else "right")
    for entry in layout["communication"]:
        sent.add_row(
            entry["axis"],
            entry["kind"],
            str(entry["ranks"]),
            f"{entry['calls']:,}",
            f"{quantity(entry['bytes'])}B",
            f"{quantity(entry['sent'])}B",
        )
    console.print(sent)
