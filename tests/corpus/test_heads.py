"""Heads end where a reader would stop, and never later than asked."""

import json

import pytest
from tool_modules import load_tool

from megasbp.corpus.heads import head
from megasbp.corpus.readers import read_documents


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


def test_the_tool_names_what_is_wrong_and_leaves_nothing(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "heads.jsonl"), str(tmp_path / "missing.jsonl")]) == 2
    assert "missing.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "heads.jsonl").exists()
