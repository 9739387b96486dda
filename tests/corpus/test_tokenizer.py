import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError

TEXTS = [
    "The quick brown fox jumps over the lazy dog. 漢字 and naïve café.",
    "Numbers 123 and the the the dog.",
] * 5
ODD_TEXTS = (
    "",
    " ",
    "plain words",
    "  two  spaces\tand\r\nlines\n\n",
    "<|eos|>",
    "a<|bos|>b <|sep|> c<|eos|>",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽",
    "e\u0301 e\u0308\u0323 Z\u0351\u0343\u0357\u036b combining",
    "\u202eright to left\u202c \u200b\u200d\ufeff invisible",
    "".join(chr(code) for code in range(0x20)) + "\x7f\x80\x9f",
    "\uffff\ufffd\U0010ffff\U0001f4a9 \ue000 private",
    "Ġ Ċ âĢ look like byte-level pieces",
    "हिन्दी ภาษาไทย 한국어 עברית العربية",
    "x" * 5000,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(iter(TEXTS), 320)


def foreign(path: Path, specials: list[str], added: tuple[str, ...] = (), **parts) -> Path:
    """A byte-level tokenizer.json as another project would write it."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = parts.get("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False))
    inner.decoder = decoders.ByteLevel()
    if "normalizer" in parts:
        inner.normalizer = parts["normalizer"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[],
        initial_alphabet=parts.get("alphabet", pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(TEXTS, trainer)
    inner.add_special_tokens(specials)
    inner.add_tokens(list(added))
    inner.enable_truncation(4)
    inner.enable_padding()
    inner.save(str(path))
    return path


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_text_survives_encoding_and_decoding(tokenizer, text):
    tokens = tokenizer.encode_batch([text])[0]

    assert tokenizer.decode(tokens) == text
    assert tokenizer.token_bytes[tokens].sum() == len(text.encode())


def test_names_of_special_tokens_in_text_stay_text(tokenizer):
    tokens = np.concatenate(tokenizer.encode_batch(["a<|bos|>b <|sep|> c<|eos|>", "<|eos|>"]))

    assert not np.isin(tokens, [tokenizer.bos, tokenizer.eos, tokenizer.sep]).any()


def test_tokens_are_without_special_tokens_and_uint32(tokenizer):
    tokens = tokenizer.encode_batch(["the dog", ""])

    assert [array.dtype for array in tokens] == [np.uint32, np.uint32]
    assert len(tokens[1]) == 0


def test_special_tokens_have_no_bytes_and_no_text(tokenizer):
    specials = [tokenizer.bos, tokenizer.eos, tokenizer.sep]

    assert specials == [0, 1, 2]
    assert tokenizer.token_bytes[specials].tolist() == [0, 0, 0]
    assert tokenizer.decode([tokenizer.bos, *tokenizer.encode_batch(["dog"])[0], tokenizer.eos]) == "dog"


def test_every_other_token_has_bytes(tokenizer):
    assert tokenizer.token_bytes.shape == (tokenizer.vocabulary_size,)
    assert tokenizer.token_bytes.dtype == np.int32
    assert (tokenizer.token_bytes[3:] > 0).all()


def test_half_a_character_is_decoded_as_replacement(tokenizer):
    tokens = tokenizer.encode_batch(["🙂"])[0]

    assert tokenizer.decode(tokens[:2]) == "\ufffd"


def test_training_gives_the_same_tokenizer_in_another_process(tokenizer):
    program = (
        f"from megasbp.corpus.tokenizer import Tokenizer\nprint(Tokenizer.train(iter({TEXTS!r}), 320).hash)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == tokenizer.hash


def test_other_texts_give_another_hash(tokenizer):
    assert Tokenizer.train(iter([*TEXTS, "zebra zebra"]), 320).hash != tokenizer.hash


def test_the_vocabulary_is_at_most_as_asked():
    assert Tokenizer.train(iter(TEXTS), 300).vocabulary_size == 300
    assert Tokenizer.train(iter(["ab ab"]), 5000).vocabulary_size == 256 + 3 + 1


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(InputError, match="corpus.vocabulary_size is 258; .* need at least 259"):
        Tokenizer.train(iter(TEXTS), 258)


def test_a_saved_tokenizer_is_the_same_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")

    for place in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(place)
        assert loaded.hash == tokenizer.hash
        assert np.array_equal(loaded.encode_batch(TEXTS)[0], tokenizer.encode_batch(TEXTS)[0])


def test_the_hash_does_not_depend_on_the_layout_of_the_file(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text())

    (tmp_path / "tokenizer.json").write_text(json.dumps(dict(reversed(content.items())), indent=3))

    assert Tokenizer.load(tmp_path).hash == tokenizer.hash


def test_hugging_face_opens_what_is_saved(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")

    inner = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    assert inner.encode("the dog").ids == tokenizer.encode_batch(["the dog"])[0].tolist()


def test_well_known_special_tokens_are_found(tmp_path):
    path = foreign(tmp_path / "tokenizer.json", ["<s>", "</s>", "<sep>"])

    loaded = Tokenizer.load(path)

    assert loaded.roles == {"bos": "<s>", "eos": "</s>", "sep": "<sep>"}


def test_truncation_and_padding_of_the_file_are_off(tmp_path):
    loaded = Tokenizer.load(foreign(tmp_path / "tokenizer.json", ["<s>", "</s>", "<sep>"]))

    assert [loaded.decode(tokens) for tokens in loaded.encode_batch([TEXTS[0], "a"])] == [TEXTS[0], "a"]


def test_named_special_tokens_are_kept_by_saving(tmp_path):
    path = foreign(tmp_path / "tokenizer.json", ["<|endoftext|>", "<|reserved_0|>"])
    named = Tokenizer.load(path, sep="<|reserved_0|>")
    named.save(tmp_path / "run" / "tokenizer.json")

    loaded = Tokenizer.load(tmp_path / "run")

    assert loaded.bos == loaded.eos
    assert loaded.roles["sep"] == "<|reserved_0|>"
    assert loaded.hash == named.hash


def test_roles_are_part_of_the_hash(tmp_path):
    path = foreign(tmp_path / "tokenizer.json", ["<s>", "</s>", "<sep>", "<other>"])

    assert Tokenizer.load(path).hash != Tokenizer.load(path, sep="<other>").hash


def test_hugging_face_role_files_are_read(tmp_path):
    path = foreign(tmp_path / "tokenizer.json", ["<begin>", "<end>", "<part>"])
    roles = {"bos_token": {"content": "<begin>"}, "eos_token": "<end>", "sep_token": "<part>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(roles))

    assert Tokenizer.load(path).roles == {"bos": "<begin>", "eos": "<end>", "sep": "<part>"}


def test_added_tokens_that_are_not_special_count_their_bytes(tmp_path):
    loaded = Tokenizer.load(
        foreign(tmp_path / "tokenizer.json", ["<s>", "</s>", "<sep>"], added=("<tool>", "    "))
    )
    text = "a <tool> call\n        x <too"

    tokens = loaded.encode_batch([text])[0]

    assert loaded.decode(tokens) == text
    assert loaded.token_bytes[tokens].sum() == len(text.encode())


def test_added_tokens_that_the_decoder_garbles_are_refused(tmp_path):
    path = foreign(tmp_path / "tokenizer.json", ["<s>", "</s>", "<sep>"], added=("größer",))

    with pytest.raises(InputError, match="added token .*'größer', is not decoded to itself"):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    ("specials", "names", "message"),
    (
        (
            ["<s>", "</s>"],
            {},
            "no sep token among its special tokens; name one with corpus.sep_token, in tools with --sep: "
            "'<s>', '</s>'",
        ),
        (
            ["<s>", "</s>"],
            {"sep": "<x>"},
            "sep token '<x>' is not one of its special tokens; set corpus.sep_token",
        ),
        (["<s>", "</s>"], {"sep": "Ġthe"}, "sep token 'Ġthe' is not one of its special tokens"),
        (["<s>", "</s>"], {"sep": "</s>"}, "the separator '</s>' also begins or ends documents"),
        ([], {}, "no bos token .* it has none"),
    ),
)
def test_missing_special_tokens_are_refused(tmp_path, specials, names, message):
    path = foreign(tmp_path / "tokenizer.json", specials)

    with pytest.raises(InputError, match=message):
        Tokenizer.load(path, **names)


@pytest.mark.parametrize(
    "parts",
    (
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"normalizer": normalizers.Lowercase()},
        {"alphabet": []},
    ),
    ids=("prefix space", "lower case", "missing bytes"),
)
def test_tokenizers_that_lose_text_are_refused(tmp_path, parts):
    path = foreign(tmp_path / "tokenizer.json", ["<s>", "</s>", "<sep>"], **parts)

    with pytest.raises(InputError, match="text does not survive"):
        Tokenizer.load(path)


def test_tokenizers_that_are_not_byte_level_are_refused(tmp_path):
    inner = tokenizers.Tokenizer(
        models.WordLevel({"<s>": 0, "</s>": 1, "<sep>": 2, "▁the": 3}, unk_token="<s>")
    )
    inner.add_special_tokens(["<s>", "</s>", "<sep>"])
    inner.save(str(tmp_path / "tokenizer.json"))

    with pytest.raises(InputError, match="'▁the', is not byte-level"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ("[]", "{}", "not JSON"))
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(InputError, match=r"tokenizer\.json: not (a tokenizer\.json|valid JSON)"):
        Tokenizer.load(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.load(tmp_path / "none.json")
