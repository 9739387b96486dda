"""Byte-level BPE tokenizers: trained here, or loaded from a tokenizer.json."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from megasbp.errors import InputError
from megasbp.storage import hash_object, publish_bytes, publish_json, read_json

BYTES = 256
# What the tokens of the three roles are called here, and in well-known tokenizers.
_NAMES = {
    "bos": ("<|bos|>", "<|begin_of_text|>", "<|startoftext|>", "<bos>", "<s>", "[BOS]", "<|endoftext|>"),
    "eos": ("<|eos|>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "</s>", "[EOS]"),
    "sep": ("<|sep|>", "<sep>", "[SEP]"),
}
SMALLEST_VOCABULARY = BYTES + len(_NAMES)
# The files in which Hugging Face keeps roles, beside tokenizer.json.
_ROLE_FILES = ("special_tokens_map.json", "tokenizer_config.json")
_PROBE = "a  b\t\n\r\n\x00\x7f Straße 漢字 かな 한국어 हिन्दी 👩‍👩‍👧 \U0010ffff <|eos|> </s>"


class Tokenizer:
    """Text to token numbers and back, without loss.

    Special tokens are never found in text: a document that contains the characters "<|eos|>" keeps them as
    characters.

    Attributes:
        bos, eos, sep: numbers of the special tokens that begin a document, end it, and part the two of a
            pair. bos and eos may be the same.
        vocabulary_size: one more than the largest token number.
        hash: SHA-256 of the tokenizer's content and of its three roles.
        token_bytes: int32 [vocabulary_size], how many bytes of UTF-8 each token stands for, 0 for special
            tokens: over an encoded text they add up to `len(text.encode())`. (If the tokenizer normalises, to
            that of the normalised text.)
    """

    def __init__(self, content: dict[str, Any], roles: dict[str, str], place: str) -> None:
        """Use `train` or `load`.

        Args:
            content: the parsed tokenizer.json.
            roles: name of the special token for each of "bos", "eos", "sep", where known.
            place: named in errors.
        """
        try:
            inner = tokenizers.Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{place}: not a tokenizer.json ({error}); give a Hugging Face one") from None
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self._inner = inner
        self._content = content
        self.token_bytes = _token_bytes(inner, place)
        self.vocabulary_size = len(self.token_bytes)
        specials = {
            token.content: number
            for number, token in inner.get_added_tokens_decoder().items()
            if token.special
        }
        self.roles = {role: _role_token(role, roles.get(role), specials, place) for role in _NAMES}
        self.bos, self.eos, self.sep = (specials[self.roles[role]] for role in ("bos", "eos", "sep"))
        if self.sep in (self.bos, self.eos):
            raise InputError(
                f"{place}: the separator {self.roles['sep']!r} also begins or ends documents; "
                f"set corpus.sep_token (in tools: --sep) to another special token: {_some(specials)}"
            )
        self.hash = hash_object({"content": content, "roles": self.roles})
        self._check_lossless(place)

    @classmethod
    def train(cls, texts: Iterator[str], vocabulary_size: int) -> "Tokenizer":
        """Trains a byte-level BPE; the same texts in the same order give the same tokenizer.

        The vocabulary holds the three special tokens, the 256 bytes, and merges of pairs seen at least twice;
        a small corpus gives fewer than `vocabulary_size` entries.

        Raises:
            InputError: the vocabulary cannot hold the bytes and the special tokens.
        """
        if vocabulary_size < SMALLEST_VOCABULARY:
            raise InputError(
                f"corpus.vocabulary_size is {vocabulary_size}; {BYTES} bytes and {len(_NAMES)} special "
                f"tokens need at least {SMALLEST_VOCABULARY}"
            )
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            special_tokens=[names[0] for names in _NAMES.values()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        roles = {role: names[0] for role, names in _NAMES.items()}
        return cls(json.loads(inner.to_str()), roles, "trained tokenizer")

    @classmethod
    def load(
        cls, path: Path, *, bos: str | None = None, eos: str | None = None, sep: str | None = None
    ) -> "Tokenizer":
        """Loads a tokenizer.json.

        Args:
            path: the file, or the folder that holds it.
            bos, eos, sep: names of special tokens. Without a name the role is read from
                special_tokens_map.json or tokenizer_config.json beside the file, else taken from well-known
                names.

        Raises:
            InputError: the file is missing, not a tokenizer, not byte-level or not lossless, or a role's
                token is missing or not special.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(f"{path}: not a tokenizer.json; give a Hugging Face one")
        given = {"bos": bos, "eos": eos, "sep": sep}
        named = {role: name for role, name in given.items() if name is not None}
        return cls(content, {**_roles_beside(path), **named}, str(path))

    def save(self, path: Path) -> None:
        """Writes tokenizer.json to `path`, and special_tokens_map.json, which keeps the roles, beside it."""
        path = Path(path)
        roles = {f"{role}_token": name for role, name in self.roles.items()}
        publish_json(path.with_name(_ROLE_FILES[0]), roles)
        publish_bytes(path, (json.dumps(self._content, ensure_ascii=False) + "\n").encode())

    @property
    def added_tokens(self) -> list[str]:
        """Names of the tokens beside the vocabulary of merges, special or not."""
        return [token.content for token in self._inner.get_added_tokens_decoder().values()]

    def json_without_special_tokens(self) -> str:
        """A tokenizer.json that turns text into the same numbers as `encode_batch`, for other libraries.

        They look for special tokens in text; here these are left out, and so is what adds them around a text.
        """
        ordinary = [token for token in self._content.get("added_tokens") or [] if not token["special"]]
        content = {**self._content, "added_tokens": ordinary, "post_processor": None}
        return json.dumps({**content, "truncation": None, "padding": None}, ensure_ascii=False)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of each text, uint32 [n], without special tokens; parallel over texts."""
        encodings = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def decode(self, tokens: np.ndarray | Sequence[int]) -> str:
        """The text of tokens, integers [n]; special tokens are left out, broken UTF-8 becomes U+FFFD."""
        return self._inner.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)

    def _check_lossless(self, place: str) -> None:
        has_all_bytes = self._inner.get_vocab().keys() >= set(pre_tokenizers.ByteLevel.alphabet())
        tokens = self.encode_batch([_PROBE])[0]
        same_bytes = self.token_bytes[tokens].sum() == len(_PROBE.encode())
        if not (has_all_bytes and same_bytes and self.decode(tokens) == _PROBE):
            raise InputError(
                f"{place}: text does not survive encoding and decoding (prefix space, normaliser, missing "
                "bytes?); losses per byte need a lossless byte-level tokenizer, give one or train one by "
                "corpus.vocabulary_size"
            )


def _token_bytes(inner: tokenizers.Tokenizer, place: str) -> np.ndarray:
    # In a byte-level vocabulary each byte is written as one character of this alphabet.
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = inner.get_vocab(with_added_tokens=True)
    added = inner.get_added_tokens_decoder()
    sizes = np.zeros(max(vocabulary.values(), default=-1) + 1, np.int32)
    for token, number in vocabulary.items():
        if number in added:
            sizes[number] = 0 if added[number].special else len(token.encode())
            # The byte-level decoder takes an added "ö" for the byte that this letter writes.
            if not added[number].special and inner.decode([number]) != token:
                raise InputError(
                    f"{place}: added token {number}, {token!r}, is not decoded to itself; make it special or "
                    "remove it"
                )
        elif alphabet.issuperset(token):
            sizes[number] = len(token)
        else:
            raise InputError(
                f"{place}: token {number}, {token!r}, is not byte-level; losses per byte need a byte-level "
                "tokenizer (GPT-2's, Llama 3's, Qwen's), give one or train one by corpus.vocabulary_size"
            )
    return sizes


def _role_token(role: str, name: str | None, specials: dict[str, int], place: str) -> str:
    if name is None:
        name = next((known for known in _NAMES[role] if known in specials), None)
        if name is None:
            raise InputError(
                f"{place}: no {role} token among its special tokens; name one with corpus.{role}_token, "
                f"in tools with --{role}: {_some(specials)}"
            )
    elif name not in specials:
        raise InputError(
            f"{place}: {role} token {name!r} is not one of its special tokens; set corpus.{role}_token: "
            f"{_some(specials)}"
        )
    return name


def _some(specials: dict[str, int]) -> str:
    names = sorted(specials, key=lambda name: specials[name])
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more if names else "it has none"


def _roles_beside(path: Path) -> dict[str, str]:
    """Roles that Hugging Face's files beside a tokenizer.json give; the first file that names one counts."""
    roles: dict[str, str] = {}
    for name in _ROLE_FILES:
        file = path.with_name(name)
        if not file.is_file():
            continue
        content = read_json(file)
        for role in _NAMES:
            token = content.get(f"{role}_token") if isinstance(content, dict) else None
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                roles.setdefault(role, token)
    return roles
