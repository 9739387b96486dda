"""Heads end where a reader would stop, and never later than asked."""

import json

import pytest
from tool_modules import load_tool

from megasbp.corpus.heads import head
from megasbp.corpus.readers import read_documents
from megasbp.corpus.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("text", "characters", "expected"),
    [
        ("Short. ", 100, "Short."),
        ("One paragraph.\nAnother one here.", 20, "One paragraph."),
        # The border stands right behind the last character.
        ("One paragraph.\nAnother one here.", 14, "One paragraph."),
        ("First sentence. Second sentence. Third", 33, "First sentence. Second sentence."),
        ('He said "no." Then he left again.', 14, 'He said "no."'),
        # The first sentence is too short to be a head.
        ("No. This sentence runs on and on without an end", 30, "No. This sentence runs on and"),
        ("A.\nThis paragraph is long enough to be cut", 30, "A.\nThis paragraph is long"),
        ("unbroken" * 10, 20, "unbroken" * 2 + "unbr"),
        ("word by word", 4, "word"),
    ],
)
def test_where_a_head_ends(text, characters, expected):
    assert head(text, characters) == expected


def test_every_head_is_a_beginning_of_its_text_and_not_longer_than_asked():
    text = "A sentence of some words, and more. Another! Is it?\nA new paragraph (with brackets.) Ends here"
    for characters in range(1, len(text) + 5):
        cut = head(text, characters)
        assert text.startswith(cut)
        assert 0 < len(cut) <= characters
        assert cut == cut.rstrip()


@pytest.fixture(scope="module")
def tool():
    return load_tool("cut_heads")


@pytest.mark.parametrize("name", ["heads.jsonl", "heads.jsonl.zst"])
def test_the_tool_keeps_ids_and_titles(tool, tmp_path, name):
    rows = [{"id": f"d{n}", "title": f"T{n}", "text": f"Ä sentence {n}. " * 9} for n in range(5)]
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tool.main([str(tmp_path / name), str(source), "--characters", "30"]) == 0
    found = list(read_documents([tmp_path / name], title_field="title"))
    assert [document.id for document in found] == [row["id"] for row in rows]
    assert found[2].text == "T2\nÄ sentence 2. Ä sentence 2."


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer.train(iter(["A sentence of some words, and more. Another one!\n"] * 3), 290).save(path)
    return path


def test_heads_of_tokens_are_as_long_as_fits_and_end_where_a_reader_would_stop(tool, tokenizer_file):
    tokenizer = Tokenizer.load(tokenizer_file)
    text = "A sentence of words, 漢字 too. Another (with \U0001f409.) one!\nA paragraph, and more. Ends here "
    known = len(tokenizer.encode_batch([text.rstrip()])[0])
    lengths = []
    for tokens in range(4, known + 3):
        cut = tool.head_of_tokens(text, tokens, tokenizer)
        assert cut == head(text, len(cut)) and text.startswith(cut) and cut
        lengths.append(len(tokenizer.encode_batch([cut])[0]))
        assert lengths[-1] <= tokens
    assert lengths == sorted(lengths) and lengths[-3:] == [known] * 3


def test_the_tool_cuts_at_tokens(tool, tokenizer_file, tmp_path, capsys):
    source, output = tmp_path / "source.jsonl", tmp_path / "heads.jsonl"
    source.write_text(json.dumps({"text": "A sentence of some words. " * 50}) + "\n")
    arguments = [str(output), str(source), "--tokens", "40"]
    assert tool.main([*arguments, "--tokenizer", str(tokenizer_file)]) == 0
    (found,) = read_documents([output])
    (tokens,) = Tokenizer.load(tokenizer_file).encode_batch([found.text])
    # Another sentence would not have fitted.
    sentences = found.text.count(".")
    assert found.text.endswith("words.") and len(tokens) <= 40 < len(tokens) * (sentences + 1) / sentences
    for wrong in (arguments, [*arguments[:3], "3", "--tokenizer", str(tokenizer_file)]):
        assert tool.main(wrong) == 2
        assert "--tokens" in capsys.readouterr().err


def test_the_tool_names_what_is_wrong_and_leaves_nothing(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "heads.jsonl"), str(tmp_path / "missing.jsonl")]) == 2
    assert "missing.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "heads.jsonl").exists()
