"""results.json: everything the report draws, and nothing that changes between two equal runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.experiment.arm_stages import setting_of, source_tokens
from megasbp.experiment.budget import (
    EQUAL_FLOPS_ARMS,
    ArmPlan,
    multiple_arm,
    multiple_source,
    trained_arms,
)
from megasbp.experiment.comparisons import compare, data_efficiency_of_sbp, share_of_oracle
from megasbp.experiment.corpus_stages import DATASETS
from megasbp.experiment.divergence import DivergedStage
from megasbp.experiment.domain_stages import domain_results
from megasbp.experiment.downstream_results import downstream_results
from megasbp.experiment.pair_sources import VALUE_TABLES
from megasbp.experiment.pair_value_results import TABLE_TITLES, pair_value_results
from megasbp.experiment.read_log import note_read
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.seed_results import SeedResults
from megasbp.experiment.software import publish_software
from megasbp.experiment.stages import StageResult
from megasbp.experiment.statistics.intervals import CONDITIONAL, arm_loss
from megasbp.experiment.statistics.losses import HeldOutLosses
from megasbp.experiment.text_measures import measured, with_measures
from megasbp.model.flops import parameter_count
from megasbp.storage import publish_json

_SHAPE = (
    "similarity_histogram",
    "hubness",
    "hubness_before_caps",
    "in_degree",
    "in_degree_before_caps",
)
# Of a contrast between best-validation weights; the rest is as at the end of the budget.
_BEST_READING = ("estimate", "low", "high", "level", "p", "p_holm")
# Seed -> its trainings that diverged.
LeftOut = Mapping[int, Sequence[DivergedStage]]


def publish_results(recipe: Recipe, seeds: list[SeedResults], left_out: LeftOut, folder: Path) -> Path:
    """Writes results.json into a folder and returns its path; the arguments are those of `assemble`."""
    path, results = folder / "results.json", assemble(recipe, seeds, left_out)
    publish_json(path, results)
    note_read(recipe.folder, path, results)
    publish_software(folder)
    return path


def assemble(recipe: Recipe, seeds: list[SeedResults], left_out: LeftOut) -> dict[str, Any]:
    """The results of a finished run; schema in docs/results-schema.md.

    Args:
        left_out: seed -> its trainings that diverged; it is not among `seeds`.

    Raises:
        InputError: no seed is left.
    """
    if not seeds:
        named = "; ".join(str(one) for diverged in left_out.values() for one in diverged)
        raise InputError(f"{recipe.name}: every seed is left out: {named}; lower these learning rates")
    first = seeds[0]
    corpus = first.context.corpus
    held_out = _held_out(recipe, seeds, [result.losses for result in seeds])
    at_best = _held_out(recipe, seeds, [result.best_losses for result in seeds])
    key, resamples = derive_key(0, "test bootstrap"), recipe.evaluation.bootstrap_resamples
    return {
        "schema": 2,
        "name": recipe.name,
        "recipe": recipe.content(),
        "recipe_hash": recipe.hash,
        "source": recipe.corpus.source.model_dump(mode="json"),
        "corpus": {
            "splits": {name: corpus.datasets.facts[name] for name in DATASETS},
            "quarantine": corpus.split.facts["quarantine"]["reasons"],
            "near_duplicates": corpus.split.facts["near_duplicates"],
            "vocabulary_size": corpus.tokenizer.facts["vocabulary_size"],
            "unit": corpus.units.facts["unit"],
        },
        "model": _model(recipe),
        "pairing": _pairing(recipe, first),
        "tuning": _tuning(first),
        "synthesizer": {kind: _synthesizer(first, kind) for kind in first.synthesizers},
        "pair_value": pair_value_results({one.context.seed: one.pair_value.facts["tables"] for one in seeds}),
        **({"left_out": _left_out(left_out)} if left_out else {}),
        "gates": {str(one.context.seed): [asdict(gate) for gate in one.gates] for one in seeds},
        "synthesis": {arm: _synthesis(first, arm) for arm in first.synthesis},
        **({"packing": {arm: stage.facts for arm, stage in first.packed.items()}} if first.packed else {}),
        "arms": {arm: _arm(recipe, seeds, arm, held_out[arm], at_best[arm]) for arm in trained_arms(recipe)},
        "contrasts": _contrasts(held_out, at_best, key, resamples),
        **({"downstream": downstream_results(recipe, seeds)} if first.downstream else {}),
        **({"domains": domain_results(held_out, first.domains, key, resamples)} if first.domains else {}),
        "oracle_share": share_of_oracle(held_out, key, resamples),
        "data_efficiency": _data_efficiency(recipe, first, held_out, at_best, key, resamples),
        "quality": with_measures(
            {name: stage.facts["quality"] for name, stage in first.quality.items()}, first.measures
        ),
        **_of_one_seed(measured(recipe, first.context.seed, first.measures)),
        "triples": first.triples.facts["triples"] if first.triples else [],
        "what_this_run_can_show": _scope(recipe, first, len(seeds)),
    }


def _held_out(
    recipe: Recipe, seeds: list[SeedResults], stages: list[dict[str, StageResult]]
) -> dict[str, HeldOutLosses]:
    """Arm -> its losses, from the stages of each seed."""
    corpus = seeds[0].context.corpus
    units = np.asarray(corpus.column("test", "bytes"), dtype=np.int64)
    clusters = np.asarray(corpus.column("test", "cluster"), dtype=np.int64)
    return {
        arm: HeldOutLosses(
            {
                result.context.seed: np.load(losses[arm].folder / "nats.npy")
                for result, losses in zip(seeds, stages, strict=True)
            },
            units,
            clusters,
        )
        for arm in trained_arms(recipe)
    }


def _contrasts(
    held_out: dict[str, HeldOutLosses], at_best: dict[str, HeldOutLosses], key: int, resamples: int
) -> dict[str, Any]:
    """The contrasts at the end of the budget, each with the same one between the best-validation weights."""
    best = compare(at_best, key, resamples)
    return {
        name: {**one, "best_validation": {part: best[name][part] for part in _BEST_READING}}
        for name, one in compare(held_out, key, resamples).items()
    }


def _data_efficiency(
    recipe: Recipe,
    first: SeedResults,
    held_out: dict[str, HeldOutLosses],
    at_best: dict[str, HeldOutLosses],
    key: int,
    resamples: int,
) -> dict[str, Any] | None:
    """SBP's multiplier, at the end of the budget and between best-validation weights."""
    tokens = source_tokens(first.context.corpus)
    unique = {"baseline": tokens["unique"]}
    unique |= {multiple_arm(one): tokens[multiple_source(one)] for one in recipe.budget.multiples}
    found = data_efficiency_of_sbp(held_out, unique, key, resamples)
    if found is None:
        return None
    return {**found, "best_validation": data_efficiency_of_sbp(at_best, unique, key, resamples)}


def _model(recipe: Recipe) -> dict[str, Any]:
    return {
        **recipe.model.model_dump(mode="json"),
        "parameters": parameter_count(recipe.model),
        "parameters_without_embedding": parameter_count(recipe.model, embedding=False),
    }


def _pairing(recipe: Recipe, first: SeedResults) -> dict[str, Any]:
    facts = first.pairs.facts
    return {
        "source": recipe.pairing.source,
        "embedder": recipe.pairing.embedder,
        "fingerprint": first.embed.facts["fingerprint"] if first.embed else None,
        "reading": facts["reading"],
        "without": {TABLE_TITLES.get(name, name): reason for name, reason in facts["without"].items()},
        "pairs": facts["train"]["pairs"],
        "drops": facts["train"]["drops"],
        "held_out_pairs": {
            name: facts[name]["pairs"] for name in facts if name in ("validation", *VALUE_TABLES)
        },
        **{name: facts[name] for name in _SHAPE},
    }


def _tuning(first: SeedResults) -> dict[str, Any]:
    own = {
        arm: {
            "trials": _trials(trials),
            "chosen": asdict(setting_of(first.trained[arm])),
        }
        for arm, trials in first.arm_trials.items()
    }
    of_baseline = {"trials": _trials(first.trials), "chosen": asdict(first.chosen)}
    return of_baseline | ({"arms": own} if own else {})


def _trials(stages: list[StageResult]) -> list[dict[str, Any]]:
    return [
        {
            **asdict(setting_of(trial)),
            # None where it diverged.
            "validation_loss": trial.facts["final_validation_loss"],
        }
        for trial in stages
    ]


def _synthesizer(first: SeedResults, kind: str) -> dict[str, Any]:
    facts = first.synthesizers[kind].facts
    trials = [
        {
            "learning_rate": stage.facts["learning_rate"],
            # None, like its step, where it diverged.
            "best_validation_loss": stage.facts["best_validation_loss"],
            "best_step": stage.facts["best_step"],
        }
        for stage in first.synthesizer_trials.get(kind, [])
    ]
    return {
        "learning_rate": facts["learning_rate"],
        "steps": facts["best_step"] if kind in first.synthesizer_trials else facts["steps"],
        "pairs": facts["pairs"],
        "best_validation_loss": facts["best_validation_loss"],
        "history": facts["history"],
        "trials": trials,
    }


def _left_out(left_out: LeftOut) -> dict[str, list[dict[str, str]]]:
    return {
        str(seed): [{"stage": one.stage, "finding": one.finding} for one in diverged]
        for seed, diverged in left_out.items()
    }


def _of_one_seed(found: dict[str, Any]) -> dict[str, Any]:
    """Measures of the text of one seed, whose intervals say so."""
    if "relation" not in found:
        return found
    label = {"label": CONDITIONAL}
    kinds = {
        name: {**kind, **{rank: kind[rank] | label for rank in ("rank_1", "rank_10", "reciprocal_rank")}}
        for name, kind in found["relation"]["kinds"].items()
    }
    return {**found, "relation": {**found["relation"], "kinds": kinds}}


def _synthesis(first: SeedResults, arm: str) -> dict[str, Any]:
    facts = first.synthesis[arm].facts
    return {
        "requests": facts["requests"],
        "accepted": facts["documents"],
        "acceptance": facts["documents"] / facts["requests"],
        "tokens": facts["tokens"],
        "drops": facts["drops"],
    }


def _arm(
    recipe: Recipe, seeds: list[SeedResults], arm: str, held_out: HeldOutLosses, at_best: HeldOutLosses
) -> dict[str, Any]:
    first = seeds[0]
    units = int(held_out.units.sum())
    per_seed = {}
    for result in seeds:
        trained = result.trained[arm].facts
        best = min(trained["history"], key=lambda point: point["validation_loss"])
        per_seed[str(result.context.seed)] = {
            **_test_losses(result.losses[arm], units),
            "best_validation_loss": trained["best_validation_loss"],
            "final_validation_loss": trained["final_validation_loss"],
            "best_validation": {
                "step": best["step"],
                "tokens": best["tokens"],
                **_test_losses(result.best_losses[arm], units),
            },
            "history": trained["history"],
        }
    key, resamples = derive_key(0, "test bootstrap"), recipe.evaluation.bootstrap_resamples
    return {
        "plan": _plan(first.plans[arm]),
        "ledger": first.ledgers[arm],
        "test": asdict(arm_loss(held_out, key, resamples=resamples)),
        "test_best_validation": asdict(arm_loss(at_best, key, resamples=resamples)),
        # At equal operations each seed has its own number of steps.
        "curve": [] if arm in EQUAL_FLOPS_ARMS else _curve([entry["history"] for entry in per_seed.values()]),
        "seeds": per_seed,
    }


def _curve(histories: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The seeds' learning curves as one: mean and range at each validation; all seeds have the same steps."""
    points = []
    for row in zip(*histories, strict=True):
        losses = [point["validation_loss"] for point in row]
        points.append(
            {
                "step": row[0]["step"],
                "tokens": row[0]["tokens"],
                "validation_loss": sum(losses) / len(losses),
                "low": min(losses),
                "high": max(losses),
            }
        )
    return points


def _test_losses(stage: StageResult, units: int) -> dict[str, float]:
    nats, tokens = stage.facts["nats"], stage.facts["tokens"]
    return {"test_nats_per_byte": nats / units, "test_nats_per_token": nats / tokens}


def _plan(plan: ArmPlan) -> dict[str, Any]:
    return {
        "steps": plan.steps,
        "tokens_per_source": plan.tokens,
        "epochs": plan.epochs,
        "synthetic_share": plan.synthetic_share,
    }


def _scope(recipe: Recipe, first: SeedResults, seeds: int) -> str:
    """Honest words on the size of the run."""
    parameters = parameter_count(recipe.model) / 1e6
    unique = first.context.corpus.datasets.facts["unique"]["tokens"]
    return (
        f"{parameters:.1f}M parameters, {unique / 1e6:.2f}M unique tokens, "
        f"{recipe.budget.tokens_per_arm / 1e6:.2f}M training tokens per arm, {seeds} seed(s). A run of this "
        "size shows that every part of the method works and what a pair is worth to this synthesizer. The "
        "paper's claim is about models a thousand times larger; no result here confirms or refutes it."
    )
