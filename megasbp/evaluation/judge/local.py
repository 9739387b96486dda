"""A judge that transformers loads."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from megasbp.errors import InputError
from megasbp.evaluation.judge.config import JudgeConfig
from megasbp.evaluation.judge.judging import Answer
from megasbp.pairing.embedding import hash_tensors
from megasbp.parallel.runtime import computes_bfloat16


class LocalJudge:
    """A causal language model that answers greedily, one prompt at a time: no answer depends on others.

    Its version is the hash of its weights. A prompt goes through the tokenizer's chat template where there is
    one.

    Args:
        config: of kind "local".
        device: a torch device.

    Raises:
        InputError: transformers is not installed, or the model cannot be loaded.
    """

    def __init__(self, config: JudgeConfig, device: str = "cpu") -> None:
        self._tokens, self._device = config.maximum_tokens, device
        self._tokenizer, self._model = _load(config.model, device)
        self.version = hash_tensors(sorted(self._model.state_dict().items()))

    @torch.inference_mode()
    def answers(self, prompts: Sequence[str]) -> Iterator[Answer]:
        """See `Judge.answers`."""
        for prompt in prompts:
            tokens = self._encoded(prompt)
            room = getattr(self._model.config, "max_position_embeddings", None)
            if room is not None and tokens.shape[1] + self._tokens > room:
                raise InputError(
                    f"quality.judge: a prompt of {tokens.shape[1]} tokens and an answer of {self._tokens} "
                    f"exceed the model's {room}; lower quality.judge.maximum_characters or maximum_tokens"
                )
            written = self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=self._tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id,
            )
            text = self._tokenizer.decode(written[0, tokens.shape[1] :], skip_special_tokens=True)
            yield Answer(text, self.version)

    def _encoded(self, prompt: str) -> torch.Tensor:
        if self._tokenizer.chat_template:
            prompt = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            )
        # The template has written the special tokens that it wants.
        special = not self._tokenizer.chat_template
        encoded = self._tokenizer(prompt, add_special_tokens=special, return_tensors="pt")
        return encoded["input_ids"].to(self._device)


def _load(name: str, device: str) -> tuple[Any, Any]:
    if importlib.util.find_spec("transformers") is None:
        raise InputError(
            "quality.judge.kind = 'local' needs the package transformers; install it with: "
            "pip install '.[judge]' from a clone"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.bfloat16 if computes_bfloat16(device) else torch.float32
    # A folder is complete: no request to the hub.
    own = Path(name).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=own)
        model: Any = AutoModelForCausalLM.from_pretrained(name, local_files_only=own, dtype=dtype)
    except (OSError, ValueError) as error:
        raise InputError(
            f"quality.judge.model = {name!r} cannot be loaded ({str(error).splitlines()[0]}); give a folder, "
            "or a name on the Hugging Face hub"
        ) from None
    return tokenizer, model.to(device).eval()
