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
        search=_search(seed) if searches else None,
        writing=None if writer is None else _writing(recipe, seed, arm, writer),
        first_round_flops=_first_round(seed) if writer == "second" else 0.0,
    )


def _first_round(seed: "SeedStages") -> float:
    """All that SBP took, but for the sweeps and the pretraining, which are a round's own lines."""
    spent = seed.arm("sbp").ledger
    return spent["total_flops_owned"] - spent["flops"]["sweeps"]


def _search(seed: "SeedStages") -> Search:
    """Of the units that are paired. By partitions a query is compared with the rows that it asks for."""
    units = seed.context.corpus.open_units("unique")
    embed = seed.embed.facts if seed.embed else {"parameters": 0, "dimension": 0}
    found = seed.pairs.facts["train"]["search"]
    compared = 0.0 if found is None else len(units) * found.get("pairs", len(units))
    return Search(
        embedded_tokens=units.tokens,
        embedder_parameters=embed["parameters"],
        multiply_adds=round(compared * embed["dimension"]),
    )


def _writing(recipe: Recipe, seed: "SeedStages", arm: str, writer: Writer) -> Writing:
    synthesis = seed.arm(arm).synthesis
    assert synthesis is not None
    generated = synthesis.facts
    if writer == "untuned":
        # bos alone is read by the first step of decoding.
        return Writing(recipe.training.sequence_length, 0, 0, 0, generated["generated_tokens"])
    used = seed.synthesizer(writer)
    return Writing(
        context=recipe.synthesizer.context,
        tuned_tokens=used.facts["input_tokens"],
        swept_tokens=_swept_tokens(seed, writer, used),
        prefill_tokens=generated["prefill_tokens"],
        generated_tokens=generated["generated_tokens"],
    )


def _swept_tokens(seed: "SeedStages", writer: Writer, used: StageResult) -> int:
    """Input tokens of the tunings that led to a synthesizer, and write nothing.

    Random pairs are tuned on as long and as fast as the best of the true ones was. A second round begins
    where the first one, which has paid for its own synthesizer, ended.
    """
    tried = list(seed.synthesizers(writer)) if writer != "random" else []
    kept = [used]
    if writer in {"random", "second"}:
        tried += seed.true_synthesizers
    if writer == "second":
        kept.append(seed.synthesizer("true"))
    tokens = {stage.folder: stage.facts["input_tokens"] for stage in tried}
    return sum(tokens[folder] for folder in tokens.keys() - {stage.folder for stage in kept})
