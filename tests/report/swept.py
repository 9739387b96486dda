"""A made-up sweep in the shape that `megasbp sweep` leaves behind."""

import json
from pathlib import Path
from typing import Any

from fixture import fake_results


def make_sweep(folder: Path, *settings: dict[str, Any]) -> Path:
    """The sweep.json of a sweep over these settings, SBP's gain growing from one to the next."""
    listed = []
    for number, one in enumerate(settings):
        results = fake_results(gain=0.001 * (number + 1))
        path = folder / f"variant-{number}" / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(results))
        listed.append({"settings": one, "results": f"variant-{number}/results.json"})
    (folder / "sweep.json").write_text(json.dumps({"recipes": listed}))
    return folder / "sweep.json"
