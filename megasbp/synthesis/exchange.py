"""What an engine is asked for and what it answers."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

FinishReason = Literal["eos", "length"]


@dataclass(frozen=True)
class Request:
    """One document to be written.

    Attributes:
        seed_document: index of the seed document, part of the address of the noise.
        draw: which of the documents drawn for this seed, the other part.
        prompt: int64 [P], P >= 1, tokens the model is conditioned on.
        same_prompt: it is that of the request before, and may be read once for both.
    """

    seed_document: int
    draw: int
    prompt: np.ndarray
    same_prompt: bool = False


@dataclass(frozen=True)
class Completion:
    """One written document.

    Attributes:
        tokens: int64 [n], the generated tokens without the stop token.
        finish_reason: "eos" when the stop token was drawn, "length" when a limit came first.
        shared_tokens: of the prompt, whose keys and values were there: they were computed for another draw.
    """

    tokens: np.ndarray
    finish_reason: FinishReason
    shared_tokens: int = 0
