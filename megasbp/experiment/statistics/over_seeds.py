"""One value over several seeds, where each seed gives an interval of its own over the documents."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from megasbp.experiment.statistics.intervals import critical, reach


def over_seeds(
    found: Mapping[int, Mapping[str, float | None]], clusters: int, level: float
) -> dict[str, Any]:
    """The mean over the seeds, with an interval for seeds and documents as `intervals` has it.

    V_document is taken from the seeds' own intervals over documents, as if they were normal. The seeds read
    the same held-out documents, so their errors are taken for one: the standard error of the mean over seeds
    is the mean of theirs, which it is at most.

    Args:
        found: seed -> {"estimate", "low", "high"} of a bootstrap over documents; the bounds may be None.
        clusters: of documents; the fewest of any seed.
        level: nominal coverage of these intervals, and of the one returned.

    Returns:
        JSON-able: {"estimate", "low", "high", "level", "standard_error", "seed_error", "document_error",
        "seeds", "label"}. One seed keeps its own interval, and `seed_error` is None. Without an interval over
        documents there is none over seeds.
    """
    seeds = sorted(found)
    estimates = np.array([found[seed]["estimate"] for seed in seeds], dtype=np.float64)
    estimate = float(estimates.mean())
    about = {"level": level, "seeds": seeds, "label": reach(len(seeds))}
    bounds = [(found[seed]["low"], found[seed]["high"]) for seed in seeds]
    widths = [high - low for low, high in bounds if low is not None and high is not None]
    seed_error = float(np.sqrt(estimates.var(ddof=1) / len(seeds))) if len(seeds) > 1 else None
    if len(widths) < len(seeds):
        errors = {"standard_error": None, "seed_error": seed_error, "document_error": None}
        return {"estimate": estimate, "low": None, "high": None, **errors, **about}
    document_error = float(np.mean(widths)) / (2 * float(stats.norm.isf((1 - level) / 2)))
    errors = {
        "standard_error": float(np.hypot(seed_error or 0.0, document_error)),
        "seed_error": seed_error,
        "document_error": document_error,
    }
    if seed_error is None:
        low, high = bounds[0]
    else:
        margin = float(
            np.hypot(
                critical(level, len(seeds) - 1) * seed_error, critical(level, clusters - 1) * document_error
            )
        )
        low, high = estimate - margin, estimate + margin
    return {"estimate": estimate, "low": low, "high": high, **errors, **about}
