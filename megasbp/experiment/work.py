"""What each arm of a finished run took besides its own training, for the second ledger."""

from megasbp.experiment.arms import Writer, share_of, writer_of
from megasbp.experiment.ledger import Search, Work, Writing
from megasbp.experiment.method import SeedResults
from megasbp.experiment.recipe import Recipe


def arm_work(recipe: Recipe, first: SeedResults, arm: str) -> Work:
    """The work of one arm in the run's first seed; seed_packing takes what sbp does, whose text it packs."""
    arm = "sbp" if share_of(arm) == "seeded" else arm
    share, writer = share_of(arm), writer_of(arm)
    searches = share == "neighbours" or writer in {"true", "random"}
    reads_baseline = writer is not None or (searches and recipe.pairing.embedder == "checkpoint")
    return Work(
        pretraining_tokens=first.trained["baseline"].facts["input_tokens"] if reads_baseline else 0,
        search=_search(recipe, first) if searches else None,
        writing=None if writer is None else _writing(recipe, first, arm, writer),
    )


def _search(recipe: Recipe, first: SeedResults) -> Search:
    embedded = first.context.corpus.datasets.facts["unique"]
    embed = first.embed.facts if first.embed else {"parameters": 0, "dimension": 0}
    searches = recipe.pairing.source == "neighbours"
    return Search(
        embedded_tokens=embedded["tokens"],
        embedder_parameters=embed["parameters"],
        multiply_adds=embedded["documents"] ** 2 * embed["dimension"] if searches else 0,
    )


def _writing(recipe: Recipe, first: SeedResults, arm: str, writer: Writer) -> Writing:
    generated = first.synthesis[arm].facts
    if writer == "untuned":
        # bos alone is read by the first step of decoding.
        return Writing(recipe.training.sequence_length, 0, 0, generated["generated_tokens"])
    # Random pairs are true ones with other seeds, tuned on as long and as fast as the best of those.
    stages = list(first.synthesizer_trials["true" if writer == "random" else writer])
    if writer == "random":
        stages.append(first.synthesizers["random"])
    tuned = {stage.folder: stage.facts["input_tokens"] for stage in stages}
    return Writing(
        context=recipe.synthesizer.context,
        tuned_tokens=sum(tuned.values()),
        prefill_tokens=generated["prefill_tokens"],
        generated_tokens=generated["generated_tokens"],
    )
