"""Prints what `experiment.plan` computed."""

from typing import Any

from rich.console import Console
from rich.table import Table

from megasbp.report.units import quantity


def print_plan(plan: dict[str, Any], console: Console | None = None) -> None:
    """Prints a plan: model, arms, the stages between them, disk."""
    console = console or Console(highlight=False)
    per_token = plan["flops_per_token"]
    console.print(
        f"[bold]{plan['name']}[/bold]: {quantity(plan['parameters'])} parameters "
        f"({quantity(plan['parameters_without_embedding'])} without embeddings), "
        f"{quantity(per_token['causal'])} FLOP a token causal ({quantity(per_token['full'])} full), "
        f"{quantity(plan['batch_tokens'])} tokens a step, token counts {plan['tokens_are']}"
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("arm", "steps", "source", "tokens", "epochs", "training FLOP"):
        table.add_column(heading, justify="left" if heading in {"arm", "source"} else "right")
    for arm, entry in plan["arms"].items():
        for number, (source, tokens) in enumerate(entry["tokens"].items()):
            table.add_row(
                arm if number == 0 else "",
                f"{entry['steps']:,}" if number == 0 else "",
                f"{source} (estimated)" if source in entry["estimated"] else source,
                quantity(tokens),
                f"{entry['epochs'][source]:.2f}",
                quantity(entry["flops"]) if number == 0 else "",
            )
    console.print(table)
    stages = Table(box=None, pad_edge=False)
    for heading in ("stage", "tokens", "FLOP"):
        stages.add_column(heading, justify="left" if heading == "stage" else "right")
    for name, entry in plan["stages"].items():
        named = f"{name}, {entry['requests']:,} requests" if "requests" in entry else name
        stages.add_row(named, quantity(entry["tokens"]), quantity(entry["flops"]) if "flops" in entry else "")
    console.print(stages)
    disk = plan["disk"]
    parts = ", ".join(f"{name} {quantity(disk[name])}B" for name in disk if name != "total")
    tried = "each arm" if plan["trials"]["arms"] == "each" else "the baseline"
    seeds = f"{plan['seeds']} seeds" if plan["seeds"] > 1 else "one seed"
    console.print(
        f"together, with {seeds} of the above: {quantity(plan['flops'])} FLOP, "
        f"{quantity(plan['trials']['flops'])} of it trials of {tried} ({plan['trials']['settings']} settings)"
    )
    console.print(f"disk: at most {quantity(disk['total'])}B ({parts})")
