"""Encoders agree, or the difference is found and named."""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from megasbp.corpus.fast_tokenizer import (
    Encoded,
    GigatokenEncoder,
    HuggingFaceEncoder,
    Sample,
    as_texts,
    describe_difference,
    first_difference,
)
from megasbp.corpus.tokenizer import Tokenizer

needs_gigatoken = pytest.mark.skipif(
    find_spec("gigatoken") is None, reason="needs gigatoken (pip install gigatoken)"
)
TEXTS = [
    "The quick brown fox jumps over the lazy dog, and it's the dog's 12345th day.\n\nAnother line.",
    "Ünïcödé words, 漢字かな, emoji 👩‍👩‍👧 and <|eos|> <|bos|><|sep|> <|endoftext|> as plain text.",
    "   spaces\t\ttabs\r\nand the the the the ends   ",
]


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(iter(TEXTS * 5), 400)


@pytest.fixture(scope="module")
def like_gpt2(trained, tmp_path_factory):
    """GPT-2's layout: bytes and merges first, one special token at the end, and a separator."""
    content = json.loads(trained.json_without_special_tokens())
    shift = {token: number - 3 for token, number in content["model"]["vocab"].items() if number >= 3}
    specials = [
        {
            "id": len(shift) + place,
            "content": name,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for place, name in enumerate(("<|endoftext|>", "<|sep|>"))
    ]
    content["model"]["vocab"] = shift
    content["added_tokens"] = specials
    path = tmp_path_factory.mktemp("gpt2") / "tokenizer.json"
    path.write_text(json.dumps(content))
    return Tokenizer.load(path)


class OneWrong:
    """Encodes as Hugging Face does, but for one token of one document."""

    def __init__(self, tokenizer, document):
        self.inner, self.document = HuggingFaceEncoder(tokenizer), document

    def encode(self, texts):
        encoded = self.inner.encode(texts)
        encoded.tokens[encoded.bounds[self.document] + 1] += 1
        return encoded


def test_the_reference_gives_the_tokenizers_own_tokens(trained):
    encoded = HuggingFaceEncoder(trained).encode(as_texts(TEXTS))

    assert [encoded.document(number).tolist() for number in range(3)] == [
        tokens.tolist() for tokens in trained.encode_batch(TEXTS)
    ]


@needs_gigatoken
@pytest.mark.parametrize("kind", ("trained", "like_gpt2"))
def test_gigatoken_gives_the_same_tokens(kind, request):
    tokenizer = request.getfixturevalue(kind)
    random = np.random.default_rng(0)
    alphabet = [*"abcde  \n\t'’.,0123éß漢👩\u200d\u0301", "<|eos|>", "<|sep|>", "the", "'s", "\r\n"]
    texts = [*TEXTS, *("".join(random.choice(alphabet, 200)) for _ in range(200))]
    fast = GigatokenEncoder(tokenizer)

    encoded = fast.encode(as_texts(texts))

    assert first_difference(fast, tokenizer) is None
    for number, expected in enumerate(tokenizer.encode_batch(texts)):
        np.testing.assert_array_equal(encoded.document(number), expected)


@needs_gigatoken
@pytest.mark.parametrize("kind", ("trained", "like_gpt2"))
def test_gigatoken_never_makes_a_special_token_of_text(kind, request):
    tokenizer = request.getfixturevalue(kind)
    encoded = GigatokenEncoder(tokenizer).encode(
        as_texts([f"a{name}b {name}" for name in tokenizer.added_tokens])
    )

    assert not np.isin(encoded.tokens, [tokenizer.bos, tokenizer.eos, tokenizer.sep]).any()


def test_a_wrong_encoder_fails_the_check(trained):
    difference = first_difference(OneWrong(trained, 4), trained)

    assert difference is not None
    assert "token 1: [" in difference and "Hugging Face gives [" in difference


def test_a_finder_of_special_tokens_fails_the_check(trained):
    class Finds(HuggingFaceEncoder):
        def encode(self, texts):
            parts = [
                np.array([trained.eos], np.uint32)
                if texts.text(i) == "<|eos|>"
                else super(Finds, self).encode(as_texts([texts.text(i)])).tokens
                for i in range(len(texts))
            ]
            return Encoded(np.concatenate(parts), np.cumsum([0, *map(len, parts)]))

    assert "'<|eos|>'" in first_difference(Finds(trained), trained)


def test_the_sample_does_not_depend_on_the_batches(trained):
    texts = [f"document number {number}" for number in range(100)]

    def kept(size):
        sample = Sample(shard=3, size=10)
        for start in range(0, 100, size):
            batch = as_texts(texts[start : start + size])
            sample.offer(batch, HuggingFaceEncoder(trained).encode(batch))
        return sorted(text for *_, text, _ in sample._kept)

    assert len(kept(100)) == 10
    assert kept(100) == kept(7) == kept(1)


def test_every_document_of_a_small_shard_is_compared(trained):
    batch = as_texts(TEXTS)
    for wrong in range(3):
        sample = Sample(shard=0, size=3)
        sample.offer(batch, OneWrong(trained, wrong).encode(batch))
        assert sample.first_difference(trained) is not None


def test_other_shards_sample_other_documents(trained):
    batch = as_texts([f"document number {number}" for number in range(100)])
    encoded = HuggingFaceEncoder(trained).encode(batch)
    kept = []
    for shard in range(5):
        sample = Sample(shard, 10)
        sample.offer(batch, encoded)
        kept.append(tuple(number for _, number, *_ in sample._kept))

    assert len(set(kept)) == 5
    assert len({number for each in kept for number in each}) > 25


@pytest.mark.parametrize(
    ("found", "expected", "place"), (([1, 2, 3], [1, 9, 3], 1), ([1, 2], [1, 2, 3], 2), ([5], [], 0))
)
def test_a_difference_is_shown_where_it_begins(found, expected, place):
    message = describe_difference(np.array(found, np.uint32), np.array(expected, np.uint32))
    assert message.startswith(f"token {place}: ")


def test_the_alphabet_of_the_trained_tokenizer_is_whole(trained):
    # Without all bytes neither encoder would be lossless.
    vocabulary = json.loads(trained.json_without_special_tokens())["model"]["vocab"]
    assert vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet())
