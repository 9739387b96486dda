"""results.json: everything the report draws, and nothing that changes between two equal runs."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from megasbp.addressing import derive_key
from megasbp.experiment.arm_stages import source_tokens, trial_grid
from megasbp.experiment.arms import comparisons
from megasbp.experiment.budget import ArmPlan, plan_arm
from megasbp.experiment.corpus_stages import DATASETS
from megasbp.experiment.ledger import ledger
from megasbp.experiment.method import SeedResults
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.statistics import HeldOutLosses, arm_loss, contrast, holm, oracle_share
from megasbp.experiment.synthesizer_stages import VALUE_TABLES
from megasbp.experiment.text_stages import triples
from megasbp.experiment.work import arm_work
from megasbp.model.flops import parameter_count
from megasbp.storage import publish_json

_SHAPE = (
    "similarity_histogram",
    "hubness",
    "hubness_before_caps",
    "in_degree",
    "in_degree_before_caps",
)
_TABLE_TITLES = {"new_target": "new target", "new_seed_and_target": "new seed and target"}


def publish_results(recipe: Recipe, seeds: list[SeedResults]) -> Path:
    """Writes the run's report/results.json and returns its path."""
    path = recipe.folder / "report" / "results.json"
    publish_json(path, assemble(recipe, seeds))
    return path


def assemble(recipe: Recipe, seeds: list[SeedResults]) -> dict[str, Any]:
    """The results of a finished run; schema in docs/results-schema.md."""
    first = seeds[0]
    corpus = first.context.corpus
    held_out = _held_out(recipe, seeds)
    return {
        "schema": 1,
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
        "pair_value": _pair_value(first),
        "synthesis": {arm: _synthesis(first, arm) for arm in first.synthesis},
        **({"packing": {arm: stage.facts for arm, stage in first.packed.items()}} if first.packed else {}),
        "arms": {arm: _arm(recipe, seeds, arm, held_out[arm]) for arm in recipe.budget.arms},
        **_comparisons(recipe, held_out),
        "quality": {name: stage.facts["quality"] for name, stage in first.quality.items()},
        "triples": triples(first.context, first.pairs, first.synthesis["sbp"], recipe.evaluation.triples)
        if "sbp" in first.synthesis
        else [],
        "what_this_run_can_show": _scope(recipe, first),
    }


def _held_out(recipe: Recipe, seeds: list[SeedResults]) -> dict[str, HeldOutLosses]:
    corpus = seeds[0].context.corpus
    units = np.asarray(corpus.column("test", "bytes"), dtype=np.int64)
    clusters = np.asarray(corpus.column("test", "cluster"), dtype=np.int64)
    return {
        arm: HeldOutLosses(
            {result.context.seed: np.load(result.losses[arm].folder / "nats.npy") for result in seeds},
            units,
            clusters,
        )
        for arm in recipe.budget.arms
    }


def _comparisons(recipe: Recipe, held_out: dict[str, HeldOutLosses]) -> dict[str, Any]:
    resamples = recipe.evaluation.bootstrap_resamples
    key = derive_key(0, "test bootstrap")
    contrasts: dict[str, Any] = {}
    hypotheses: dict[str, Any] = {}
    for one in comparisons():
        if {one.treatment, one.reference} <= held_out.keys():
            estimate = contrast(held_out[one.treatment], held_out[one.reference], key, resamples=resamples)
            found = {"treatment": one.treatment, "reference": one.reference, **asdict(estimate)}
            contrasts[one.name] = found
            # The oracle's is none, for example: it says whether there was a gain to take a share of.
            if one.hypothesis:
                hypotheses[one.name] = found
    for name, adjusted in holm({name: found["p"] for name, found in hypotheses.items()}).items():
        hypotheses[name]["p_holm"] = adjusted
    share = None
    if {"sbp", "oracle"} <= held_out.keys():
        arms = (held_out["sbp"], held_out["baseline"], held_out["oracle"])
        share = asdict(oracle_share(*arms, key, resamples=resamples))
    return {"contrasts": contrasts, "oracle_share": share}


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
        "without": {_TABLE_TITLES.get(name, name): reason for name, reason in facts["without"].items()},
        "pairs": facts["train"]["pairs"],
        "drops": facts["train"]["drops"],
        "held_out_pairs": {
            name: facts[name]["pairs"] for name in facts if name in ("validation", *VALUE_TABLES)
        },
        **{name: facts[name] for name in _SHAPE},
    }


def _tuning(first: SeedResults) -> dict[str, Any]:
    trials = [
        {
            "learning_rate": trial.facts["learning_rate"],
            "weight_decay": trial.facts["weight_decay"],
            "validation_loss": trial.facts["final_validation_loss"],
        }
        for trial in first.trials
    ]
    return {"trials": trials, "chosen": asdict(first.chosen)}


def _synthesizer(first: SeedResults, kind: str) -> dict[str, Any]:
    facts = first.synthesizers[kind].facts
    trials = [
        {
            "learning_rate": stage.facts["learning_rate"],
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


def _pair_value(first: SeedResults) -> dict[str, Any]:
    tables = first.pair_value.facts["tables"]
    return {"tables": {_TABLE_TITLES[name]: _value_table(table) for name, table in tables.items()}}


def _value_table(table: dict[str, Any]) -> dict[str, Any]:
    contrasts = table["contrasts"]
    return {
        "pairs": table["pairs"],
        "tokens": table["tokens"],
        "losses": table["losses"],
        "worth": contrasts["worth"],
        "shuffled_gap": contrasts["shuffled"],
        "bins": [
            {
                "low": part["low"],
                "high": part["high"],
                "pairs": part["pairs"],
                "worth": part["contrasts"]["worth"]["estimate"],
            }
            for part in table["by_similarity"]
        ],
    }


def _synthesis(first: SeedResults, arm: str) -> dict[str, Any]:
    facts = first.synthesis[arm].facts
    return {
        "requests": facts["requests"],
        "accepted": facts["documents"],
        "acceptance": facts["documents"] / facts["requests"],
        "tokens": facts["tokens"],
        "drops": facts["drops"],
    }


def _arm(recipe: Recipe, seeds: list[SeedResults], arm: str, held_out: HeldOutLosses) -> dict[str, Any]:
    first = seeds[0]
    plan = plan_arm(arm, recipe, source_tokens(first.context.corpus, arm, first.shared(arm)))
    per_seed = {}
    for result in seeds:
        trained, losses = result.trained[arm].facts, result.losses[arm].facts
        per_seed[str(result.context.seed)] = {
            "test_nats_per_byte": losses["nats"] / int(held_out.units.sum()),
            "test_nats_per_token": losses["nats"] / losses["tokens"],
            "best_validation_loss": trained["best_validation_loss"],
            "final_validation_loss": trained["final_validation_loss"],
            "history": trained["history"],
        }
    estimate = arm_loss(
        held_out, derive_key(0, "test bootstrap"), resamples=recipe.evaluation.bootstrap_resamples
    )
    return {
        "plan": _plan(plan),
        "ledger": _ledger(recipe, first, plan),
        "test": asdict(estimate),
        "seeds": per_seed,
    }


def _plan(plan: ArmPlan) -> dict[str, Any]:
    return {
        "steps": plan.steps,
        "tokens_per_source": plan.tokens,
        "epochs": plan.epochs,
        "synthetic_share": plan.synthetic_share,
    }


def _ledger(recipe: Recipe, first: SeedResults, plan: ArmPlan) -> dict[str, Any]:
    unused_trials = len(trial_grid(recipe)) - 1
    sweep_tokens = unused_trials * first.trained["baseline"].facts["input_tokens"]
    return ledger(recipe, plan, arm_work(recipe, first, plan.arm), sweep_tokens)


def _scope(recipe: Recipe, first: SeedResults) -> str:
    """Honest words on the size of the run."""
    parameters = parameter_count(recipe.model) / 1e6
    unique = first.context.corpus.datasets.facts["unique"]["tokens"]
    seeds = len(recipe.seeds)
    return (
        f"{parameters:.1f}M parameters, {unique / 1e6:.2f}M unique tokens, "
        f"{recipe.budget.tokens_per_arm / 1e6:.2f}M training tokens per arm, {seeds} seed(s). A run of this "
        "size shows that every part of the method works and what a pair is worth to this synthesizer. The "
        "paper's claim is about models a thousand times larger; no result here confirms or refutes it."
    )
