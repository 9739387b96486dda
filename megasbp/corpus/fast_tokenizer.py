"""Tokenising whole batches: by Hugging Face tokenizers, or by gigatoken where it gives the same tokens.

gigatoken is some hundred times faster and no reference: it is compared with Hugging Face on texts made to be
hard before it is used, and on a sample of what it has encoded. Which documents are sampled is a pure function
of (shard, document).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from megasbp.corpus.quarantine import Position
from megasbp.corpus.texts import SEPARATOR, Texts
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError

# Texts that Hugging Face encodes at once.
_ENCODE_AT_ONCE = 256
# Tokens shown before and after the first difference.
_SHOWN = 8
_HARD_TEXTS = (
    "Hello world",
    " leading, trailing  and   inner spaces   ",
    "tabs\t\tand\nlines\n\n\nand\r\nreturns\r\r",
    "it's they're I'VE we'd I'll DON'T 'tis o'clock ''s ’s",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9 ١٢٣ ½ ² Ⅷ",
    "Straße naïve coöperate Ünïcödé İstanbul ŉ ﬁn",
    "漢字かな交じり文。한국어 문장 हिन्दी ไทย العربية עברית",
    "👩‍👩‍👧 🏳️‍🌈 🇩🇪 e\u0301 a\u0308\u0323 \u200b\u200d\ufeff\u00ad",
    "\u00a0no\u00a0break\u2003em\u3000wide\u2028line\u2029paragraph\u0085next",
    "\x00\x01\x1c\x1d\x7f\x80\x9f \U0010ffff \ufffd \ue000",
    'def f(x):\n    return x**2 # {}[]()<>|~`@#$%^&*_+-=;:,.?!"\\/',
    "https://example.org/a?b=c&d=%20#e user@example.org",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" * 4 + " " * 200 + "ab" * 100 + "!" * 100,
    "CamelCase snake_case kebab-case SHOUTING mIxEd",
)


@dataclass(frozen=True)
class Encoded:
    """Tokens of some texts.

    Attributes:
        tokens: uint32 [n].
        bounds: int64 [documents + 1]; document i is tokens[bounds[i] : bounds[i + 1]].
    """

    tokens: np.ndarray
    bounds: np.ndarray

    def document(self, number: int) -> np.ndarray:
        """Tokens of one document, uint32."""
        return self.tokens[self.bounds[number] : self.bounds[number + 1]]


class Encoder(Protocol):
    """What turns texts into tokens, without special tokens."""

    def encode(self, texts: Texts) -> Encoded:
        """Tokens of each document."""


class HuggingFaceEncoder:
    """The reference."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, texts: Texts) -> Encoded:
        """Tokens of each document."""
        parts: list[np.ndarray] = []
        for start in range(0, len(texts), _ENCODE_AT_ONCE):
            numbers = range(start, min(start + _ENCODE_AT_ONCE, len(texts)))
            parts += self.tokenizer.encode_batch([texts.text(number) for number in numbers])
        return _joined(parts)


class GigatokenEncoder:
    """gigatoken, given the tokenizer without its special tokens, which it would find in text.

    Raises:
        InputError: gigatoken is not installed, or does not read this tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        try:
            import gigatoken
        except ImportError as error:
            raise InputError(
                f"gigatoken cannot be imported ({error}); install it (pip install gigatoken), or set the "
                "encoder to huggingface"
            ) from None
        try:
            self._inner = gigatoken.Tokenizer.from_json(tokenizer.json_without_special_tokens())
        except Exception as error:  # the library says with many types what it does not read
            raise InputError(
                f"gigatoken does not read this tokenizer ({error}); set the encoder to huggingface"
            ) from None
        self._source = gigatoken.BytesSource

    def encode(self, texts: Texts) -> Encoded:
        """Tokens of each document; on as many threads as RAYON_NUM_THREADS says."""
        result = self._inner.encode_batch(self._source([texts.data], SEPARATOR), parallel=True)
        encoded = _joined(result) if isinstance(result, list) else _of_awkward(result)
        assert len(encoded.bounds) == len(texts) + 1, "gigatoken gave another number of documents"
        return encoded


def open_encoder(name: str, tokenizer: Tokenizer) -> Encoder:
    """The encoder called "huggingface" or "gigatoken".

    Raises:
        InputError: gigatoken is not installed or does not read this tokenizer.
    """
    return HuggingFaceEncoder(tokenizer) if name == "huggingface" else GigatokenEncoder(tokenizer)


def first_difference(encoder: Encoder, tokenizer: Tokenizer) -> str | None:
    """Where an encoder differs from Hugging Face on texts made to be hard, or None.

    Among them are the names of the tokenizer's own special tokens, which must stay text.
    """
    texts = [*_HARD_TEXTS, "".join(_HARD_TEXTS)]
    texts += [form for name in tokenizer.added_tokens for form in (name, f"a {name} b", f"x{name}{name}y")]
    encoded = encoder.encode(as_texts(texts))
    for number, (text, expected) in enumerate(zip(texts, tokenizer.encode_batch(texts), strict=True)):
        found = encoded.document(number)
        if not np.array_equal(found, expected):
            return f"{text[:60]!r}: {describe_difference(found, expected)}"
    return None


def as_texts(texts: list[str]) -> Texts:
    """Strings as a batch."""
    import pyarrow as pa

    parts = [text.encode() + SEPARATOR for text in texts]
    bounds = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    ids = pa.array(map(str, range(len(texts))), pa.large_string())
    return Texts(b"".join(parts), bounds, ids, "check.txt", np.zeros(len(texts), np.int64))


def describe_difference(found: np.ndarray, expected: np.ndarray) -> str:
    """Both token lists around the first place where they differ."""
    common = min(len(found), len(expected))
    differing = np.flatnonzero(found[:common] != expected[:common])
    place = int(differing[0]) if len(differing) else common
    around = slice(max(0, place - _SHOWN), place + _SHOWN)
    return f"token {place}: {found[around].tolist()}, Hugging Face gives {expected[around].tolist()}"


class Sample:
    """Some documents of a shard and the tokens that an encoder gave them, to be compared with Hugging Face's.

    It keeps the documents with the smallest keyed hash of their number, so each is as likely as any other.

    Args:
        shard: number of the shard.
        size: documents that are kept.
    """

    def __init__(self, shard: int, size: int) -> None:
        self._key = np.uint64(shard)
        self._size = size
        self._kept: list[tuple[int, int, Position, str, np.ndarray]] = []
        self._documents = 0

    def __len__(self) -> int:
        """Documents kept so far."""
        return len(self._kept)

    def offer(self, texts: Texts, encoded: Encoded) -> None:
        """Considers the next documents of the shard."""
        numbers = np.arange(self._documents, self._documents + len(texts), dtype=np.uint64)
        self._documents += len(texts)
        hashes = _mix(numbers + _mix(np.array([self._key]))[0])
        full = self._kept and len(self._kept) == self._size
        rows = np.flatnonzero(hashes < np.uint64(self._kept[-1][0])) if full else np.arange(len(texts))
        for row in rows[np.argsort(hashes[rows], kind="stable")[: self._size]].tolist():
            tokens = encoded.document(row).copy()
            self._kept.append(
                (int(hashes[row]), int(numbers[row]), texts.position(row), texts.text(row), tokens)
            )
        self._kept = sorted(self._kept, key=lambda kept: kept[:2])[: self._size]

    def first_difference(self, tokenizer: Tokenizer) -> str | None:
        """Position and tokens of the first document that Hugging Face encodes otherwise, or None."""
        kept = sorted(self._kept, key=lambda item: item[1])
        for (_, _, position, _, found), expected in zip(
            kept, tokenizer.encode_batch([text for _, _, _, text, _ in kept]), strict=True
        ):
            if not np.array_equal(found, expected):
                return f"{position}: {describe_difference(found, expected)}"
        return None


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea, Flood 2014) on uint64 [n]."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _joined(parts: list[np.ndarray]) -> Encoded:
    bounds = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return Encoded(np.concatenate([np.empty(0, np.uint32), *parts]), bounds)


def _of_awkward(array: Any) -> Encoded:
    offsets = np.asarray(array.layout.offsets.data, np.int64)
    content = np.asarray(array.layout.content.data, np.uint32)
    return Encoded(content[offsets[0] : offsets[-1]], offsets - offsets[0])
