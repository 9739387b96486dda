"""Counts of a run, and the decisions that depend on the order of its shards."""

import numpy as np
import pyarrow as pa

from megasbp.errors import InputError
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.filters import ALONE, FILTERS, dropped_by, duplicates
from megasbp.synthesis.provenance import PROVENANCE_SCHEMA

# Requests after which the share of accepted documents is judged; a true share of 5% makes that 13 documents.
_JUDGED_AFTER = 256
# `bos` and `eos` around each stored document.
MARKS = 2


def kept_alone(shard: pa.Table) -> np.ndarray:
    """Whether each document passes all filters that look at it alone, bool [rows]."""
    return ~np.any([shard[f"drop_{name}"].to_numpy() for name in ALONE], axis=0)


def drawn_tokens(shard: pa.Table) -> int:
    """Tokens drawn for all documents of a shard, dropped ones and stop tokens included."""
    stopped = shard["finish_reason"].to_numpy(zero_copy_only=False) == "eos"
    return int(shard["length"].to_numpy().sum(dtype=np.int64) + stopped.sum())


class Ledger:
    """What the shards read so far hold. A pure function of the shards and their order.

    Attributes:
        requests: documents generated.
        documents: documents accepted.
        tokens: tokens of the accepted documents as stored, bos and eos included.
        prompt_tokens: tokens of all prompts that were computed.
        shared_tokens: tokens of prompts that were not, since another draw had the same.
        generated_tokens: tokens drawn for all requests, stop tokens included.
        drops: filter -> documents that it was the first to drop.
    """

    def __init__(self, config: SynthesisConfig) -> None:
        self.requests = 0
        self.documents = 0
        self.tokens = 0
        self.prompt_tokens = 0
        self.shared_tokens = 0
        self.generated_tokens = 0
        self.drops = dict.fromkeys(FILTERS, 0)
        self._config = config
        self._accepted_hashes: set[int] = set()

    def add(self, shard: pa.Table) -> pa.Table:
        """Takes the next shard (`SHARD_SCHEMA`) into account; returns its rows with the last verdicts
        (`PROVENANCE_SCHEMA`).
        """
        drops = {name: shard[f"drop_{name}"].to_numpy() for name in ALONE}
        kept = kept_alone(shard)
        if self._config.drop_duplicates:
            drops["duplicate"] = duplicates(shard["text_hash"].to_numpy(), kept, self._accepted_hashes)
        else:
            drops["duplicate"] = np.zeros(len(kept), bool)
        first = dropped_by(drops)
        accepted = first == ""
        document = np.where(accepted, self.documents + np.cumsum(accepted) - 1, -1)

        length = shard["length"].to_numpy().astype(np.int64)
        self.requests += len(shard)
        self.documents += int(accepted.sum())
        self.tokens += int((length[accepted] + MARKS).sum())
        shared = int(shard["shared_tokens"].to_numpy().sum(dtype=np.int64))
        self.prompt_tokens += int(shard["prompt_tokens"].to_numpy().sum(dtype=np.int64)) - shared
        self.shared_tokens += shared
        self.generated_tokens += drawn_tokens(shard)
        for name in FILTERS:
            self.drops[name] += int((first == name).sum())

        columns = [*shard.columns, *map(pa.array, (drops["duplicate"], first, accepted, document))]
        return pa.table(
            [column.cast(item.type) for column, item in zip(columns, PROVENANCE_SCHEMA, strict=True)],
            PROVENANCE_SCHEMA,
        )

    def require_acceptance(self) -> None:
        """Stops a run that throws nearly everything away.

        Raises:
            InputError: less than `minimum_acceptance` of the requests were accepted; the message names the
                filter that drops most and what to change.
        """
        share = self.documents / max(self.requests, 1)
        if self.requests < _JUDGED_AFTER or (self.documents and share >= self._config.minimum_acceptance):
            return
        worst = max(self.drops, key=lambda name: self.drops[name])
        raise InputError(
            f"synthesis: {self.documents} of {self.requests} documents accepted ({share:.1%}), below "
            f"synthesis.minimum_acceptance ({self._config.minimum_acceptance:.1%}); filter {worst} dropped "
            f"{self.drops[worst]} ({self.drops[worst] / self.requests:.1%}): {FILTERS[worst]}"
        )
