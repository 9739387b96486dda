"""The synthesizer p(d2 | d1), its twin tuned on random pairs, and what a pair is worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.data.documents import PackedDocuments
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.pairs import PairSource
from megasbp.evaluation.pair_value import pair_value
from megasbp.evaluation.perplexity import DocumentLosses, document_losses
from megasbp.experiment.context import TRAINING_LOGS, Context, best_checkpoint, load_trained
from megasbp.experiment.divergence import (
    DivergedStage,
    loss_of,
    rates_of,
    require_finite,
    train_in_stage,
)
from megasbp.experiment.pair_sources import VALUE_TABLES
from megasbp.experiment.stages import StageResult
from megasbp.model.transformer import Transformer
from megasbp.pairing.table import read_pairs
from megasbp.training.config import TrainingConfig
from megasbp.training.trainer import TrainingJob


def tuned_synthesizers(
    context: Context,
    pairs: StageResult,
    baseline: StageResult,
    name: str,
    rates: Sequence[float] | None = None,
) -> list[StageResult]:
    """Tunes on pairs, once at each learning rate.

    Facts of each: those of a training job, learning_rate, pairs, best_step and checkpoint (path inside the
    folder); of one that diverged the last two are None.

    Args:
        rates: some of the recipe's learning rates; None for all.
    """
    section = context.recipe.synthesizer
    rows = _rows_per_epoch(context, pairs)
    maximum = max(1, round(section.maximum_epochs * rows / section.global_batch))
    tried = section.learning_rates if rates is None else rates
    return [_tune(context, name, pairs, baseline, rate, maximum) for rate in tried]


def _rows_per_epoch(context: Context, pairs: StageResult) -> int:
    """Rows that the training pairs fill. One rank packs them, once a process: they may be 100 million."""
    key = (pairs.manifest.key, pairs.digest, context.recipe.synthesizer.context)
    if key not in _ROWS_PER_EPOCH:
        runtime = context.runtime
        rows = _pair_source(context, pairs, "train").samples_per_epoch if runtime.is_main else 0
        _ROWS_PER_EPOCH[key] = int(runtime.broadcast(str(rows)))
    return _ROWS_PER_EPOCH[key]


# Of the pairs' stage: key and digest, with the context.
_ROWS_PER_EPOCH: dict[tuple[str, str, int], int] = {}


def best_synthesizer(trials: list[StageResult]) -> StageResult:
    """The one with the lowest loss on held-out pairs; the first of equals.

    Raises:
        DivergedStage: every trial diverged.
    """
    best = min(trials, key=lambda trial: loss_of(trial, "best_validation_loss"))
    if len(trials) > 1 and "diverged" in best.facts:
        finding = f"at every one of synthesizer.learning_rates ({rates_of(trials)}); lower them"
        raise DivergedStage(best.manifest.stage, finding)
    return require_finite(best)


def random_synthesizer(
    context: Context, pairs: StageResult, baseline: StageResult, true: StageResult
) -> StageResult:
    """Tunes on random pairs with the rate and the steps of the best synthesizer on true pairs.

    Raises:
        DivergedStage: it diverged.
    """
    facts = true.facts
    rate, steps = facts["learning_rate"], facts["best_step"]
    return require_finite(
        _tune(context, "synthesizer-random", pairs, baseline, rate, steps, random_pairs=True)
    )


def synthesizer_checkpoint(result: StageResult) -> Path:
    """The weights of a tuned synthesizer: the best on held-out pairs, and for random pairs the same step."""
    return result.folder / result.facts["checkpoint"]


def pair_value_stage(
    context: Context,
    pairs: StageResult,
    baseline: StageResult,
    true_synthesizer: StageResult,
    random_synthesizer: StageResult,
) -> StageResult:
    """What the true seed is worth, in nats per token of d2, on targets that no model was trained on.

    Facts: "tables", of `VALUE_TABLES` those that the pair source has.
    """
    recipe, corpus = context.recipe, context.corpus

    def make(folder: Path) -> dict[str, Any]:
        true = load_trained(context, synthesizer_checkpoint(true_synthesizer))
        random = load_trained(context, synthesizer_checkpoint(random_synthesizer))
        untuned = load_trained(context, best_checkpoint(baseline))
        clusters = np.asarray(corpus.column("test", "cluster"))[corpus.unit_parents("test")]
        tables = {}
        for name in (name for name in VALUE_TABLES if name in pairs.facts):
            table = read_pairs(pairs.folder / f"{name}.parquet")
            targets = table["target_doc"].to_numpy()
            losses = {
                "true": _pair_losses(context, pairs, name, true),
                "random": _pair_losses(context, pairs, name, random),
                "shuffled": _pair_losses(context, pairs, name, true, random_pairs=True),
                "none": _losses_alone(context, corpus.open_units("test"), targets, untuned),
            }
            # A target that is cut beside one seed and whole beside another would compare different tokens.
            tokens = losses["true"].tokens
            whole = np.all([loss.tokens == tokens for loss in losses.values()], axis=0)
            similarity = table["similarity"].to_numpy()[whole]
            tables[name] = pair_value(
                {model: loss.nats[whole] for model, loss in losses.items()},
                tokens[whole],
                clusters[targets[whole]],
                # Unknown where no embedder measured it; then there is no table by similarity.
                similarity if np.isfinite(similarity).all() else None,
                resamples=recipe.evaluation.bootstrap_resamples,
                seed=derive_key(context.seed, "pair value", name),
            )
        return {"tables": tables}

    return context.workspace.stage(
        context.name("pair-value"),
        inputs={
            "pairs": pairs,
            "baseline": baseline,
            "true": true_synthesizer,
            "random": random_synthesizer,
        },
        settings={
            "evaluation": recipe.evaluation.model_dump(mode="json", exclude={"triples", "downstream"}),
            "context": recipe.synthesizer.context,
            "seed": context.seed,
        },
        make=make,
    )


def _tune(
    context: Context,
    stage: str,
    pairs: StageResult,
    baseline: StageResult,
    learning_rate: float,
    steps: int,
    random_pairs: bool = False,
) -> StageResult:
    """One tuning. On true pairs held-out loss picks the steps and weights; on random pairs they are given."""
    section = context.recipe.synthesizer
    training = TrainingConfig(
        **{
            **context.recipe.training.model_dump(),
            "sequence_length": section.context,
            "global_batch": section.global_batch,
            "micro_batch": section.micro_batch,
            "learning_rate": learning_rate,
            "weight_decay": section.weight_decay,
            "schedule": "constant",
            "warmup_share": 0.0,
            "validations": 1 if random_pairs else section.validations,
        }
    )
    name = context.name(stage)
    patience = None if random_pairs else section.patience
    order = derive_key(context.seed, "pair order")

    def make(folder: Path) -> dict[str, Any]:
        with context.runtime.main_first():
            source = _pair_source(context, pairs, "train", random_pairs, order, folder / "plan")
        job = TrainingJob(
            name=name,
            model=context.recipe.model,
            training=training,
            source=source,
            steps=steps,
            seed=context.seed,
            folder=folder,
            validation=_pair_source(context, pairs, "validation", random_pairs),
            initial_checkpoint=best_checkpoint(baseline),
            early_stop_patience=patience,
            tokenizer_hash=context.corpus.open_tokenizer().hash,
        )
        facts = train_in_stage(context, name, job)
        checkpoint = best_step = None
        if "diverged" not in facts:
            checkpoint = facts["last_checkpoint" if random_pairs else "best_checkpoint"]
            best_step = min(facts["history"], key=lambda entry: entry["validation_loss"])["step"]
        return {
            **facts,
            "checkpoint": checkpoint,
            "learning_rate": learning_rate,
            "best_step": best_step,
            "pairs": _table(pairs, "train", random_pairs).num_rows,
        }

    return context.workspace.stage(
        name,
        inputs={"pairs": pairs, "baseline": baseline},
        settings={
            "training": training.deciding(),
            "steps": steps,
            "patience": patience,
            "seed": context.seed,
        },
        make=make,
        ignore=TRAINING_LOGS,
    )


def _table(pairs: StageResult, name: str, random_pairs: bool) -> Any:
    return read_pairs(pairs.folder / (f"{name}.random.parquet" if random_pairs else f"{name}.parquet"))


def _pair_source(
    context: Context,
    pairs: StageResult,
    name: str,
    random_pairs: bool = False,
    seed: int | None = None,
    plan_folder: Path | None = None,
) -> PairSource:
    """Pair sequences of a table; in plan order without a seed."""
    table = _table(pairs, name, random_pairs)
    seed_split, target_split = pairs.facts[name]["splits"]
    corpus = context.corpus
    return PairSource(
        corpus.open_units(seed_split),
        corpus.open_units(target_split),
        table["seed_doc"].to_numpy(),
        table["target_doc"].to_numpy(),
        context=context.recipe.synthesizer.context,
        separator_token=corpus.open_tokenizer().sep,
        seed=seed,
        name=f"pairs/{name}",
        plan_folder=plan_folder,
    )


def _pair_losses(
    context: Context, pairs: StageResult, name: str, model: Transformer, random_pairs: bool = False
) -> DocumentLosses:
    """Losses of d2 given its seed, one item per pair of the table."""
    source = _pair_source(context, pairs, name, random_pairs)
    items = _table(pairs, name, random_pairs).num_rows
    return document_losses(model, source, items, context.recipe.evaluation.batch_size, context.runtime)


def _losses_alone(
    context: Context, dataset: IndexedDataset, targets: np.ndarray, model: Transformer
) -> DocumentLosses:
    """Losses of the targets with no seed, as the untuned checkpoint reads any document; one item per pair."""
    source = PackedDocuments(dataset, context.recipe.synthesizer.context, np.unique(targets))
    batch_size = context.recipe.evaluation.batch_size
    losses = document_losses(model, source, len(dataset), batch_size, context.runtime)
    return DocumentLosses(losses.nats[targets], losses.tokens[targets])
