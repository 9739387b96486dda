"""Domains of the held-out text: which document is of which, and every arm's loss on each."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.splits import SPLITS
from megasbp.errors import InputError
from megasbp.experiment.corpus_stages import corpus_documents
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.experiment.statistics.intervals import arm_loss, contrast
from megasbp.experiment.statistics.losses import HeldOutLosses
from megasbp.experiment.statistics.readings import reading
from megasbp.storage import publishing_file

# Of test documents without the field; and of all domains too small for an interval, together.
UNNAMED, OTHERS = "(unnamed)", "(others)"
_MOST_DOMAINS = 50


def domains_stage(recipe: Recipe, workspace: Workspace, split: StageResult) -> StageResult | None:
    """Reads the corpus once more; writes domains.parquet, a row per test document in their order.

    A stage of its own, so that asking for domains leaves every other stage as it is. None where the recipe
    names no field of them.

    Raises:
        InputError: no test document has the field, or it takes too many values to be a domain.
    """
    field = recipe.corpus.domain_field
    if field is None:
        return None

    def make(folder: Path) -> dict[str, Any]:
        codes = pq.read_table(split.folder / "documents.parquet", columns=["split"])["split"].to_numpy()
        wanted = codes == SPLITS.index("test")
        names = [
            document.metadata[field] or UNNAMED
            for row, document in enumerate(corpus_documents(recipe, fields=(field,)))
            if wanted[row]
        ]
        counts = Counter(names)
        if set(counts) == {UNNAMED}:
            raise InputError(f"corpus.domain_field is {field!r}, which no test document has; correct it")
        if len(counts) > _MOST_DOMAINS:
            raise InputError(
                f"corpus.domain_field {field!r} takes {len(counts)} values in {len(names)} test documents, "
                f"at most {_MOST_DOMAINS} are domains; name a field with fewer"
            )
        with publishing_file(folder / "domains.parquet") as partial:
            pq.write_table(pa.table({"domain": names}), partial)
        return {"domains": dict(sorted(counts.items()))}

    # The split's own inputs: its hash says where documents go, and nothing of their other fields.
    inputs: dict[str, StageResult | str] = {**split.manifest.inputs, "split": split}
    return workspace.stage("domains", inputs=inputs, settings={"domain_field": field}, make=make)


def domain_results(
    held_out: Mapping[str, HeldOutLosses], domains: StageResult, key: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """The part "domains" of results.json; schema in docs/results-schema.md.

    Args:
        held_out: arm -> its losses on all test documents.
        domains: of `domains_stage`.
        key, resamples: of the bootstrap.
    """
    names = np.array(pq.read_table(domains.folder / "domains.parquet")["domain"].to_pylist())
    some = held_out["baseline"]
    found = {}
    for name, chosen in _parted(names, some.clusters).items():
        losses = {
            arm: HeldOutLosses(
                {seed: nats[chosen] for seed, nats in one.nats.items()},
                one.units[chosen],
                one.clusters[chosen],
            )
            for arm, one in held_out.items()
        }
        found[name] = {
            "documents": int(chosen.sum()),
            "bytes": int(some.units[chosen].sum()),
            "arms": {
                arm: {
                    "value": reading(arm_loss(one, key, resamples=resamples)),
                    "gain": None
                    if arm == "baseline"
                    else reading(contrast(one, losses["baseline"], key, resamples=resamples)),
                }
                for arm, one in losses.items()
            },
        }
    return found


def _parted(names: np.ndarray, clusters: np.ndarray) -> dict[str, np.ndarray]:
    """Domain -> bool [documents]. Those of one cluster, too few for an interval, are one together."""
    parted, rest = {}, np.zeros(len(names), dtype=bool)
    for name in sorted(set(names.tolist())):
        chosen = names == name
        if len(np.unique(clusters[chosen])) < 2:
            rest |= chosen
        else:
            parted[name] = chosen
    if len(np.unique(clusters[rest])) > 1:
        parted[OTHERS] = rest
    return parted
