"""Tables of what a pair is worth and of the synthetic text, as plain cells."""

from collections.abc import Iterable, Mapping
from typing import Any

from megasbp.report.formats import (
    NOTHING,
    arm_name,
    arms_in_order,
    count,
    interval_text,
    label,
    number,
    share,
    signed,
    value_text,
)
from megasbp.report.paper import PAPER_QUALITY, PAPER_SCALES
from megasbp.report.schema import PairTable, Results
from megasbp.report.tables import Table, flatten

LOSS_NAMES = {
    "true": "true seed",
    "random": "true seed, synthesizer tuned on random pairs",
    "shuffled": "another document's seed",
    "none": "no seed, untuned model",
}
HUBNESS_NAMES = {
    "skewness": "Skewness of pairs per target",
    "maximum": "Most pairs of one target",
    "mean": "Mean pairs per document",
    "never": "Share that is never a target",
}
SOURCE_NAMES = {
    "neighbours": "nearest neighbours",
    "list": "from a ready list",
    "links": "from a link graph",
    "random": "drawn at random",
    "continuation": "each with what follows it in its document",
}
QUALITY_NAMES = {
    "all_documents": "Drawn from so many documents",
    "length_tokens": "Tokens per document",
    "length_characters": "Characters per document",
    "repeated_share": "Documents that repeat a passage",
    "near_duplicate_share": "Near-duplicates within the set",
    "near_duplicates_at": "Near-duplicates among the first",
    "distinct": "Distinct n-grams, n",
    "seed_copy": "Copied from the seed",
    "corpus_copy": "Copied from the corpus",
    "novel": "N-grams new to the corpus, n",
}
FIGURE_NAMES = {
    "p5": "5% quantile",
    "p25": "25% quantile",
    "p50": "median",
    "p75": "75% quantile",
    "p95": "95% quantile",
    "mean_coverage": "mean share of its tokens",
    "copied_share": "documents mostly copied",
    "longest": "longest stretch in tokens",
    "density": "density, tokens",
}
# Which figures of quality are shares, by their last key or by their group.
_SHARES = ("_share", "mean_coverage")
_SHARE_GROUPS = ("distinct", "novel", "near_duplicates_at")


def pair_value_table(results: Results) -> Table:
    """Held-out losses of d2 by what the model reads before it, and their differences."""
    tables = results.pair_value.tables if results.pair_value else {}
    losses = list(dict.fromkeys(name for one in tables.values() for name in one.losses))
    rows = [
        [LOSS_NAMES.get(name, label(name)), *(number(one.losses.get(name)) for one in tables.values())]
        for name in losses
    ]
    # Each seed's beside their mean.
    seeds = sorted({seed for one in tables.values() for seed in one.seeds}, key=int)
    rows += [
        [
            f"Worth, seed {seed}",
            *(
                interval_text(one.seeds[seed].worth, sign=True) if seed in one.seeds else NOTHING
                for one in tables.values()
            ),
        ]
        for seed in (seeds if len(seeds) > 1 else [])
    ]
    reach = value_reach(tables.values())
    for words, differences in (
        ("Worth of the relation", [one.worth for one in tables.values()]),
        ("True over another's seed", [one.shuffled_gap for one in tables.values()]),
    ):
        rows.append(
            [f"{words}, {reach}" if reach else words, *(interval_text(one, sign=True) for one in differences)]
        )
    columns = [f"{label(name)}, {count(one.pairs)} pairs" for name, one in tables.items()]
    return Table(
        "What a pair is worth: loss of the target document, nats per token",
        ["The model reads first", *columns],
        rows,
        "Worth, the primary measure: what tuning on true rather than random pairs saves, both reading the "
        "true seed. The difference to another document's seed also counts what a misleading seed costs. "
        "Positive: the true seed helps.",
        total_rows=2,
    )


def value_reach(tables: Iterable[PairTable]) -> str:
    """How far intervals of what a pair is worth speak: "over 3 seeds"; empty where the results do not say."""
    return " and ".join(dict.fromkeys(one.worth.label for one in tables if one.worth.label))


def similarity_table(name: str, table: PairTable) -> Table:
    """Worth of pairs by their similarity."""
    rows = [
        [f"{number(one.low, 2)} to {number(one.high, 2)}", count(one.pairs), signed(one.worth)]
        for one in table.bins
    ]
    of_seed = f", seed {table.bins_seed}" if len(table.seeds) > 1 else ""
    title = f"Worth by similarity: {name.replace('_', ' ')}{of_seed}"
    return Table(title, ["Similarity", "Pairs", "Worth, nats per token"], rows)


def hubness_table(hubness: Mapping[str, Any], before_caps: Mapping[str, Any]) -> Table:
    """How unequally often documents are targets, in the pair table and before the caps."""
    columns = {"Pairs": dict(flatten(hubness))}
    if before_caps:
        columns = {"Before the caps": dict(flatten(before_caps)), **columns}
    rows = [
        [HUBNESS_NAMES.get(name, label(name)), *(value_text(values.get(name)) for values in columns.values())]
        for name in columns["Pairs"]
    ]
    return Table("Hubs among the targets", ["", *columns], rows)


def gates_table(results: Results) -> Table:
    """The gates of each seed: what was found, and what to do about a closed one."""
    several = len(results.gates) > 1
    rows = [
        [
            f"{label(gate.name)}, seed {seed}" if several else label(gate.name),
            "open" if gate.open else "closed",
            gate.finding if gate.mend is None else f"{gate.finding}; {gate.mend}",
        ]
        for seed, gates in results.gates.items()
        for gate in gates
    ]
    return Table(
        "Gates before the arms were trained",
        ["Gate", "State", "Found"],
        rows,
        "A run behind a closed gate can hardly show the method's gain: its comparisons stand and say little.",
        text_columns=3,
    )


def synthesis_table(results: Results) -> Table:
    """Requests, acceptance and what each filter dropped."""
    arms = arms_in_order(results.synthesis)
    parts = [results.synthesis[name] for name in arms]
    reasons = list(dict.fromkeys(reason for part in parts for reason in part.drops))
    rows = [
        ["Documents requested", *(count(part.requests) for part in parts)],
        *(
            [f"Dropped: {reason.replace('_', ' ')}", *(count(part.drops.get(reason, 0)) for part in parts)]
            for reason in reasons
        ),
        ["Accepted", *(count(part.accepted) for part in parts)],
        ["Acceptance", *(share(part.acceptance) for part in parts)],
        ["Accepted tokens", *(count(part.tokens) for part in parts)],
    ]
    return Table(
        "Synthesis and its filters",
        ["", *(arm_name(name) for name in arms)],
        rows,
        "A document counts under the first filter that dropped it.",
        total_rows=3,
    )


def packing_table(results: Results) -> Table:
    """Rows of the arms in which documents stand beside those they belong to."""
    arms = arms_in_order(results.packing)
    parts = [results.packing[name] for name in arms]
    rows = [
        ["Rows of one window", *(count(part.rows) for part in parts)],
        ["Pairs", *(count(part.pairs) for part in parts)],
        ["Seeds that were cut", *(count(part.cut_seeds) for part in parts)],
        ["Targets that go on in another window", *(count(part.parted_targets) for part in parts)],
        ["Tokens of seeds", *(count(part.seed_tokens) for part in parts)],
        ["Tokens of targets", *(count(part.target_tokens) for part in parts)],
        ["Tokens of documents that fill rows up", *(count(part.filler_tokens) for part in parts)],
    ]
    return Table(
        "Pairs in one window",
        ["", *(arm_name(name) for name in arms)],
        rows,
        "A seed is cut to the room that its target leaves, at least an eighth of the window. Tokens of "
        "targets include the separator and the end.",
    )


def quality_table(results: Results) -> Table:
    """Figures of the text, real and synthetic."""
    order = ["real", *arms_in_order(name for name in results.quality if name != "real")]
    columns = {name: dict(flatten(results.quality[name])) for name in order if name in results.quality}
    # What no column has is left out: "seed_copy" is a group for synthetic text and null for real text.
    known = {path for values in columns.values() for path, value in values.items() if value is not None}
    paths = [
        path for path in dict.fromkeys(p for values in columns.values() for p in values) if path in known
    ]
    rows = [
        [_quality_name(path), *(_quality_text(path, values.get(path)) for values in columns.values())]
        for path in paths
    ]
    return Table(
        "Quality of the text",
        ["Measure", *("Real" if name == "real" else arm_name(name) for name in columns)],
        rows,
        "Real text is held-out text: what it shares with the corpus is what any new document would. Distinct "
        "n-grams and near-duplicates depend on the size of the set. Among the first N, real text is N of the "
        "oracle's documents.",
    )


def paper_table() -> Table:
    """The rates that the paper publishes for its own, much larger models."""
    rows = [
        [name, *(NOTHING if rate is None else f"{rate:.1f}%" for rate in rates)]
        for name, rates in PAPER_QUALITY.items()
    ]
    return Table(
        "The paper's own rates, at its own scale",
        ["Measure", *PAPER_SCALES],
        rows,
        "From Yang et al., Synthetic bootstrapped pretraining (arXiv 2509.15248): models of 3B and 6B "
        "parameters, judged by its own methods. For orientation: not measured here, and not comparable "
        "number by number.",
    )


def _quality_name(path: str) -> str:
    group, *rest = path.split(": ")
    words = [QUALITY_NAMES.get(group, label(group))]
    return ": ".join(words + [FIGURE_NAMES.get(part, part.replace("_", " ")) for part in rest])


def _quality_text(path: str, value: Any) -> str:
    is_share = path.endswith(_SHARES) or path.partition(": ")[0] in _SHARE_GROUPS
    return share(value) if is_share else value_text(value)
