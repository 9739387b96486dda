"""Tables of arms, ledgers and setting as plain cells, shared by the terminal and the page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from megasbp.experiment.arms import ARMS
from megasbp.report.formats import (
    EQUAL_FLOPS_NAMES,
    NOTHING,
    arm_name,
    arms_in_order,
    count,
    flops_unit,
    gain_name,
    interval,
    label,
    multiplier_text,
    number,
    p_value,
    share,
    signed,
    times,
    value_text,
)
from megasbp.report.schema import Contrast, Reading, Results
from megasbp.report.units import quantity
from megasbp.report.verdict import find_contrast


@dataclass(frozen=True)
class Table:
    """A table of text: the first `text_columns` columns are words, the others numbers (set flush right).

    Attributes:
        title: what the table shows.
        header: one name per column.
        rows: cells of each row.
        note: how to read it; may be empty.
        text_columns: columns of words, from the left.
        total_rows: rows at the end that sum up the others.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""
    text_columns: int = 1
    total_rows: int = 0


def arms_table(results: Results) -> Table:
    """Loss of each arm and its gain over the baseline."""
    rows, level = [], _level(results)
    for name in arms_in_order(results.arms):
        arm = results.arms[name]
        gain = find_contrast(results, name, "baseline")
        test = arm.test
        losses = ", ".join(number(one.test_nats_per_byte) for one in arm.seeds.values())
        rows.append(
            [
                arm_name(name),
                number(test.estimate) if test else losses,
                interval(test.low, test.high) if test else NOTHING,
                signed(gain.estimate) if gain else NOTHING,
                interval(gain.low, gain.high, sign=True) if gain else NOTHING,
                str(len(arm.seeds)),
            ]
        )
    return Table(
        "Held-out loss of each arm",
        ["Arm", "Nats per byte", f"{level} interval", "Gain", f"{level} interval of gain", "Seeds"],
        rows,
        "Lower loss is better; the gain is over the baseline. Compare arms by the gain: it is paired by seed "
        "and document, so its interval is narrower than the losses' own intervals suggest.",
    )


def meanings_table(results: Results) -> Table:
    """What each arm is trained on, and what comparing it isolates."""
    rows = []
    for name in (name for name in arms_in_order(results.arms) if name in ARMS):
        kind, compared = ARMS[name], ARMS[name].comparison
        names = gain_name(compared.treatment, compared.reference) if compared else NOTHING
        rows.append([kind.title, kind.trained_on, names, kind.isolates])
    header = ["Arm", "Trained on", "Comparison", "What it isolates"]
    return Table("What each arm isolates", header, rows, text_columns=4)


def best_validation_table(results: Results) -> Table:
    """Loss of each arm with its best-validation weights, and its gain over the baseline's."""
    rows, level = [], _level(results)
    for name in arms_in_order(results.arms):
        arm = results.arms[name]
        whole = arm.ledger.matched_tokens
        reached = sorted(
            one.best_validation.tokens / (one.history[-1].tokens if one.history else whole)
            for one in arm.seeds.values()
            if one.best_validation
        )
        if not reached:
            continue
        gain = find_contrast(results, name, "baseline")
        reading = gain.best_validation if gain else None
        when = share(reached[0], 0)
        rows.append(
            [
                arm_name(name),
                when if reached[0] == reached[-1] else f"{when} to {share(reached[-1], 0)}",
                number(arm.test_best_validation.estimate if arm.test_best_validation else None),
                signed(reading.estimate) if reading else NOTHING,
                interval(reading.low, reading.high, sign=True) if reading else NOTHING,
            ]
        )
    return Table(
        "The same with each arm's best weights on validation data",
        ["Arm", "Reached at", "Nats per byte", "Gain", f"{level} interval of gain"],
        rows,
        "Estimated, not tested. Reached at: the share of the budget at which the validation loss was lowest, "
        "over the seeds. An arm that overfits is charged for it at the end of the budget and not here.",
    )


def contrasts_table(results: Results) -> Table:
    """The contrasts that were fixed before the run."""
    rows = [
        [
            _contrast_name(name, one.treatment, one.reference),
            signed(one.estimate),
            interval(one.low, one.high, sign=True),
            p_value(one.p),
            p_value(one.p_holm),
            number(one.detectable),
        ]
        for name, one in results.contrasts.items()
    ]
    reach = " and ".join(dict.fromkeys(one.label for one in results.contrasts.values()))
    return Table(
        f"Contrasts, nats per byte, {reach}",
        ["Contrast", "Gain", f"{_level(results)} interval", "p", "p, Holm", "Detects"],
        rows,
        "Gain of the first arm over the second, positive when the first predicts held-out text better. The p "
        "of secondary hypotheses is corrected by Holm's method; a comparison without p is no hypothesis. "
        "Detects: the smallest true gain whose interval would lie above 0 four times in five.",
    )


def equal_flops_table(results: Results) -> Table:
    """The third view: SBP beside baselines that spend as many operations from end to end."""
    rows = []
    for arm in EQUAL_FLOPS_NAMES:
        gain = find_contrast(results, "sbp", arm)
        if gain is None:
            continue
        ledger, best = results.arms[arm].ledger, gain.best_validation
        size, unit = flops_unit(ledger.total_flops_counted)
        rows.append(
            [
                arm.removeprefix("baseline_flops_"),
                f"{number(ledger.total_flops_counted / size, 2)} {unit}",
                f"{number(ledger.matched_tokens / results.arms['sbp'].ledger.matched_tokens, 2)}x",
                _gain_text(gain),
                _gain_text(best) if best else NOTHING,
            ]
        )
    return Table(
        "Third view: SBP's gain at equal operations from end to end, nats per byte",
        ["Initial model", "Operations", "Tokens", "At the end", "Best on validation"],
        rows,
        "The baseline trains longer on the unique text, with the operations that SBP spends on its budget, "
        "its synthesizer and its text. Owned: the model that the synthesizer starts from was there already; "
        "counted: it was made for this. Tokens: of the first seed, as a multiple of SBP's. Longer repetition "
        "may overfit: then the best weights are the fairer reading.",
    )


def _gain_text(gain: Contrast | Reading) -> str:
    return f"{signed(gain.estimate)} ({interval(gain.low, gain.high, sign=True)})"


def data_efficiency_table(results: Results) -> Table:
    """Baselines on more unique text, and where SBP's loss lies among them."""
    found = results.data_efficiency
    if found is None:
        return Table("Data efficiency", [], [])
    rows = []
    for one in found.points:
        test, best = results.arms[one.arm].test, results.arms[one.arm].test_best_validation
        rows.append(
            [
                times(one.multiple),
                quantity(one.unique_tokens),
                number(test.estimate if test else None),
                number(best.estimate if best else None),
            ]
        )
    best_reading = found.best_validation
    rows.append(
        [
            "SBP is worth",
            "",
            multiplier_text(found),
            multiplier_text(best_reading) if best_reading else NOTHING,
        ]
    )
    return Table(
        "Data efficiency: baselines on more unique text, nats per byte",
        ["Unique text", "Tokens", "End of the budget", "Best on validation"],
        rows,
        "The baseline's loss is interpolated in the logarithm of its unique tokens; every baseline has the "
        f"same budget. In brackets the {share(found.level, 0)} interval, with > or < where it leaves what "
        "was measured.",
        total_rows=1,
    )


def plans_table(results: Results) -> Table:
    """What each arm was trained on."""
    rows = []
    for name in arms_in_order(results.arms):
        plan = results.arms[name].plan
        sources = ", ".join(
            f"{quantity(size)} {source}"
            + (f" ({number(plan.epochs[source], 1)})" if source in plan.epochs else "")
            for source, size in plan.tokens_per_source.items()
        )
        matched = results.arms[name].ledger.matched_tokens
        rows.append([arm_name(name), sources, count(plan.steps), count(matched), share(plan.synthetic_share)])
    return Table(
        "First ledger: matched training tokens",
        ["Arm", "Tokens per source (epochs)", "Steps", "Matched tokens", "Synthetic"],
        rows,
        "Non-padding input tokens of the final model, separators included: equal for every arm but the "
        "baselines at SBP's operations.",
        text_columns=2,
    )


def flops_table(results: Results) -> Table:
    """Operations of each arm from end to end, in one unit."""
    arms = arms_in_order(results.arms)
    ledgers = [results.arms[name].ledger for name in arms]
    size, unit = flops_unit(max((ledger.total_flops_counted for ledger in ledgers), default=1.0))
    stages = list(dict.fromkeys(stage for ledger in ledgers for stage in ledger.flops))

    def cell(value: float | None) -> str:
        return NOTHING if not value else number(value / size, 2)

    rows = [[label(stage), *(cell(ledger.flops.get(stage)) for ledger in ledgers)] for stage in stages]
    rows.append(
        ["Total, initial model already owned", *(cell(ledger.total_flops_owned) for ledger in ledgers)]
    )
    rows.append(["Total, initial model counted", *(cell(ledger.total_flops_counted) for ledger in ledgers)])
    return Table(
        f"Second ledger: operations from end to end, {unit}",
        ["Stage", *(arm_name(name) for name in arms)],
        rows,
        "The first ledger hides what the synthetic text costs. The two totals differ in whether the model "
        "that the synthesizer starts from is counted or already owned.",
        total_rows=2,
    )


def drops_table(title: str, drops: Mapping[str, int], note: str = "") -> Table:
    """Counts by reason."""
    return Table(
        title, ["Reason", "Count"], [[label(reason), count(size)] for reason, size in drops.items()], note
    )


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """Named values, nested ones under their path."""
    rows = [[label(name), value_text(value)] for name, value in flatten(facts)]
    return Table(title, ["", "Value"], rows)


def splits_table(results: Results) -> Table:
    """Sizes of the splits."""
    rows = [
        [label(name), count(split.documents), count(split.tokens), count(split.bytes)]
        for name, split in results.corpus.splits.items()
    ]
    return Table(
        "Splits",
        ["Split", "Documents", "Tokens", "Bytes"],
        rows,
        "Whole clusters of near-duplicates go to one split; the unique text is part of the oracle's.",
    )


def trials_table(results: Results) -> Table:
    """Every setting that was tried, of arms and synthesizers."""
    grids = {"baseline": results.tuning, **results.tuning.arms} if results.tuning else {}
    rows = [
        [
            arm,
            value_text(one.learning_rate),
            value_text(one.weight_decay),
            value_text(one.budget_share),
            _trial_loss(one.validation_loss),
        ]
        for arm, grid in grids.items()
        for one in grid.trials
    ]
    rows += [
        [
            f"synthesizer, {kind} pairs",
            value_text(one.learning_rate),
            NOTHING,
            NOTHING,
            _trial_loss(one.best_validation_loss),
        ]
        for kind, part in results.synthesizer.items()
        for one in part.trials
    ]
    header = [
        "For",
        "Learning rate",
        "Weight decay",
        "Share of the budget",
        "Validation loss, nats per token",
    ]
    return Table("Settings tried", header, rows, "Every setting that was tried; the lowest loss was taken.")


def _trial_loss(loss: float | None) -> str:
    return "diverged" if loss is None else number(loss)


def _level(results: Results) -> str:
    """Nominal coverage of the intervals, the same for all of them."""
    levels = [one.level for one in results.contrasts.values()]
    levels += [arm.test.level for arm in results.arms.values() if arm.test]
    return share(levels[0] if levels else 0.95, 0)


def _contrast_name(key: str, treatment: str, reference: str) -> str:
    names = gain_name(treatment, reference)
    hypothesis = key.partition(" ")[0]
    return f"{hypothesis}: {names}" if hypothesis[:1] == "H" and hypothesis[1:].isdigit() else names


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The values below nested keys, each with its path: "length: mean"."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}: ")
        else:
            yield f"{prefix}{key}", value
