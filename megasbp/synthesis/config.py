"""The recipe's [synthesis] section: sampler, compute shape of the engine, filters."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_ROWS = 8
# Settings that came after the first corpora were written: at their defaults they change no byte, and are left
# out of what names a stage.
_LATER = ("backend", "vllm", "draws_together", "seed_documents", "batch_invariant", "cuda_graphs")
# Of vLLM: it replaces smaller temperatures silently, and refuses larger ones.
_VLLM_TEMPERATURES = (0.01, 2.0)


class VllmConfig(BaseModel):
    """What vLLM is started with, beside what [synthesis] says; read with `backend = "vllm"` only.

    Attributes:
        tensor_parallel: GPUs that hold one model together.
        memory_share: of a GPU's memory that vLLM may use for weights and keys and values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensor_parallel: int = Field(1, ge=1)
    memory_share: float = Field(0.9, gt=0, le=1)


class SynthesisConfig(BaseModel):
    """How synthetic documents are sampled and which of them are kept.

    The first group decides the draws, the second the compute shape (see `provenance.Origin`), the third the
    filters. Shares lie in [0, 1]; a document is dropped when its share is *above* the maximum, so 1 switches
    a filter off and 0 allows none.

    Attributes:
        temperature: of the softmax; 0 takes the most probable token.
        top_p: smallest probability mass that the sampled tokens must hold; 1 keeps the whole vocabulary.
        maximum_tokens: tokens after which a document ends with "length"; the context may end it earlier.
        precision: type of activations and matrix products, "bf16" or "fp32"; "auto" is bf16 on a GPU that
            multiplies it, and fp32 elsewhere.
        backend: "own" engine, or "vllm", which promises no bytes and needs a GPU (see docs/synthesis.md); of
            the compute shape it reads `slots` alone.
        vllm: what vLLM is started with.
        draws_together: documents written from a seed document one after the other, before the next one's
            turn; divides shard_documents. With keys and values in pages (on a GPU), or by vLLM, its prompt is
            read once for all of them. It changes the order of the documents and none of their bytes.
        seed_documents: seed documents that are used, the first ones in a keyed order; None uses all. The
            documents that a run needs are drawn from these, so fewer seeds are more draws of each.
        batch_invariant: a document has the same bytes at any compute shape of the second group too: then the
            multiples of 8 are not asked for. It costs speed (docs/synthesis.md).
        cuda_graphs: decode steps as a CUDA graph: "on", "off", or "auto": on a GPU with triton. It changes
            the speed and no byte.
        slots: documents decoded together, a multiple of 8.
        prefill_slots: prompts read together; prefill starts when so many slots are free.
        prefill_chunk: tokens of each prompt read per step; must divide the context. Times prefill_slots it is
            a multiple of 8.
        shard_documents: requests per shard, the unit of publication: a kill loses at most about one shard.
        minimum_tokens: shortest document kept, in tokens of its text.
        maximum_repeated_share: share of the document's shingles that occur earlier in it.
        maximum_seed_copy: share of the document's tokens inside a shingle of its own seed document.
        maximum_corpus_copy: share of the document's tokens inside a shingle of any corpus document.
        maximum_held_out_copy: share of the document's tokens inside a shingle of validation or test text that
            is nowhere in the corpus.
        drop_duplicates: drops a document that equals an earlier accepted one.
        minimum_acceptance: share of the requests that must be accepted; below it the run stops and says why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(1.0, ge=0, le=10, allow_inf_nan=False)
    top_p: float = Field(0.9, gt=0, le=1)
    maximum_tokens: int = Field(256, ge=1)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    backend: Literal["own", "vllm"] = "own"
    vllm: VllmConfig = VllmConfig()
    draws_together: int = Field(1, ge=1)
    seed_documents: int | None = Field(None, ge=1)
    batch_invariant: bool = False
    cuda_graphs: Literal["auto", "on", "off"] = "auto"

    slots: int = Field(64, ge=1, le=65536)
    prefill_slots: int = Field(8, ge=1)
    prefill_chunk: int = Field(64, ge=1)
    shard_documents: int = Field(1024, ge=1)

    minimum_tokens: int = Field(16, ge=0)
    maximum_repeated_share: float = Field(0.0, ge=0, le=1)
    maximum_seed_copy: float = Field(0.5, ge=0, le=1)
    maximum_corpus_copy: float = Field(0.5, ge=0, le=1)
    maximum_held_out_copy: float = Field(0.0, ge=0, le=1)
    drop_duplicates: bool = True
    minimum_acceptance: float = Field(0.05, ge=0, le=1)

    def content(self) -> dict[str, Any]:
        """The settings as JSON-serialisable values: what a corpus depends on."""
        values = self.model_dump(mode="json")
        defaults = SynthesisConfig().model_dump(mode="json")
        unchanged = {name for name in _LATER if values[name] == defaults[name]}
        return {name: value for name, value in values.items() if name not in unchanged}

    def without_seeds(self) -> "SynthesisConfig":
        """For a writer that is given bos alone: at temperature 1, and nothing to prefill.

        `top_p` stays: cut differently, its text would differ from the other arms' by more than the seeds.
        What a prompt's shape may be decides nothing then; it is one that fits every context.
        """
        own = {"temperature": 1.0, "draws_together": 1, "seed_documents": None}
        own |= {"prefill_slots": min(_ROWS, self.slots), "prefill_chunk": 1}
        return self.model_copy(update=own)

    @model_validator(mode="after")
    def _values_agree(self) -> Self:
        if self.prefill_slots > self.slots:
            raise ValueError(
                f"synthesis.prefill_slots is {self.prefill_slots}; "
                f"allowed: 1 to synthesis.slots ({self.slots})"
            )
        # Matrix products of other numbers of rows were seen to give a row other bits beside other rows.
        if self.slots % _ROWS and not self.batch_invariant:
            raise ValueError(
                f"synthesis.slots is {self.slots}; allowed: multiples of {_ROWS}, such as "
                f"{-(-self.slots // _ROWS) * _ROWS}"
            )
        if self.prefill_slots * self.prefill_chunk % _ROWS and not self.batch_invariant:
            raise ValueError(
                f"synthesis.prefill_slots x prefill_chunk is {self.prefill_slots} x {self.prefill_chunk}; "
                f"allowed: multiples of {_ROWS}, such as "
                f"{self.prefill_slots} x {-(-self.prefill_chunk // _ROWS) * _ROWS}"
            )
        if self.shard_documents % self.draws_together:
            raise ValueError(
                f"synthesis.draws_together is {self.draws_together}; allowed: divisors of "
                f"synthesis.shard_documents ({self.shard_documents})"
            )
        if self.backend == "vllm" and (self.batch_invariant or self.cuda_graphs == "on"):
            name = "batch_invariant" if self.batch_invariant else "cuda_graphs"
            raise ValueError(
                f'synthesis.{name} is of our own engine, and synthesis.backend is "vllm"; '
                "leave one of them out"
            )
        lowest, highest = _VLLM_TEMPERATURES
        if self.backend == "vllm" and self.temperature and not lowest <= self.temperature <= highest:
            raise ValueError(
                f'synthesis.temperature is {self.temperature} and synthesis.backend is "vllm"; '
                f"allowed there: 0, and {lowest} to {highest}"
            )
        if self.minimum_tokens >= self.maximum_tokens:
            raise ValueError(
                f"synthesis.minimum_tokens is {self.minimum_tokens}; allowed: 0 to "
                f"{self.maximum_tokens - 1}, below synthesis.maximum_tokens"
            )
        return self
