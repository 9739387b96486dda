"""Made-up figures of synthetic text beside its quality."""

from typing import Any


def interval(estimate: float, half: float) -> dict[str, Any]:
    """An estimate, give or take half a width."""
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half, "level": 0.95}


def relation_kind(similarity: float, found: float) -> dict[str, Any]:
    """Texts that find their seed first with a share of `found`."""
    return {
        "documents": 2000,
        "seeds": 1873,
        "similarity": {
            "mean": similarity,
            "p5": similarity - 0.2,
            "p50": similarity,
            "p95": similarity + 0.2,
        },
        "histogram": {"edges": [-1.0, 0.0, 0.5, 1.0], "counts": [0, 1200, 800]},
        "rank_1": interval(found, found / 10),
        "rank_10": interval(2 * found, found / 10),
        "reciprocal_rank": interval(1.3 * found, found / 10),
    }


def text_measures() -> dict[str, Any]:
    """What results say of the text beside "quality"."""
    return {
        "relation": {
            "embedder": "minilm:0c1f",
            "candidates": 1000,
            "chance": {"rank_1": 0.001, "rank_10": 0.01, "reciprocal_rank": 0.0075},
            "kinds": {
                "sbp": relation_kind(0.412, 0.133),
                "random_pairs": relation_kind(0.081, 0.0015),
                "true": relation_kind(0.553, 0.301),
                "unrelated": relation_kind(0.052, 0.001),
            },
        },
        "contamination": {
            "tests": {
                "test": {"documents": 1000, "short": 3, "shares": {"unique": 0.041, "sbp": 0.0}},
                "mmlu.jsonl": {"documents": 200, "short": 77, "shares": {"unique": 0.0012, "sbp": 0.0034}},
            },
            "before_filters": {"sbp": 0.029},
        },
        "judge": {
            "kind": "endpoint",
            "name": "a-judge",
            "versions": ["a-judge-2 fp_1"],
            "documents": 200,
            "seed": 0,
            "maximum_characters": 8000,
            "temperature": 0.0,
            "questions": {
                "not_factual": {
                    "prompt_hash": "0123456789abcdef",
                    "rates": {
                        "real": {**interval(0.03, 0.01), "documents": 200, "unparsable": 1},
                        "sbp": {**interval(0.62, 0.05), "documents": 200, "unparsable": 7},
                    },
                },
                "irrelevant": {
                    "prompt_hash": "fedcba9876543210",
                    "rates": {
                        "sbp": {**interval(0.44, 0.05), "documents": 200, "unparsable": 0},
                        "unrelated": {**interval(0.93, 0.03), "documents": 200, "unparsable": 0},
                    },
                },
            },
        },
        "topics": {
            "topics": 64,
            "size": 600,
            "null": {"mean": 0.0121, "p95": 0.0163},
            "sets": {
                "real": {"documents": 800, "divergence": 0.0127, "lost": 0, "over_represented": 0},
                "sbp": {"documents": 2000, "divergence": 0.0391, "lost": 1, "over_represented": 3},
            },
            "most_shifted": [{"example": "Danube", "shares": {"unique": 0.02, "real": 0.021, "sbp": 0.08}}],
        },
    }
