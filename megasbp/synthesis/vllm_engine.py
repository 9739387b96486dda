"""Documents written by vLLM (arXiv 2309.06180), offline, on a GPU: another engine behind the same shards.

It gets a Hugging Face folder, prompts as token numbers and a seed for every request, and no tokenizer: marks
such as bos and sep reach it as the numbers that they are. Its seed fixes a document's noise, not its bytes:
those may change with the documents beside it.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from megasbp.addressing import derive_key
from megasbp.errors import InputError
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.exchange import Completion, FinishReason, Request

_FINISH_REASONS: dict[str, FinishReason] = {"stop": "eos", "length": "length"}


class VllmEngine:
    """A model in vLLM; `generate` is that of `engine.Engine`.

    Args:
        folder: of the model, as `export_hugging_face` writes it.
        config: sampler, precision, slots (vLLM's `max_num_seqs`) and `vllm`.
        context: positions of prompt and document together.
        stop_token: ends a document.
        key: of the noise, in [0, 2**64).

    Raises:
        InputError: vLLM is not installed.
    """

    def __init__(
        self, folder: Path, config: SynthesisConfig, *, context: int, stop_token: int, key: int
    ) -> None:
        require_vllm()
        import vllm

        self._vllm, self._config = vllm, config
        self._context, self._stop_token, self._key = context, stop_token, key
        self._dtype = "float32" if config.precision == "fp32" else "bfloat16"
        # Named here, so that rows of provenance say them: its defaults change from version to version.
        self._settings = {
            "max_num_seqs": config.slots,
            "tensor_parallel_size": config.vllm.tensor_parallel,
            "gpu_memory_utilization": config.vllm.memory_share,
            "enable_prefix_caching": True,
        }
        self._model = vllm.LLM(
            model=str(folder),
            # Without a tokenizer nothing but `stop_token_ids` ends a document.
            skip_tokenizer_init=True,
            # The sampler is what we say, not what a file in the folder says.
            generation_config="vllm",
            dtype=self._dtype,
            max_model_len=context,
            seed=0,
            **self._settings,
        )

    @property
    def environment(self) -> dict[str, Any]:
        """As `provenance.compute_environment`, of vLLM."""
        settings = json.dumps(self._settings, sort_keys=True)
        return {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "dtype": self._dtype,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "backend": f"vllm {self._vllm.__version__} {settings}",
            "prefill_slots": 0,
            "prefill_chunk": 0,
        }

    def generate(self, requests: Sequence[Request], maximum_tokens: int) -> list[Completion]:
        """The documents of `requests`, in their order; see `engine.Engine.generate`.

        Raises:
            InputError: a prompt is empty or leaves no room in the context.
            RuntimeError: vLLM gave something else than what it was asked for.
        """
        prompts = [self._vllm.TokensPrompt(prompt_token_ids=request.prompt.tolist()) for request in requests]
        parameters = [self._parameters(request, maximum_tokens) for request in requests]
        outputs = self._model.generate(prompts, parameters, use_tqdm=False)
        return [self._completion(*pair) for pair in zip(requests, outputs, strict=True)]

    def _parameters(self, request: Request, maximum_tokens: int) -> Any:
        length = len(request.prompt)
        if not 1 <= length < self._context:
            raise InputError(
                f"prompt of seed document {request.seed_document} has {length} tokens; allowed: 1 to "
                f"{self._context - 1}, so that the context of {self._context} has room for an answer"
            )
        return self._vllm.SamplingParams(
            temperature=self._config.temperature,
            top_p=self._config.top_p,
            # Half the range of our keys: vLLM takes signed numbers, and -1 for none.
            seed=derive_key(self._key, request.seed_document, request.draw) >> 1,
            max_tokens=min(maximum_tokens, self._context - length),
            stop_token_ids=[self._stop_token],
            detokenize=False,
            logprobs=None,
        )

    def _completion(self, request: Request, output: Any) -> Completion:
        (written,) = output.outputs
        if list(output.prompt_token_ids) != request.prompt.tolist():
            raise RuntimeError(f"vLLM read another prompt than that of seed document {request.seed_document}")
        if written.finish_reason not in _FINISH_REASONS:
            raise RuntimeError(f"vLLM ended a document with {written.finish_reason!r}, not stop or length")
        tokens = np.array(written.token_ids, np.int64)
        reason = _FINISH_REASONS[written.finish_reason]
        if reason == "eos" and len(tokens) and tokens[-1] == self._stop_token:
            tokens = tokens[:-1]
        if (tokens == self._stop_token).any():
            raise RuntimeError(f"vLLM wrote on behind the stop token {self._stop_token}")
        return Completion(tokens, reason, shared_tokens=output.num_cached_tokens or 0)


def require_vllm() -> None:
    """Raises InputError where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "synthesis.backend is \"vllm\", which is not installed; pip install '.[vllm]' from a clone into "
            "an environment of its own (it pins its torch), or leave the setting out"
        )
