"""What is made from a text is made again when the text changes, wherever its documents go."""

import json
from pathlib import Path

from megasbp.experiment.context import Corpus
from megasbp.experiment.corpus_stages import make_corpus
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.stages import Workspace

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"
SIZES = {"unique": 20, "oracle": 30, "validation": 10, "test": 20, "vocabulary_size": 300}


def write_corpus(path: Path, word: str) -> None:
    """Sixty documents, which are no near-duplicates; "body" is another text of each."""
    rows = [
        {
            "id": str(number),
            "title": f"title {number}",
            "text": " ".join(f"{word}{number}x{place}" for place in range(20)),
            "body": " ".join(f"body{number}x{place}" for place in range(20)),
        }
        for number in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def corpus_of(folder: Path, *overrides: str) -> Corpus:
    given = [
        f"corpus.paths=['{folder / 'corpus.jsonl'}']",
        f"runs={folder / 'runs'}",
        *(f"corpus.{name}={size}" for name, size in SIZES.items()),
    ]
    recipe = load_recipe(DEMO, [*given, *overrides])
    return make_corpus(recipe, Workspace(recipe.folder, lambda line: None))


def text_of(corpus: Corpus) -> str:
    """Of the first document, below its title."""
    tokens = corpus.open("unique").document(0)[1:-1]
    return corpus.open_tokenizer().decode(tokens).partition("\n")[2]


def test_an_edited_text_is_tokenised_again(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", "old")
    before = corpus_of(tmp_path)
    assert text_of(before).startswith("old")
    write_corpus(tmp_path / "corpus.jsonl", "new")
    after = corpus_of(tmp_path)
    # The documents go where they went.
    assert after.split.digest == before.split.digest
    assert text_of(after).startswith("new")
    assert after.tokenizer.digest != before.tokenizer.digest


def test_another_field_of_the_same_documents_is_another_text(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", "text")
    before = corpus_of(tmp_path)
    after = corpus_of(tmp_path, "corpus.text_field=body")
    assert after.split.digest == before.split.digest
    assert text_of(after).startswith("body")


def test_nothing_is_made_twice(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", "text")
    assert corpus_of(tmp_path).datasets.folder == corpus_of(tmp_path).datasets.folder
