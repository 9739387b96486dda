"""lm-eval's model of transformers, which reads every request as the beginning of a document.

Importing this imports lm-eval.
"""

from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

Request = tuple[tuple[str, str], list[int], list[int]]


class DocumentScorer(HFLM):
    """Our models have seen no token without a `bos` before it, and none beyond their training sequences.

    lm-eval puts `bos` before a request only if the tokenizer itself does, which ours does not, and cuts it
    off again where a request is too long.

    Args:
        model: folder that transformers loads.
        window: longest sequence; of a longer request the beginning of the context is left out, and of an
            answer that fills it alone, the end.
        batch_size: requests per forward pass.
        device: where it computes.
        dtype: type it computes in.

    Attributes:
        cut: requests that were too long so far.
    """

    def __init__(
        self, model: Path, window: int, batch_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(model), dtype=dtype)
        super().__init__(
            pretrained=loaded.to(device).eval(),
            tokenizer=AutoTokenizer.from_pretrained(str(model)),
            max_length=window,
            batch_size=batch_size,
            softmax_dtype=torch.float32,
        )
        self.cut = 0

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As of lm-eval, without a bar of progress."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: list[Request], **options: Any) -> list[tuple[float, bool]]:
        return super()._loglikelihood_tokens([self._framed(*request) for request in requests], **options)

    def _framed(self, texts: tuple[str, str], context: list[int], answer: list[int]) -> Request:
        # The last token of the answer is predicted and not read; bos is read in any case.
        room = self.max_length
        kept = answer[:room]
        rest = context[1:] if context[:1] == [self.prefix_token_id] else context
        left = rest[max(0, len(rest) - (room - len(kept))) :]
        self.cut += len(kept) < len(answer) or len(left) < len(rest)
        return texts, [self.prefix_token_id, *left], kept
