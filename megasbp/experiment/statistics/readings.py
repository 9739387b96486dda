"""What results.json keeps of an estimate that is one of many."""

from typing import Any

from megasbp.experiment.statistics.intervals import Estimate


def reading(found: Estimate) -> dict[str, Any]:
    """Estimate, interval and standard error; no p-value: it is described, and not tested."""
    return {
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "level": found.level,
        "label": found.label,
        "standard_error": found.standard_error,
    }
