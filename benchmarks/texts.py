"""Text that the benchmarks run on: the demo corpus unless the caller names another."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import ROOT
from megasbp.corpus.readers import read_documents
from megasbp.errors import InputError

DEMO_CORPUS = ROOT / "corpora" / "demo" / "wikipedia_leads.jsonl"


def read_texts(paths: Sequence[Path]) -> list[str]:
    """The texts of a corpus, in order.

    Raises:
        InputError: a path is missing, or no text is good.
    """
    missing = [path for path in paths if not path.exists()]
    if DEMO_CORPUS in missing:
        raise InputError(
            "the demo corpus is not there: python tools/fetch_demo_corpus.py corpora/demo, or give --corpus"
        )
    return [document.text for document in read_documents(paths)]


def long_texts(texts: Sequence[str], words: int, limit: int | None = None) -> list[str]:
    """The first `limit` texts of at least so many words."""
    chosen: list[str] = []
    for text in texts:
        if len(text.split()) >= words:
            chosen.append(text)
            if len(chosen) == limit:
                break
    return chosen


def paragraphs(texts: Sequence[str], words: int, limit: int | None = None) -> list[str]:
    """The first `limit` paragraphs (lines) of at least so many words."""
    return long_texts([line for text in texts for line in text.split("\n")], words, limit)
