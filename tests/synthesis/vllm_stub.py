"""A module in vLLM's place: it takes the arguments that vLLM's offline interface takes, and no others.

`LLM` and `SamplingParams` have those keywords of vLLM's published source that matter here; an unknown one is
a TypeError, as there. Documents are random numbers of the request's seed.
"""

from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from synthesis_world import EOS, VOCABULARY

# Of vLLM's EngineArgs, which LLM passes further keywords on to.
ENGINE_ARGUMENTS = {
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_prefix_caching",
    "generation_config",
    "kv_cache_dtype",
    "disable_log_stats",
}


@dataclass
class SamplingParams:
    """Checked as vLLM checks them."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self):
        assert 0 <= self.temperature <= 2 and not 0 < self.temperature < 0.01
        assert 0 < self.top_p <= 1
        assert self.max_tokens is None or self.max_tokens >= 1
        assert all(type(token) is int for token in self.stop_token_ids or [])
        assert self.seed is None or 0 <= self.seed < 2**63


def tokens_prompt(*, prompt_token_ids: list[int]) -> dict:
    """`TokensPrompt`, a dictionary."""
    assert all(type(token) is int for token in prompt_token_ids)
    return {"prompt_token_ids": prompt_token_ids}


@dataclass
class Recorded:
    """What was asked of the stub.

    Attributes:
        models: keyword arguments of each `LLM`.
        calls: prompts and parameters of each `generate`.
        finish: finish reason to give instead of the right one.
        altered: whether prompts come back changed.
    """

    models: list[dict] = field(default_factory=list)
    calls: list[tuple[list[dict], list[SamplingParams]]] = field(default_factory=list)
    finish: str | None = None
    altered: bool = False


def install(patch: pytest.MonkeyPatch) -> Recorded:
    """Makes `import vllm` give the stub; returns what it will have been asked."""
    recorded = Recorded()

    class LLM:
        def __init__(
            self,
            model: str,
            *,
            tokenizer: str | None = None,
            skip_tokenizer_init: bool = False,
            tensor_parallel_size: int = 1,
            dtype: str = "auto",
            seed: int = 0,
            gpu_memory_utilization: float = 0.9,
            enforce_eager: bool = False,
            **others,
        ):
            if unknown := others.keys() - ENGINE_ARGUMENTS:
                raise TypeError(f"EngineArgs.__init__() got an unexpected keyword argument {min(unknown)!r}")
            assert (Path(model) / "config.json").is_file()
            self.without_tokenizer, self.maximum = skip_tokenizer_init, others["max_model_len"]
            weights = (Path(model) / "model.safetensors").read_bytes()
            recorded.models.append({"dtype": dtype, "weights": weights, **others})

        def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None, priority=None):
            assert self.without_tokenizer and isinstance(sampling_params, list)
            assert len(prompts) == len(sampling_params)
            recorded.calls.append((prompts, sampling_params))
            return [self._write(*pair) for pair in zip(prompts, sampling_params, strict=True)]

        def _write(self, prompt: dict, parameters: SamplingParams) -> SimpleNamespace:
            assert not parameters.detokenize, "there is no tokenizer"
            room = self.maximum - len(prompt["prompt_token_ids"])
            assert room >= parameters.max_tokens
            generator = np.random.default_rng(parameters.seed)
            tokens = generator.integers(3, VOCABULARY, parameters.max_tokens).tolist()
            length, reason = int(generator.integers(1, 30)), "length"
            if length <= parameters.max_tokens:
                # The stop token is among the tokens.
                tokens, reason = [*tokens[: length - 1], *parameters.stop_token_ids], "stop"
            given = prompt["prompt_token_ids"]
            output = SimpleNamespace(token_ids=tokens, finish_reason=recorded.finish or reason)
            return SimpleNamespace(
                prompt_token_ids=given[1:] if recorded.altered else given,
                outputs=[output],
                num_cached_tokens=len(given) // 2,
            )

    module = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.__version__ = "0.33.0"
    module.LLM, module.SamplingParams, module.TokensPrompt = LLM, SamplingParams, tokens_prompt
    patch.setitem(__import__("sys").modules, "vllm", module)
    assert EOS not in range(3, VOCABULARY)
    return recorded
