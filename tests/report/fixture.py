"""Plausible made-up results in the shape of docs/results-schema.md."""

import math
from itertools import pairwise
from typing import Any

from fake_tasks import fake_domains, fake_downstream
from text_fixture import text_measures

# Final validation loss (nats per token), decay of the curve, test loss (nats per byte), change per seed.
ARMS = {
    "baseline": (4.576, 3.2, 1.3142, 0.0021),
    "sbp": (4.551, 3.0, 1.3069, 0.0017),
    "random_pairs": (4.583, 3.0, 1.3155, 0.0024),
    "oracle": (4.467, 3.1, 1.2829, 0.0019),
}

PROSE = (
    "The river rises in the northern hills and runs south for two hundred kilometres before the sea. "
    "It was first surveyed in 1874, and its lower course has been navigable since a lock was built in 1902."
)


def history(final: float, decay: float, seed: int) -> list[dict[str, Any]]:
    """A falling learning curve of twelve validations."""
    points = []
    for number in range(1, 13):
        share = number / 12
        wobble = 0.012 * math.sin(5 * share + seed) * (1.2 - share)
        loss = final + 3.9 * math.exp(-2.2 * decay * share) + 0.06 * (1 - share) + wobble
        points.append({"step": 25 * number, "tokens": 204_800 * number, "validation_loss": round(loss, 6)})
    return points


def curve(histories: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean and range of the seeds' curves."""
    points = []
    for row in zip(*histories, strict=True):
        losses = [point["validation_loss"] for point in row]
        mean = sum(losses) / len(losses)
        points.append({**row[0], "validation_loss": mean, "low": min(losses), "high": max(losses)})
    return points


def arm(name: str, seeds: int) -> dict[str, Any]:
    """One arm: 2.46M matched tokens, 37.5% of them synthetic where the arm has such text."""
    final, decay, nats_per_byte, step = ARMS[name]
    source = "oracle" if name == "oracle" else "unique"
    synthetic = 921_600 if name in ("sbp", "random_pairs") else 0
    tokens = {source: 2_457_600 - synthetic} | ({"synthetic": synthetic} if synthetic else {})
    stages = {"embedding": 0.0, "initial pretraining": 0.0, "tuning": 0.0, "generation": 0.0}
    if synthetic:
        stages = {"embedding": 2.1e11, "initial pretraining": 5.4e13, "tuning": 2.9e13, "generation": 1.2e13}
    owned = stages["embedding"] + stages["tuning"] + stages["generation"] + 5.4e13
    return {
        "plan": {
            "steps": 300,
            "tokens_per_source": tokens,
            "epochs": {
                part: round(count / (344_064 if part == "unique" else 1_100_000), 4)
                for part, count in tokens.items()
            },
            "synthetic_share": synthetic / 2_457_600,
        },
        "ledger": {
            "matched_tokens": 2_457_600,
            "flops": {**stages, "final training": 5.4e13},
            "total_flops_owned": owned,
            "total_flops_counted": owned + stages["initial pretraining"],
        },
        "test": {
            "estimate": nats_per_byte,
            "low": round(nats_per_byte - 0.0164, 4),
            "high": round(nats_per_byte + 0.0164, 4),
            "level": 0.95,
            "label": label(seeds),
        },
        "test_best_validation": {
            "estimate": round(nats_per_byte - 0.0008, 4),
            "low": round(nats_per_byte - 0.0172, 4),
            "high": round(nats_per_byte + 0.0156, 4),
            "level": 0.95,
            "label": label(seeds),
        },
        "curve": curve([history(final, decay, seed) for seed in range(seeds)]),
        "seeds": {
            str(seed): {
                "best_validation": {
                    "step": 275,
                    "tokens": 2_252_800,
                    "test_nats_per_byte": round(nats_per_byte - 0.0008, 6),
                    "test_nats_per_token": round(final - 0.001, 6),
                },
                "test_nats_per_byte": round(nats_per_byte + step * (seed - (seeds - 1) / 2), 6),
                "test_nats_per_token": round(final + step * seed, 6),
                "best_validation_loss": final,
                "final_validation_loss": round(final + 0.001, 4),
                "history": history(final, decay, seed),
            }
            for seed in range(seeds)
        },
    }


def label(seeds: int) -> str:
    """How far the interval speaks."""
    return "conditional on this run" if seeds == 1 else f"over {seeds} seeds"


def contrast(
    treatment: str,
    reference: str,
    estimate: float,
    half: float,
    p: float,
    seeds: int,
    role: str = "secondary",
) -> dict[str, Any]:
    """A paired difference with a symmetric interval; a secondary one is of a family of two."""
    return {
        "role": role,
        "treatment": treatment,
        "reference": reference,
        "estimate": estimate,
        "low": round(estimate - half, 6),
        "high": round(estimate + half, 6),
        "level": 0.95,
        "p": None if role == "descriptive" else p,
        "p_holm": min(1.0, 2 * p) if role == "secondary" else None,
        "detectable": round(1.5 * half, 6),
        "standard_error": half / 2,
        "seed_error": None if seeds == 1 else half / 3,
        "document_error": half / 3,
        "clusters": 812,
        "seeds": list(range(seeds)),
        "label": label(seeds),
        "best_validation": {
            "estimate": round(estimate - 0.001, 6),
            "low": round(estimate - 0.001 - half, 6),
            "high": round(estimate - 0.001 + half, 6),
            "level": 0.95,
            "p": None if role == "descriptive" else min(1.0, 1.5 * p),
            "p_holm": min(1.0, 3 * p) if role == "secondary" else None,
        },
    }


def multiplier(estimate: float) -> dict[str, Any]:
    """A data-efficiency multiplier whose interval ends inside what was measured."""
    return {
        "kind": "within",
        "estimate": estimate,
        "low": round(estimate - 0.2, 4),
        "high": round(estimate + 0.3, 4),
        "smallest": 1.0,
        "largest": 4.02,
        "level": 0.95,
        "label": label(3),
        "points": [
            {"arm": "baseline", "multiple": 1.0, "unique_tokens": 344_064},
            {"arm": "oracle", "multiple": 4.02, "unique_tokens": 1_383_137},
        ],
    }


def pair_table(pairs: int, worth: float) -> dict[str, Any]:
    """Held-out pair losses in nats per token; alike pairs are worth more."""
    true = 4.412
    edges = [0.5, 0.561, 0.633, 0.724, 0.947]
    gap = round(1.3 * worth, 4)
    return {
        "pairs": pairs,
        "tokens": pairs * 143,
        "losses": {"true": true, "random": true + worth, "shuffled": true + gap, "none": 4.498},
        "worth": {"estimate": worth, "low": round(worth - 0.012, 4), "high": round(worth + 0.012, 4)},
        "shuffled_gap": {"estimate": gap, "low": round(gap - 0.012, 4), "high": round(gap + 0.012, 4)},
        "bins": [
            {"low": low, "high": high, "pairs": pairs // 4, "worth": round(worth * (0.5 + number / 3), 4)}
            for number, (low, high) in enumerate(pairwise(edges))
        ],
    }


def triple(number: int) -> dict[str, Any]:
    """A triple of texts; every third one was dropped by a filter."""
    accepted = number % 3 != 2
    return {
        "seed_title": f"River {number}",
        "seed": f"River {number} is a river. {PROSE}",
        "neighbour": f"Lake {number} is a lake fed by River {number}. {PROSE}",
        "synthetic": f"The valley of River {number} is a protected area. {PROSE}{' It is long.' * number}",
        "copied": {"seed": [[49, 70]], "corpus": [[0, 20], [60, 90]]},
        "similarity": round(0.55 + 0.011 * number, 4),
        "arm": "sbp",
        "filters": {"length": True, "repetition": accepted, "seed copy": 0.021},
        "accepted": accepted,
    }


def text_quality(repeated: float, seed_copy: float | None) -> dict[str, Any]:
    """Figures of a set of documents, as the evaluation measures them."""
    return {
        "documents": 1000,
        "tokens": 142_900,
        "length_tokens": {"mean": 142.9, "p5": 41, "p50": 118, "p95": 330, "maximum": 701},
        "length_characters": None,
        "repeated_share": repeated,
        "near_duplicate_share": repeated / 4,
        "near_duplicates_at": {"1000": repeated / 4},
        "distinct": {"1": 0.0262, "4": 0.8713},
        "seed_copy": None
        if seed_copy is None
        else {"mean_coverage": 3 * seed_copy, "copied_share": seed_copy},
        "corpus_copy": {"mean_coverage": 0.021, "longest": {"mean": 4.2, "p95": 21, "maximum": 96}},
        "novel": {"2": 0.113, "8": 0.951},
    }


def fake_results(
    seeds: int = 3, gain: float = 0.0073, half: float = 0.0046, p: float = 0.011
) -> dict[str, Any]:
    """Results in which SBP gains `gain` nats per byte over the baseline, give or take `half`."""
    grid = [
        {"learning_rate": rate, "weight_decay": decay, "validation_loss": loss}
        for rate, decay, loss in (
            (1e-3, 0.1, 4.631),
            (1e-3, 0.8, 4.597),
            (3e-3, 0.1, 4.604),
            (3e-3, 0.8, 4.576),
        )
    ]
    tuning = {"learning_rate": 3e-4, "steps": 210, "pairs": 7012}
    tuned = [
        {"step": 30 * k, "tokens": 240_000 * k, "validation_loss": round(4.41 + 0.3 / k, 4)}
        for k in range(1, 8)
    ]
    share = {"kind": "interval", "estimate": 0.233, "low": 0.084, "high": 0.391}
    if gain - half <= 0:
        share = {"kind": "interval", "estimate": round(gain / 0.0313, 3), "low": -0.21, "high": 0.14}
    return {
        "schema": 2,
        "name": "demo",
        "recipe_hash": "9f2c4e1ab07d5c3388f14d0c6be1a7720c0d6b1e5b6a4a3f9e27d1c85b0a4411",
        "recipe": {
            "name": "demo",
            "seeds": list(range(seeds)),
            "budget": {"tokens_per_arm": 2_460_000, "synthetic_share": 0.375},
            "training": {
                "sequence_length": 512,
                "global_batch": 16,
                "learning_rate": 3e-3,
                "precision": "bf16",
            },
        },
        "source": {
            "name": "Wikipedia lead sections",
            "licence": "CC BY-SA 4.0",
            "url": "https://example.org/lead-sections",
        },
        "corpus": {
            "splits": {
                "unique": {"documents": 2406, "tokens": 344_064, "bytes": 1_180_233},
                "oracle": {"documents": 7700, "tokens": 1_100_000, "bytes": 3_774_018},
                "validation": {"documents": 1000, "tokens": 142_900, "bytes": 490_251},
                "test": {"documents": 1000, "tokens": 143_310, "bytes": 491_877},
            },
            "quarantine": {"empty_text": 12, "not_utf8": 1},
            "near_duplicates": 331,
            "unit": "document",
            "vocabulary_size": 4096,
        },
        "model": {
            "parameters": 3_664_512,
            "parameters_without_embedding": 2_878_080,
            "layers": 6,
            "width": 192,
            "heads": 6,
            "tied": True,
        },
        "pairing": {
            "embedder": "minilm",
            "pairs": 7012,
            "drops": {
                "below the minimum similarity": 31_240,
                "near-duplicate": 418,
                "target over its limit": 903,
            },
            "similarity_histogram": {
                "edges": [round(0.45 + 0.05 * k, 2) for k in range(11)],
                "counts": [0, 1630, 1502, 1221, 987, 744, 486, 271, 138, 33],
            },
            "hubness": {"skewness": 1.84, "maximum": 10, "mean": 2.91, "never": 0.112},
            "hubness_before_caps": {"skewness": 3.61, "maximum": 57, "mean": 3.29, "never": 0.108},
            "in_degree": {
                "edges": list(range(12)),
                "counts": [269, 512, 498, 402, 301, 190, 98, 61, 40, 21, 14],
            },
            "in_degree_before_caps": {"edges": [0, 20, 40, 60], "counts": [2390, 13, 3]},
        },
        "tuning": {"trials": grid, "chosen": {"learning_rate": 3e-3, "weight_decay": 0.8}},
        "synthesizer": {
            "true": {
                **tuning,
                "trials": [{"learning_rate": 3e-4, "best_validation_loss": 4.453, "best_step": 210}],
                "history": tuned,
            },
            "random": {
                **tuning,
                "trials": [],
                "history": [{**point, "validation_loss": point["validation_loss"] + 0.04} for point in tuned],
            },
        },
        "pair_value": {
            "tables": {"new_target": pair_table(1200, 0.031), "new_seed_and_target": pair_table(640, 0.022)}
        },
        "gates": {
            str(seed): [
                {"name": "pair value", "open": True, "finding": "a pair is worth +0.0310", "mend": None},
                {
                    "name": "copying",
                    "open": True,
                    "finding": "2.4% of the accepted text",
                    "mend": None,
                },
                {"name": "baseline", "open": True, "finding": "it is past its minimum", "mend": None},
            ]
            for seed in range(seeds)
        },
        "synthesis": {
            "sbp": {
                "requests": 8200,
                "accepted": 6411,
                "acceptance": 0.7818,
                "tokens": 921_870,
                "drops": {"no_end": 1104, "repetition": 512, "too_short": 160, "seed_copy": 13},
            },
            "random_pairs": {
                "requests": 8050,
                "accepted": 6498,
                "acceptance": 0.8072,
                "tokens": 922_014,
                "drops": {"no_end": 970, "repetition": 431, "too_short": 144, "seed_copy": 7},
            },
        },
        "arms": {name: arm(name, seeds) for name in ARMS},
        "contrasts": {
            "H1 sbp vs baseline": contrast("sbp", "baseline", gain, half, p, seeds, "primary"),
            "H3 sbp vs random_pairs": contrast(
                "sbp", "random_pairs", round(gain + 0.0013, 4), half, p / 2, seeds
            ),
            "oracle vs baseline": contrast("oracle", "baseline", 0.0313, 0.0051, 2e-5, seeds, "descriptive"),
        },
        "downstream": fake_downstream(),
        "domains": fake_domains(),
        "oracle_share": {**share, "level": 0.95, "label": label(seeds)},
        "data_efficiency": multiplier(1.31) | {"best_validation": multiplier(1.24)},
        "quality": {
            "real": text_quality(0.018, None),
            "sbp": text_quality(0.031, 0.003),
            "random_pairs": text_quality(0.034, 0.001),
        },
        **text_measures(),
        "triples": [triple(number) for number in range(9)],
        "what_this_run_can_show": (
            "This run is far below the scale of the paper. It can show that the pipeline works and which way "
            "the loss moves at this size; it cannot show what happens at billions of parameters."
        ),
    }
