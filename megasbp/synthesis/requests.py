"""Which document is written next: request r is a pure function of (seed, r)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.overlap.documents import content_tokens
from megasbp.synthesis.exchange import Request

# Stands in provenance where the writer was given no seed document.
NO_SEED = -1


class TokenMarks(Protocol):
    """What synthesis needs of a tokenizer: three token numbers, and a hash that names it."""

    @property
    def bos(self) -> int: ...
    @property
    def eos(self) -> int: ...
    @property
    def sep(self) -> int: ...
    @property
    def hash(self) -> str: ...


@dataclass(frozen=True)
class Marks:
    """The marks of a tokenizer that is elsewhere."""

    bos: int
    eos: int
    sep: int
    hash: str


def locate_requests(
    requests: np.ndarray, documents: int, seed: int, together: int = 1, used: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The seed document and the draw of each request.

    Round w asks every seed for its documents w * together and on, in an order of its own. So a run that stops
    anywhere has used each seed document equally often, up to `together`.

    Args:
        requests: int64 [n], each >= 0.
        documents: number of seed documents.
        seed: of the run.
        together: draws of a seed document one after the other.
        used: seed documents that are asked: the first ones in the order of round 0; None asks all.

    Returns:
        Seed documents int64 [n] in [0, documents) and draws int64 [n].

    Raises:
        InputError: there are no seed documents, or fewer than `used`.
    """
    if documents < 1:
        raise InputError("the seed dataset holds 0 documents; synthesis needs at least 1")
    turns, key = requests // together, derive_key(seed, "synthesis", "seed order")
    if used is None:
        order = core.epoch_order(turns, documents, key)
    elif used > documents:
        raise InputError(
            f"synthesis.seed_documents is {used:,}, and the seed dataset holds {documents:,} documents; set "
            "it to at most that, or leave it out to use all"
        )
    else:
        places = core.epoch_order(turns, used, derive_key(seed, "synthesis", "order of the used seeds"))
        order = core.epoch_order(places, documents, key)
    return order, turns // (used or documents) * together + requests % together


def build_prompt(seed_tokens: np.ndarray, tokenizer: TokenMarks, context: int) -> np.ndarray:
    """`bos d1 sep`, int64; d1 is cut to half the context less its two marks, as in the pairs tuned on."""
    cut = seed_tokens[: context // 2 - 2]
    return np.concatenate([[tokenizer.bos], cut, [tokenizer.sep]]).astype(np.int64)


def shard_numbers(shard: int, shard_documents: int) -> np.ndarray:
    """The requests of a shard, int64 [shard_documents]."""
    return np.arange(shard * shard_documents, (shard + 1) * shard_documents, dtype=np.int64)


@dataclass(frozen=True)
class Prompts:
    """What the writer is given: a seed document, or bos alone.

    Attributes:
        seed_dataset: documents d1; None writes without a seed, as the model writes any document.
        tokenizer: of the marks.
        context: positions of prompt and document together.
        draws_together: of a seed document.
        seed_documents: of the dataset that are used; None for all.
    """

    seed_dataset: IndexedDataset | None
    tokenizer: TokenMarks
    context: int
    draws_together: int = 1
    seed_documents: int | None = None

    def locate(self, requests: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """As `locate_requests`; without seeds the document is `NO_SEED` and each request its own draw."""
        if self.seed_dataset is None:
            return np.full(len(requests), NO_SEED, np.int64), requests
        documents = len(self.seed_dataset)
        return locate_requests(requests, documents, seed, self.draws_together, self.seed_documents)

    def seed_tokens(self, seed_document: int) -> np.ndarray:
        """Tokens of a seed document without its marks, integers [n]; none for `NO_SEED`."""
        if self.seed_dataset is None:
            return np.empty(0, np.int64)
        return content_tokens(self.seed_dataset, seed_document)

    def request(self, seed_document: int, draw: int) -> Request:
        """The request of a row of provenance."""
        if self.seed_dataset is None:
            # Addresses of the noise have no negative numbers.
            return Request(0, draw, np.array([self.tokenizer.bos], np.int64))
        prompt = build_prompt(self.seed_tokens(seed_document), self.tokenizer, self.context)
        return Request(seed_document, draw, prompt)


def shard_requests(
    shards: Iterable[int], shard_documents: int, seed: int, prompts: Prompts
) -> Iterator[Request]:
    """The requests of the given shards, in order. The first of a shard shares no prompt with the one before,
    so that a shard is computed in the same way wherever it is written."""
    for shard in shards:
        before = None
        located = prompts.locate(shard_numbers(shard, shard_documents), seed)
        for seed_document, draw in zip(*located, strict=True):
            request = prompts.request(int(seed_document), int(draw))
            yield replace(request, same_prompt=seed_document == before and seed_document != NO_SEED)
            before = seed_document
