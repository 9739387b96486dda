"""A recipe's parts: the stages that one start makes, what they need first, and what they run on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from megasbp.errors import InputError
from megasbp.experiment.arms import first_written_arms, share_of, writer_of
from megasbp.experiment.budget import EQUAL_FLOPS_ARMS, trained_arms
from megasbp.experiment.clean import record_used
from megasbp.experiment.method import Method, SeedStages
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.results import publish_results
from megasbp.experiment.text_measures import measuring_parts
from megasbp.launch.config import Kind

REPORT = "report"
# The part from whose stages an arm's rows are packed.
_PACKED_FROM = {"in_context": "pairs", "seed_packing": "synthesis-sbp"}
# The part that makes the checkpoint from which an arm's text is written.
_WRITERS = {
    "true": "synthesizer-true",
    "random": "synthesizer-random",
    "continuation": "synthesizer-continuation",
    "second": "synthesizer-second",
    "untuned": "train-baseline",
}


@dataclass(frozen=True)
class Part:
    """Stages that one start makes, on the same resources.

    Attributes:
        name: e.g. "corpus" or "seed-0/train-sbp".
        kind: what it runs on.
        needs: parts that must be finished before.
        stages: names of the stages that it makes.
        make: makes them.
    """

    name: str
    kind: Kind
    needs: tuple[str, ...]
    stages: tuple[str, ...]
    make: Callable[[Method], object]


def parts(recipe: Recipe) -> list[Part]:
    """All parts of a recipe, each after those that it needs; the last one is the report."""
    multiples = (f"unique-x{multiple}" for multiple in recipe.budget.multiples)
    corpus = ("split", "tokenizer", "datasets", "units", *multiples)
    listed = [Part("corpus", "data", (), corpus, lambda method: method.corpus)]
    if "continuation" in recipe.budget.arms:
        name = "units-continuation"
        listed.append(Part(name, "data", ("corpus",), (name,), lambda method: method.continuation_corpus))
    for seed in recipe.seeds:
        listed += _seed_parts(recipe, seed)
    needs = tuple(part.name for part in listed)
    return [*listed, Part(REPORT, "data", needs, (), _publish)]


def find_part(recipe: Recipe, name: str) -> Part:
    """The part that makes a stage; "corpus", "seed-N/losses" and "seed-N/quality" make several.

    Args:
        name: of the part or the stage, with or without its folder; without it the first seed's is meant.

    Raises:
        InputError: there is none; the message lists them.
    """
    listed = parts(recipe)
    for part in listed:
        names = (part.name, *part.stages)
        if name in {*names, *(full.rpartition("/")[2] for full in names)}:
            return part
    known = ", ".join(part.name for part in listed)
    raise InputError(f"{name}: no such stage; this recipe's are {known}")


def parts_until(recipe: Recipe, stage: str | None) -> list[Part]:
    """The parts up to the one that makes a stage; all of them for None."""
    if stage is None:
        return parts(recipe)
    last = find_part(recipe, stage).name
    names = [part.name for part in parts(recipe)]
    return parts(recipe)[: names.index(last) + 1]


def _seed_parts(recipe: Recipe, seed: int) -> list[Part]:
    arms, first = trained_arms(recipe), recipe.seeds[0]

    def name(stage: str) -> str:
        return f"seed-{seed}/{stage}"

    def part(
        stage: str, kind: Kind, needs: tuple[str, ...], make: Callable[[SeedStages], object], *stages: str
    ) -> Part:
        made = tuple(map(name, stages or (stage,)))
        return Part(name(stage), kind, needs, made, lambda method: make(method.seed(seed)))

    # What the first seed's baseline was tuned to is the setting of all others, and of every arm.
    tuned = f"seed-{first}/train-baseline"
    before = ("corpus",) if seed == first else ("corpus", tuned)
    listed = [part("train-baseline", "training", before, lambda stages: (stages.trials, stages.baseline))]
    embed = _embed_part(recipe, seed)
    if embed is not None and (seed == first or embed.name != "embed"):
        listed.append(embed)
    listed += [
        part("pairs", "data", (embed.name if embed else "corpus",), lambda stages: stages.pairs),
        part(
            "synthesizer-true",
            "tuning",
            (name("train-baseline"), name("pairs")),
            lambda stages: stages.true_synthesizers,
        ),
        part(
            "synthesizer-random",
            "tuning",
            (name("synthesizer-true"),),
            lambda stages: stages.random_synthesizer,
        ),
        part("pair-value", "evaluation", (name("synthesizer-random"),), lambda stages: stages.pair_value),
    ]
    if "continuation" in arms:
        listed += [
            part(
                "pairs-continuation",
                "data",
                ("units-continuation",),
                lambda stages: stages.continuation_pairs,
            ),
            part(
                "synthesizer-continuation",
                "tuning",
                (name("train-baseline"), name("pairs-continuation")),
                lambda stages: stages.continuation_synthesizers,
            ),
        ]
    written = first_written_arms(arms)
    for arm in written:
        before = (name(_WRITERS[str(writer_of(arm))]),)
        listed.append(part(f"synthesis-{arm}", "inference", before, partial(_synthesis, arm)))
    if seed == first and "sbp" in arms and recipe.evaluation.triples:
        before = (name("synthesis-sbp"),)
        listed.append(part("triples", "inference", before, lambda stages: stages.triples))
    for arm in (arm for arm in arms if arm in _PACKED_FROM):
        listed.append(part(f"packed-{arm}", "data", (name(_PACKED_FROM[arm]),), partial(_packed, arm)))
    listed += [
        part(
            "quality",
            "data",
            tuple(name(f"synthesis-{arm}") for arm in written) or ("corpus",),
            lambda stages: (stages.real_quality, [stages.arm(arm).quality for arm in written]),
            *(f"quality-{arm}" for arm in ("real", *written)),
        ),
        part("gates", "data", (name("pair-value"), name("quality")), lambda stages: stages.pass_gates()),
    ]
    for arm in sorted((arm for arm in arms if arm != "baseline"), key=lambda arm: writer_of(arm) == "second"):
        match share_of(arm):
            case "synthetic" if writer_of(arm) == "second":
                listed += _second_round_parts(part, name)
                before = (name("gate-second_round"), name(f"synthesis-{arm}"))
            case "synthetic":
                before = (name("gates"), name(f"synthesis-{arm}"))
            case "seeded":
                before = (name("gates"), name(f"packed-{arm}"))
            case "neighbours":
                before = (name(f"packed-{arm}"),)
            case _:
                before = (name("synthesis-sbp"),) if arm in EQUAL_FLOPS_ARMS else (tuned,)
        if recipe.tuning.arms == "each" and seed != first and arm not in EQUAL_FLOPS_ARMS:
            before = (*before, f"seed-{first}/train-{arm}")
        listed.append(part(f"train-{arm}", "training", before, partial(_trained, arm)))
    for one in measuring_parts(recipe, seed, embed.name if embed else None):
        listed.append(part(one.name, one.kind, one.needs, one.make, *one.stages))
    listed.append(
        part(
            "losses",
            "evaluation",
            tuple(name(f"train-{arm}") for arm in arms),
            lambda stages: [(stages.arm(arm).losses, stages.arm(arm).best_losses) for arm in arms],
            *(f"{losses}-{arm}" for arm in arms for losses in ("losses", "losses-best")),
        )
    )
    return listed


def _second_round_parts(part: Callable[..., Part], name: Callable[[str], str]) -> list[Part]:
    """What comes between the model of SBP and the arm of the second round."""
    arm = "second_round"
    return [
        part(
            "synthesizer-second",
            "tuning",
            (name("train-sbp"), name("pairs")),
            lambda stages: stages.second_synthesizers,
        ),
        part(f"synthesis-{arm}", "inference", (name("synthesizer-second"),), partial(_synthesis, arm)),
        part(
            f"gate-{arm}",
            "data",
            (name(f"synthesis-{arm}"), name("quality")),
            lambda stages: (stages.arm(arm).quality, stages.pass_round_gate()),
            f"quality-{arm}",
            f"gate-{arm}",
        ),
    ]


def _synthesis(arm: str, stages: SeedStages) -> object:
    return stages.arm(arm).synthesis


def _packed(arm: str, stages: SeedStages) -> object:
    return stages.arm(arm).packed


def _trained(arm: str, stages: SeedStages) -> object:
    return stages.arm(arm).trained


def _embed_part(recipe: Recipe, seed: int) -> Part | None:
    """Only the project's own checkpoint differs between seeds; outside embedders are shared by all."""
    if recipe.pairing.embedder == "none":
        return None
    name, needs = "embed", "corpus"
    if recipe.pairing.embedder == "checkpoint":
        name, needs = f"seed-{seed}/embed", f"seed-{seed}/train-baseline"
    return Part(name, "inference", (needs,), (name,), lambda method: method.seed(seed).embed)


def _publish(method: Method) -> None:
    """Writes the run's results, and notes which stage folders they came from."""
    root = method.recipe.folder
    publish_results(method.recipe, method.results(), method.variant or root / "report")
    record_used(root, method.workspace.used, method.variant or root)
