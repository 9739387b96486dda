"""Estimated memory beside what others have published: python -m benchmarks.published_memory

Those runs are torchtitan's, not ours. What the estimate takes from them is the model's shape, the layout, the
micro-batch and the mode of activation checkpointing. Two known differences are counted, for all runs alike:
they hold the logits of all tokens, and their "selective" keeps every second matrix product. What else differs
and is not corrected:
- their figure is what the allocator reserved, ours what tensors need at the fullest moment;
- torch.compile frees and fuses what ours holds, the loss's logits in later versions too; fp8 adds copies;
- runs that nearly fill the GPU (its memory is 93 GiB) also report what the allocator had not given back.
Where the column "assumed" names a setting, it was not published: the run is predicted at two values of it,
and no summary counts it. Runs whose shape or sharding we do not know are not here.
"""

import csv
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import circumstances, machine
from megasbp.model.config import ModelConfig
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.estimate.memory import GIB, moments
from megasbp.parallel.estimate.sizes import Sizes
from megasbp.storage import publish_json

_FOLDER = Path(__file__).resolve().parent
_LLAMA = {"vocabulary_size": 128_256, "kv_heads": 8, "head_dim": 128, "qk_norm": False, "tied": False}
# Meta's model cards.
_MODELS = {
    "Llama 3.1 8B": {"layers": 32, "width": 4096, "heads": 32, "feed_forward": 14_336},
    "Llama 3.1 70B": {"layers": 80, "width": 8192, "heads": 64, "feed_forward": 28_672},
    "Llama 3.1 405B": {"layers": 126, "width": 16_384, "heads": 128, "feed_forward": 53_248},
}
_BF16 = 2
# Logits in bf16, and in fp32 a copy, log-probabilities and their gradient.
_BYTES_PER_LOGIT = 14


def rows() -> list[dict[str, Any]]:
    """The published runs, each with "predicted_gib" and "error", a share of what was published."""
    with open(_FOLDER / "published_memory.csv", encoding="utf-8") as file:
        found: list[dict[str, Any]] = list(csv.DictReader(file))
    for row in found:
        row["gib"] = float(row["gib"])
        row["predicted_gib"] = round(predicted(row) / GIB, 1)
        row["error"] = round(row["predicted_gib"] / row["gib"] - 1, 3)
    return found


def predicted(row: dict[str, Any]) -> int:
    """Bytes of the fullest moment of a run, on the fullest rank of its pipeline."""
    return max(_on_rank(row, place) for place in range(int(row["pipeline"])))


def _on_rank(row: dict[str, Any], place: int) -> int:
    """The same on one rank."""
    length, gpus = int(row["sequence_length"]), int(row["gpus"])
    micro_batch, tensor, context = (int(row[name]) for name in ("micro_batch", "tensor", "context"))
    parallel = ParallelConfig(
        pipeline=int(row["pipeline"]), schedule=row["schedule"] or "1f1b", tensor=tensor, context=context
    )
    sizes = Sizes.of(
        ModelConfig(**_LLAMA, **_MODELS[row["run"]], maximum_positions=length),
        parallel,
        gpus,
        place=place,
        sequence_length=length,
        global_batch=micro_batch * int(row["micro_batches"]) * gpus // parallel.unit,
        micro_batch=micro_batch,
        element=_BF16,
        checkpointing=row["checkpointing"],
    )
    loss, *others = moments(sizes)
    logits = sizes.tokens * sizes.model.vocabulary_size // tensor
    found = [replace(loss, working=logits * _BYTES_PER_LOGIT * sizes.last), *others]
    if row["checkpointing"] == "selective":
        # Of a block's seven products: key, output and up. Behind the loss each block has two moments.
        keys, inner = sizes.model.kv_heads * sizes.model.head_dim, sizes.model.feed_forward
        dropped = sizes.tokens * (keys + sizes.model.width + inner) // tensor * _BF16
        held = [sizes.model.layers, *(sizes.model.layers - number // 2 for number in range(len(others)))]
        found = [
            replace(memory, activations=memory.activations - blocks * dropped)
            for memory, blocks in zip(found, held, strict=True)
        ]
    return max(memory.total for memory in found)


def main() -> None:
    """Prints the table and writes benchmarks/results/published_memory.json."""
    found = rows()
    errors = [row["error"] for row in found if not row["assumed"]]
    summary = {
        "rows": len(errors),
        "median_absolute_error": round(statistics.median(map(abs, errors)), 3),
        "most_over": max(errors),
        "most_under": min(errors),
        "within_10_percent": sum(abs(error) <= 0.1 for error in errors),
    }
    table = Table(
        "run", "GPUs", "pp", "tp", "cp", "tokens", "checkpointing", "precision", "GiB", "predicted", "error"
    )
    for row in found:
        tokens = f"{row['micro_batch']} x {row['sequence_length']}"
        tokens = f"{row['micro_batches']} of {tokens}?" if row["assumed"] else tokens
        pipeline = f"{row['pipeline']} {row['schedule']}"
        names = ("run", "gpus", "tensor", "context", "checkpointing", "precision")
        run, gpus, tensor, context, checkpointing, precision = (row[name] for name in names)
        figures = (f"{row['gib']:.1f}", f"{row['predicted_gib']:.1f}", f"{row['error']:+.1%}")
        table.add_row(run, gpus, pipeline, tensor, context, tokens, checkpointing, precision, *figures)
    console = Console(width=150)
    console.print(table)
    console.print(summary)
    results = {"subject": "published_memory", **circumstances(("megasbp",), machine())}
    publish_json(
        _FOLDER / "results" / "published_memory.json", {**results, "summary": summary, "rows": found}
    )


if __name__ == "__main__":
    main()
