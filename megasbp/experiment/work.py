"""What each arm takes besides its own training, for the second ledger."""

from typing import TYPE_CHECKING

from megasbp.experiment.arms import Writer, share_of, writer_of
from megasbp.experiment.ledger import Search, Work, Writing
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult

if TYPE_CHECKING:
    # It asks for this when a baseline is to spend as much as another arm.
    from megasbp.experiment.method import SeedStages


def arm_work(recipe: Recipe, seed: "SeedStages", arm: str) -> Work:
    """The work of one arm of a seed; seed_packing takes what sbp does, whose text it packs."""
    arm = "sbp" if share_of(arm) == "seeded" else arm
    share, writer = share_of(arm), writer_of(arm)
    searches = share == "neighbours" or writer in {"true", "random"}
    reads_baseline = writer is not None or (searches and recipe.pairing.embedder == "checkpoint")
    return Work(
        pretraining_tokens=seed.baseline.facts["input_tokens"] if reads_baseline else 0,
        search=_search(recipe, seed) if searches else None,
        writing=None if writer is None else _writing(recipe, seed, arm, writer),
        first_round_flops=_first_round(seed) if writer == "second" else 0.0,
    )


def _first_round(seed: "SeedStages") -> float:
    """All that SBP took, but for the sweeps and the pretraining, which are a round's own lines."""
    spent = seed.arm("sbp").ledger
    return spent["total_flops_owned"] - spent["flops"]["sweeps"]


def _search(recipe: Recipe, seed: "SeedStages") -> Search:
    embedded = seed.context.corpus.datasets.facts["unique"]
    embed = seed.embed.facts if seed.embed else {"parameters": 0, "dimension": 0}
    searches = recipe.pairing.source == "neighbours"
    return Search(
        embedded_tokens=embedded["tokens"],
        embedder_parameters=embed["parameters"],
        multiply_adds=embedded["documents"] ** 2 * embed["dimension"] if searches else 0,
    )


def _writing(recipe: Recipe, seed: "SeedStages", arm: str, writer: Writer) -> Writing:
    synthesis = seed.arm(arm).synthesis
    assert synthesis is not None
    generated = synthesis.facts
    if writer == "untuned":
        # bos alone is read by the first step of decoding.
        return Writing(recipe.training.sequence_length, 0, 0, generated["generated_tokens"])
    tuned = {stage.folder: stage.facts["input_tokens"] for stage in _tunings(seed, writer)}
    return Writing(
        context=recipe.synthesizer.context,
        tuned_tokens=sum(tuned.values()),
        prefill_tokens=generated["prefill_tokens"],
        generated_tokens=generated["generated_tokens"],
    )


def _tunings(seed: "SeedStages", writer: Writer) -> list[StageResult]:
    """Every tuning that led to a synthesizer. Random pairs are true ones with other seeds, tuned on as long
    and as fast as the best of those."""
    match writer:
        case "continuation":
            return seed.continuation_synthesizers
        case "second":
            return seed.second_synthesizers
        case "random":
            return [*seed.true_synthesizers, seed.random_synthesizer]
        case _:
            return seed.true_synthesizers
