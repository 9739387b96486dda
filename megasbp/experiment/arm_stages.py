"""The arms: what the baseline is tuned over, synthetic corpora, training and held-out losses."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.data.documents import PackedDocuments
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.mixture import MixtureSource
from megasbp.data.sources import SampleSource
from megasbp.data.windows import WindowSource
from megasbp.errors import InputError
from megasbp.evaluation.perplexity import document_losses
from megasbp.experiment.arms import is_seeded, share_of
from megasbp.experiment.budget import ArmPlan, plan_arm, synthetic_need
from megasbp.experiment.context import (
    TRAINING_LOGS,
    Context,
    Corpus,
    best_checkpoint,
    last_checkpoint,
    load_trained,
    open_dataset,
)
from megasbp.experiment.divergence import loss_of, rates_of, train_in_stage
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult
from megasbp.experiment.synthesizer_stages import synthesizer_checkpoint
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.storage import publishing_file
from megasbp.synthesis.synthesize import ShardWriter, synthesize
from megasbp.synthesis.writers import shard_writer
from megasbp.training.config import TrainingConfig
from megasbp.training.trainer import TrainingJob

# What led to the corpus: which shards are there beyond the last one needed, depends on who wrote them.
_SYNTHESIS_STEPS = ("shards/*/*", "indexes/*/*")
# Sources that come in rows of one window each.
_ROWS = {"neighbours", "seeded"}
# Nats and predicted tokens of each test document.
LOSS_FILES = ("nats.npy", "tokens.npy")


@dataclass(frozen=True)
class Chosen:
    """How an arm is trained: two settings of the optimiser, and on which share of the budget."""

    learning_rate: float
    weight_decay: float
    budget_share: float = 1.0


def trial_grid(recipe: Recipe) -> list[Chosen]:
    """The settings tried; a single one when nothing is tuned."""
    rates = recipe.tuning.learning_rates or (recipe.training.learning_rate,)
    decays = recipe.tuning.weight_decays or (recipe.training.weight_decay,)
    shares = recipe.tuning.budget_shares or (1.0,)
    return [Chosen(rate, decay, share) for rate in rates for decay in decays for share in shares]


def best_setting(grid: list[Chosen], trials: list[StageResult]) -> Chosen:
    """The setting with the lowest validation loss at the end of its training; the first of equals.

    Raises:
        InputError: every trial diverged.
    """
    losses = [loss_of(trial, "final_validation_loss") for trial in trials]
    if min(losses) == float("inf"):
        raise InputError(
            f"{trials[0].manifest.stage}: every trial diverged, at the learning rates {rates_of(trials)}; "
            "lower tuning.learning_rates"
        )
    return grid[losses.index(min(losses))]


def setting_of(trial: StageResult) -> Chosen:
    """The settings of a finished training, or of one that diverged."""
    facts = trial.facts
    # Finished before shares were tried.
    return Chosen(facts["learning_rate"], facts["weight_decay"], facts.get("budget_share", 1.0))


def source_tokens(corpus: Corpus) -> dict[str, int]:
    """Tokens of each source of real text, separators included."""
    tokens = {name: corpus.datasets.facts[name]["tokens"] for name in ("unique", "oracle")}
    return tokens | {name: stage.facts["tokens"] for name, stage in corpus.multiples.items()}


def arm_tokens(corpus: Corpus, arm: str, shared: StageResult | None) -> dict[str, int]:
    """Tokens of each source that an arm's plan needs, separators included.

    Args:
        shared: holds what fills the arm's share.
    """
    tokens, share = source_tokens(corpus), share_of(arm)
    if share is not None and shared is not None:
        tokens[share] = shared.facts["tokens"]
        if share == "seeded":
            tokens["synthetic"] = shared.facts["target_tokens"]
    return tokens


def train_stage(
    context: Context,
    arm: str,
    chosen: Chosen,
    shared: StageResult | None = None,
    steps: int | None = None,
) -> StageResult:
    """Trains one arm from scratch. The only differences between arms are the sources and their shares.

    Args:
        shared: holds the dataset that fills the arm's share, by the name of that source.
        steps: of a baseline at equal operations, the only arm that has steps of its own, and so no share of
            the budget.

    Facts: those of a training job, or of one that diverged; learning_rate, weight_decay, budget_share.
    """
    recipe, corpus, seed = context.recipe, context.corpus, context.seed
    training = TrainingConfig(
        **{
            **recipe.training.model_dump(),
            "learning_rate": chosen.learning_rate,
            "weight_decay": chosen.weight_decay,
        }
    )
    plan = plan_arm(arm, recipe, arm_tokens(corpus, arm, shared), steps, chosen.budget_share)
    share, stage = share_of(arm), context.name(f"train-{arm}")

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = corpus.open_tokenizer()
        opened = {
            name: open_dataset(shared.folder / name, tokenizer)
            if name == share and shared is not None
            else corpus.open(name)
            for name in plan.samples
        }
        job = TrainingJob(
            name=context.name(arm),
            model=recipe.model,
            training=training,
            source=_mixture(plan, opened, training.sequence_length, seed),
            steps=plan.steps,
            seed=seed,
            folder=folder,
            validation=PackedDocuments(corpus.open("validation"), training.sequence_length),
            initial_checkpoint=None,
            tokenizer_hash=tokenizer.hash,
        )
        return {**train_in_stage(context, stage, job), **asdict(chosen)}

    inputs: dict[str, StageResult | str] = {"datasets": corpus.datasets, "tokenizer": corpus.tokenizer}
    if share is not None and shared is not None:
        inputs[share] = shared
    # Only an arm that draws from a multiple depends on it.
    inputs |= {name: corpus.multiples[name] for name in plan.samples if name in corpus.multiples}
    return context.workspace.stage(
        stage,
        inputs=inputs,
        settings={
            "model": recipe.model.model_dump(mode="json"),
            "training": training.deciding(),
            "samples": plan.samples,
            # Left out where there is one, for the names of stages from before there were more.
            **({"phases": plan.phases} if len(plan.phases) > 1 else {}),
            "steps": plan.steps,
            "seed": seed,
        },
        make=make,
        ignore=TRAINING_LOGS,
    )


def synthesis_stage(context: Context, arm: str, writer: StageResult) -> StageResult:
    """Samples and filters the synthetic corpus of an arm until it holds the tokens that the plan needs.

    Args:
        writer: a tuned synthesizer, or for an arm without seed documents the baseline.
    """
    recipe, corpus = context.recipe, context.corpus
    width = recipe.pairing.shingle_width
    inputs: dict[str, StageResult | str] = {"datasets": corpus.datasets}
    if is_seeded(arm):
        config, length = recipe.synthesis, recipe.synthesizer.context
        checkpoint = synthesizer_checkpoint(writer)
        inputs |= {"synthesizer": writer, "units": corpus.units}
    else:
        # No longer than what the untuned model was trained on.
        config, length = recipe.synthesis.without_seeds(), recipe.training.sequence_length
        checkpoint = best_checkpoint(writer)
        inputs["baseline"] = writer

    def make(folder: Path) -> dict[str, Any]:
        unique = corpus.open("unique")
        corpus_index = NgramIndex.build([unique], width)
        held_out_index = NgramIndex.build([corpus.open("validation"), corpus.open("test")], width)
        result = synthesize(
            writer=_shard_writer(context, checkpoint),
            tokenizer=corpus.open_tokenizer(),
            seed_dataset=corpus.open_units("unique") if is_seeded(arm) else None,
            dtype=unique.dtype,
            corpus_index=corpus_index,
            # What the corpus says too is no leak: every arm trains on it, and only some arms are filtered.
            held_out_index=held_out_index.without(corpus_index),
            config=config,
            need_tokens=synthetic_need(recipe),
            context=length,
            # The same key for every arm: the same seed documents and the same draws, another writer.
            seed=derive_key(context.seed, "synthesis"),
            folder=folder,
            checkpoint_hash=writer.digest,
        )
        return {
            "documents": result.documents,
            "tokens": result.tokens,
            "requests": result.requests,
            "drops": result.drops,
            "prefill_tokens": result.prefill_tokens,
            "shared_tokens": result.shared_tokens,
            "generated_tokens": result.generated_tokens,
        }

    return context.workspace.stage(
        context.name(f"synthesis-{arm}"),
        inputs=inputs,
        settings={
            "synthesis": config.content(),
            "need": synthetic_need(recipe),
            "context": length,
            "shingle_width": width,
            "seed": context.seed,
        },
        make=make,
        ignore=_SYNTHESIS_STEPS,
    )


def _shard_writer(context: Context, checkpoint: Path) -> ShardWriter:
    device, announce = context.runtime.device, context.workspace.announce
    return shard_writer(context.recipe.synthesis, checkpoint, device, context.shards, announce)


def losses_stage(context: Context, arm: str, trained: StageResult) -> StageResult:
    """Per-document nats of the test split under the arm's final weights, in nats.npy and tokens.npy."""
    return context.workspace.stage(
        context.name(f"losses-{arm}"),
        inputs={"trained": trained, "datasets": context.corpus.datasets},
        settings=_losses_settings(context),
        make=lambda folder: _write_losses(context, last_checkpoint(trained), folder),
    )


def best_losses_stage(context: Context, arm: str, trained: StageResult, final: StageResult) -> StageResult:
    """As `losses_stage`, under the weights of the lowest validation loss; `final` is that stage's result."""

    def make(folder: Path) -> dict[str, Any]:
        if best_checkpoint(trained) != last_checkpoint(trained):
            return _write_losses(context, best_checkpoint(trained), folder)
        # The last weights are the best ones, and what they lose is known.
        if context.runtime.is_main:
            for name in LOSS_FILES:
                with publishing_file(folder / name) as partial:
                    shutil.copyfile(final.folder / name, partial)
        return final.facts

    return context.workspace.stage(
        context.name(f"losses-best-{arm}"),
        inputs={"trained": trained, "datasets": context.corpus.datasets},
        settings=_losses_settings(context),
        make=make,
    )


def _losses_settings(context: Context) -> dict[str, Any]:
    recipe = context.recipe
    return {
        "batch_size": recipe.evaluation.batch_size,
        "sequence_length": recipe.training.sequence_length,
    }


def _write_losses(context: Context, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Measures a checkpoint on the test split; the facts are the sums."""
    recipe, test = context.recipe, context.corpus.open("test")
    source = PackedDocuments(test, recipe.training.sequence_length)
    model = load_trained(context, checkpoint)
    losses = document_losses(model, source, len(test), recipe.evaluation.batch_size, context.runtime)
    if context.runtime.is_main:
        for name, values in zip(LOSS_FILES, (losses.nats, losses.tokens), strict=True):
            with publishing_file(folder / name) as partial, open(partial, "wb") as file:
                np.save(file, values, allow_pickle=False)
    return {"nats": float(losses.nats.sum()), "tokens": int(losses.tokens.sum())}


def _mixture(
    plan: ArmPlan, opened: dict[str, IndexedDataset], sequence_length: int, seed: int
) -> SampleSource:
    sources = {
        name: WindowSource(dataset, sequence_length, derive_key(seed, "order"), name, aligned=name in _ROWS)
        for name, dataset in opened.items()
    }
    if len(sources) == 1:
        return next(iter(sources.values()))
    return MixtureSource(
        [(source, [phase[name] for phase in plan.phases]) for name, source in sources.items()]
    )
