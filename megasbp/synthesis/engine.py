"""Batched sampling with a key-value cache, in which a document's tokens depend on its request alone.

Two steps alternate, each always at one shape. *Prefill* reads the next `prefill_chunk` prompt tokens of up to
`prefill_slots` slots; *decode* feeds one token to every slot and samples the next. Unused lanes and slots are
padded and masked, never left out, because the last bits of a matrix product depend on its shape. Prompts are
prefilled up to their last token, which is fed by the first decode step: every sample is drawn at the decode
shape. The noise of a draw is addressed by (seed document, draw, position), so the schedule decides the speed
and nothing else.

The host may be a step ahead: what a step draws is then fed to the next one on the device, and looked at when
that is launched. A document whose end is seen so late has been fed once more, for nothing.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from megasbp.errors import InputError
from megasbp.kernels.sample import sample
from megasbp.model.batch_invariant import is_batch_invariant
from megasbp.model.cache import Cache, KeyValueCache
from megasbp.model.host_copies import HostCopy, to_device
from megasbp.model.paged_cache import PAGE_TOKENS, PagedCache
from megasbp.model.transformer import Transformer
from megasbp.synthesis.decode_graph import GraphedStep, Graphs, Step, capture_cuda_graph, uses_graphs
from megasbp.synthesis.engine_sizes import require_sizes
from megasbp.synthesis.exchange import Completion, FinishReason, Request
from megasbp.synthesis.shared_prompts import SharedPrompts

# An ending slot is not fed any more: its last token is drawn, and has yet to be looked at.
FREE, PREFILLING, WAITING, DECODING, ENDING = range(5)
# Numbers of a slot that a decode step is fed.
_FED = 6
# In place of a token: the one that the step before drew.
_AS_DRAWN = -1


@dataclass(frozen=True)
class _Launched:
    """A decode step that the device works on.

    Attributes:
        drawn: its tokens, [slots].
        rows: slots that it was fed.
        uses: of these, how often they had been given away.
        places: of their tokens in the documents.
    """

    drawn: HostCopy
    rows: np.ndarray
    uses: np.ndarray
    places: np.ndarray


class Engine:
    """Samples documents for a stream of requests on a fixed number of slots.

    Args:
        model: in evaluation mode; its device and `compute_dtype` are used.
        slots: documents decoded together.
        capacity: positions a slot holds; prompt and generated tokens together never exceed it.
        prefill_chunk: prompt tokens of one slot read per prefill step; divides `capacity`.
        stop_token: ends a document.
        temperature: of the softmax; 0 takes the most probable token.
        top_p: nucleus of the draws.
        key: of the noise, in [0, 2**64).
        prefill_slots: slots read per prefill step; default a quarter of the slots, at most 8.
        paged: keys and values lie in pages, of which a slot holds those that its document may come to need;
            else in slots of the whole capacity. None: on a GPU, where the capacity is one of whole pages.
        cache_tokens: with pages, of all slots together; fewer than slots * capacity save memory, and a
            request waits until there are enough.
        share_prompts: with pages, equal prompts in a row are read once (`Request.same_prompt`); no bit of a
            document changes.
        cuda_graphs: decode steps as a CUDA graph: "on", "off", or "auto": on a GPU with triton.
        ahead: launches a step before it looks at what the one before has drawn, so that a GPU need not wait
            for the host; no bit of a document changes. It has not run on a GPU yet, so it is off.

    Raises:
        InputError: the sizes do not agree; the message names the allowed values.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        slots: int,
        capacity: int,
        prefill_chunk: int,
        stop_token: int,
        temperature: float,
        top_p: float,
        key: int,
        prefill_slots: int | None = None,
        paged: bool | None = None,
        cache_tokens: int | None = None,
        share_prompts: bool = True,
        cuda_graphs: Graphs = "auto",
        ahead: bool = False,
    ) -> None:
        if prefill_slots is None:
            prefill_slots = max(1, min(8, slots // 4))
        self.slots, self.capacity = slots, capacity
        self.prefill_slots, self.prefill_chunk = prefill_slots, prefill_chunk
        require_sizes(
            model,
            slots=slots,
            capacity=capacity,
            prefill_slots=prefill_slots,
            prefill_chunk=prefill_chunk,
        )
        self.device = next(model.parameters()).device
        self.model = model
        self.temperature, self.top_p, self.key = temperature, top_p, key
        self._stop_token = stop_token
        self._all_slots = torch.arange(slots, device=self.device)
        if paged is None:
            paged = self.device.type == "cuda" and capacity % PAGE_TOKENS == 0
        invariant = is_batch_invariant(model)
        if invariant and not paged and self.device.type != "cpu":
            raise InputError(
                f"context is {capacity}; allowed on a GPU with synthesis.batch_invariant: multiples of "
                f"{PAGE_TOKENS}, the tokens of a page"
            )
        of_cache = (model.config, slots, capacity, model.compute_dtype, self.device)
        self._pages = PagedCache(*of_cache, cache_tokens, invariant) if paged else None
        self._cache: Cache = self._pages or KeyValueCache(*of_cache)
        self._prompts_read = SharedPrompts(self._pages) if self._pages and share_prompts else None
        self._step: Step = self._draw
        if uses_graphs(cuda_graphs, self.device, model.compute_dtype):
            self._step = GraphedStep(self._draw, capture_cuda_graph)
        self._ahead = ahead
        self._reset(maximum_tokens=0)

    def generate(
        self,
        requests: Sequence[Request],
        maximum_tokens: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """The documents of `requests`, in their order.

        Args:
            maximum_tokens: generated tokens, the stop token included, after which a document is cut.
            progress: called after each finished document with (finished documents, their generated tokens).
        """
        completions: dict[int, Completion] = {}
        generated = 0
        for index, completion in self.stream(requests, maximum_tokens):
            completions[index] = completion
            generated += len(completion.tokens) + (completion.finish_reason == "eos")
            if progress is not None:
                progress(len(completions), generated)
        return [completions[index] for index in range(len(requests))]

    @torch.inference_mode()
    def stream(self, requests: Iterable[Request], maximum_tokens: int) -> Iterator[tuple[int, Completion]]:
        """Yields (index of the request, its document) as documents finish.

        Requests are taken as slots become free, so they may be endless: stop by closing the iterator. One
        stream at a time.

        Raises:
            InputError: a prompt is empty or leaves no room in the context; maximum_tokens is below 1.
            ValueError: a request's `same_prompt` is not true.
        """
        if maximum_tokens < 1:
            raise InputError(f"maximum_tokens is {maximum_tokens}; allowed: 1 or more")
        self._reset(maximum_tokens)
        incoming = enumerate(requests)
        exhausted = False
        while True:
            exhausted = exhausted or not self._admit(incoming)
            # A part-filled prefill step wastes its padding, an idle slot its share of the decode step: wait
            # for a full one unless nobody else will come or nothing else can be done, or many slots wait for
            # few prompts that they share.
            while self._waiting and (
                len(self._waiting) >= self.prefill_slots
                or self._stalled() >= max(self.prefill_slots, self.slots // 4)
                or exhausted
                or not self._decoding.any()
            ):
                self._prefill()
            decodes = bool(self._decoding.any())
            if decodes:
                self._launched.append(self._launch())
            if len(self._launched) > (self._ahead and decodes):
                yield from self._look_at(self._launched.popleft())
            elif exhausted and not decodes:
                return

    def _reset(self, maximum_tokens: int) -> None:
        slots = self.slots
        self._next: tuple[int, Request] | None = None  # Taken, and waiting for pages.
        if self._pages is not None:
            for slot in range(slots):
                self._pages.release(slot)
        if self._prompts_read is not None:
            self._prompts_read.reset()
        self._state = np.full(slots, FREE, np.int8)
        self._waiting: deque[int] = deque()  # slots whose prompts are not yet in the cache, oldest first
        self._prompts: list[np.ndarray] = [np.empty(0, np.int64)] * slots
        self._prefilled = np.zeros(slots, np.int64)
        self._shared = np.zeros(slots, np.int64)  # tokens of the prompt that another slot reads or has read
        self._request = np.zeros(slots, np.int64)
        self._uses = np.zeros(slots, np.int64)
        self._launched: deque[_Launched] = deque()
        self._drawn = torch.zeros(slots, dtype=torch.int64, device=self.device)  # By the newest step.
        # What the next decode step feeds, by `_FED`: the last token of each slot, where it stands, whether it
        # counts, the address of the noise. One array, so that one copy takes it to the device.
        self._fed = np.zeros((slots, _FED), np.int64)
        self._token, self._position, self._address = self._fed[:, 0], self._fed[:, 1], self._fed[:, 3:]
        self._length = np.zeros(slots, np.int64)
        self._limit = np.zeros(slots, np.int64)
        self._generated = np.zeros((slots, min(maximum_tokens, self.capacity)), np.int64)

    @property
    def _decoding(self) -> np.ndarray:
        return self._state == DECODING

    def _stalled(self) -> int:
        """Slots whose prompts are not in the cache."""
        return int(((self._state == PREFILLING) | (self._state == WAITING)).sum())

    def _admit(self, incoming: Iterator[tuple[int, Request]]) -> bool:
        """Gives every free slot a request, as long as there are pages; False when there are no more."""
        for slot in np.flatnonzero(self._state == FREE).tolist():
            taken = self._next or next(incoming, None)
            if taken is None:
                return False
            index, request = taken
            length = len(request.prompt)
            if not 1 <= length < self.capacity:
                raise InputError(
                    f"prompt of seed document {request.seed_document} has {length} tokens; allowed: 1 to "
                    f"{self.capacity - 1}, so that the context of {self.capacity} has room for an answer"
                )
            limit = min(self._generated.shape[1], self.capacity - length)
            if not self._reserve(slot, request, length + limit):
                self._next = taken
                return True
            self._next = None
            self._request[slot] = index
            self._prompts[slot] = request.prompt
            self._prefilled[slot] = 0
            self._token[slot] = request.prompt[-1]
            self._position[slot] = length - 1
            self._address[slot] = (request.seed_document, request.draw, 0)
            self._length[slot] = 0
            self._limit[slot] = limit
            self._state[slot] = self._first_state(slot, request)
            if self._state[slot] == PREFILLING:
                self._waiting.append(slot)
        return True

    def _reserve(self, slot: int, request: Request, tokens: int) -> bool:
        """Pages for a request, if there are any; False when they are too few."""
        self._shared[slot] = 0
        if self._pages is None:
            return True
        to_read = len(request.prompt) - 1
        if self._prompts_read is None or not to_read:
            return self._pages.reserve(slot, tokens)
        if not request.same_prompt:
            return self._prompts_read.reserve_first(slot, request.prompt, tokens)
        self._shared[slot] = to_read
        return self._prompts_read.reserve_next(slot, request.prompt, tokens)

    def _first_state(self, slot: int, request: Request) -> int:
        if self._shared[slot]:
            assert self._prompts_read is not None
            return WAITING if self._prompts_read.waits(slot) else DECODING
        return PREFILLING if len(request.prompt) > 1 else DECODING

    def _prefill(self) -> None:
        """Reads one chunk of the prompts that have waited longest."""
        chunk = self.prefill_chunk
        group = [self._waiting.popleft() for _ in range(min(self.prefill_slots, len(self._waiting)))]
        # Padding lanes name slots of their own, so that no slot is written from two lanes.
        padding = np.setdiff1d(np.arange(self.slots), group)[: self.prefill_slots - len(group)]
        lanes = np.concatenate([np.asarray(group, np.int64), padding])
        tokens = np.zeros((self.prefill_slots, chunk), np.int64)
        positions = np.tile(np.arange(chunk), (self.prefill_slots, 1))
        valid = np.zeros((self.prefill_slots, chunk), bool)
        for lane, slot in enumerate(group):
            start = self._prefilled[slot]
            part = self._prompts[slot][start : min(start + chunk, len(self._prompts[slot]) - 1)]
            tokens[lane, : len(part)] = part
            positions[lane] += start
            valid[lane, : len(part)] = True
            self._prefilled[slot] += len(part)
        given = (to_device(array, self.device) for array in (tokens, positions, lanes, valid))
        fed_tokens, fed_positions, fed_lanes, fed_valid = given
        self.model.decode(fed_tokens, fed_positions, self._cache, fed_lanes, fed_valid)
        unfinished = []
        for slot in group:
            if self._prefilled[slot] == len(self._prompts[slot]) - 1:
                self._state[slot] = DECODING
                if self._prompts_read is not None:
                    self._state[self._prompts_read.finish_reading(slot)] = DECODING
            else:
                unfinished.append(slot)
        self._waiting.extendleft(reversed(unfinished))

    def _launch(self) -> _Launched:
        """Feeds every decoding slot its last token; the device draws the next ones."""
        active = self._decoding
        fed = self._fed.copy()
        # Where nothing is decoded the position may lie behind the last page.
        fed[:, 1] *= active
        fed[:, 2] = active
        self._drawn = self._step(to_device(fed, self.device), self._drawn)
        rows = np.flatnonzero(active)
        launched = _Launched(HostCopy(self._drawn), rows, self._uses[rows], self._length[rows])
        self._length[rows] += 1
        self._position[rows] += 1
        self._address[rows, 2] += 1
        self._token[rows] = _AS_DRAWN
        self._state[rows[self._length[rows] == self._limit[rows]]] = ENDING
        return launched

    def _look_at(self, launched: _Launched) -> Iterator[tuple[int, Completion]]:
        """Takes what a step has drawn; yields what finished."""
        current = launched.uses == self._uses[launched.rows]  # The others had ended before.
        rows, places = launched.rows[current], launched.places[current]
        drawn = launched.drawn.wait()[rows]
        self._generated[rows, places] = drawn
        stopped = drawn == self._stop_token
        for which in np.flatnonzero(stopped | (places + 1 == self._limit[rows])).tolist():
            slot = int(rows[which])
            self._state[slot] = FREE
            self._uses[slot] += 1
            if self._pages is not None:
                self._pages.release(slot)
            kept = places[which] + 1 - stopped[which]
            reason: FinishReason = "eos" if stopped[which] else "length"
            tokens, shared = self._generated[slot, :kept].copy(), int(self._shared[slot])
            yield int(self._request[slot]), Completion(tokens, reason, shared)

    def _draw(self, fed: torch.Tensor, drawn_before: torch.Tensor) -> torch.Tensor:
        """The next token of every slot, int64 [slots]; what is not active means nothing.

        Args:
            fed: int64 [slots, 6]: token or `_AS_DRAWN`, position, 1 where the slot is active, and the noise's
                address.
            drawn_before: int64 [slots], by the last step.
        """
        tokens, positions, active, address = fed.tensor_split((1, 2, 3), dim=1)
        tokens = torch.where(tokens == _AS_DRAWN, drawn_before[:, None], tokens)
        hidden = self.model.decode(tokens, positions, self._cache, self._all_slots, active != 0)
        logits = self.model.logits(hidden)[:, 0]
        return sample(logits, self.temperature, self.top_p, self.key, address.contiguous())
