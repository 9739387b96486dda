"""Made-up downstream scores in the shape of docs/results-schema.md."""

from typing import Any


def score(estimate: float, error: float) -> dict[str, Any]:
    """A value or a gain with its error."""
    return {
        "estimate": estimate,
        "low": round(estimate - 2 * error, 6),
        "high": round(estimate + 2 * error, 6),
        "level": 0.95,
        "label": "over 3 seeds",
        "standard_error": error,
    }


def measured(values: dict[str, float], error: float, sign: int) -> dict[str, Any]:
    """One measure of every arm; `sign` is -1 for a loss."""
    return {
        arm: {
            "value": score(value, error),
            "gain": None
            if arm == "baseline"
            else score(round(sign * (value - values["baseline"]), 6), error / 4),
        }
        for arm, value in values.items()
    }


def fake_downstream() -> dict[str, Any]:
    """Two tasks of this project, and one of lm-eval's own."""
    losses = measured({"baseline": 1.61, "sbp": 1.58, "oracle": 1.52}, 0.02, -1)
    return {
        "harness": "lm-eval 0.4.13",
        "limit": 500,
        "tasks": {
            "megasbp_arc_easy": {
                "documents": 500,
                "shots": 0,
                "chance": 0.25,
                "cut": 3,
                "measures": {
                    "acc": measured({"baseline": 0.312, "sbp": 0.318, "oracle": 0.33}, 0.0204, 1),
                    "answer_nats_per_byte": losses,
                },
            },
            "megasbp_lambada": {
                "documents": 500,
                "shots": 0,
                "chance": None,
                "cut": 0,
                "measures": {"acc": measured({"baseline": 0.05, "sbp": 0.04}, 0.01, 1)},
            },
            "gsm8k": {
                "documents": 500,
                "shots": 5,
                "chance": None,
                "cut": 0,
                "measures": {"exact_match": measured({"baseline": 0.0, "sbp": 0.0}, 0.0, 1)},
            },
        },
        "average": {
            "of": {"megasbp_arc_easy": "acc", "megasbp_lambada": "acc", "gsm8k": "exact_match"},
            "arms": measured({"baseline": 0.1207, "sbp": 0.1193}, 0.0076, 1),
        },
    }


def fake_domains() -> dict[str, Any]:
    """Two domains of the test split."""
    arms = measured({"baseline": 1.31, "sbp": 1.30}, 0.02, -1)
    return {name: {"documents": 500, "bytes": 245_000, "arms": arms} for name in ("book", "web")}
