"""A recipe that starts from preprocessed shards, beside the same recipe on the text."""

import importlib
import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from megasbp.cli import main
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.experiment import shard_stages
from megasbp.experiment.context import Context, Corpus
from megasbp.experiment.corpus_stages import DATASETS, make_corpus
from megasbp.experiment.pair_stages import embed_stage, pairs_stage
from megasbp.experiment.plan import plan
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import Workspace

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = 160
SPLITS = {"unique": 60, "oracle": 80, "validation": 20, "test": 30}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus/ of random words, one bad line and a file without a document; shards/ of it; tokenizer.json."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "corpus").mkdir()
    generator = np.random.Generator(np.random.Philox(key=5))
    words = ["river", "bank", "song", "chord", "moon", "comet", "dough", "oven", "pawn", "rook"]
    lines = []
    for number in range(DOCUMENTS):
        sentences = (" ".join(generator.choice(words, 6)).capitalize() + "." for _ in range(4))
        row = {"id": f"id {number}", "title": f"Title {number}", "text": " ".join(sentences)}
        lines.append(json.dumps(row) + "\n")
    (folder / "corpus" / "a.jsonl").write_text("".join(lines[:90]))
    (folder / "corpus" / "b.jsonl").write_text("{not json} " + "x" * 5000 + "\n")
    (folder / "corpus" / "c.jsonl").write_text("".join(lines[90:]))
    Tokenizer.train(iter(lines), 300).save(folder / "tokenizer.json")
    preprocess(folder)
    return folder


def preprocess(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tools"))
    tool = importlib.import_module("preprocess_corpus")
    sys.path.remove(str(ROOT / "tools"))
    values = ("--shard-bytes", "4000", "--encoder", "huggingface", "--workers", "1", "--title-field", "title")
    named = (str(folder / "shards"), str(folder / "corpus"), "--tokenizer", str(folder / "tokenizer.json"))
    assert tool.main([*named, *values]) == 0


def recipe(folder: Path, corpus: dict[str, Any], runs: str = "runs", **sections: Any) -> Recipe:
    data = tomllib.loads((ROOT / "configs" / "demo.toml").read_text())
    data["corpus"] = {"source": data["corpus"]["source"], "duplicate_threshold": 1.0, **SPLITS, **corpus}
    data["pairing"] |= {"embedder": "none", "source": "random", "random_pairs": 50}
    data["pairing"]["maximum_jaccard"] = 0.9
    return Recipe.model_validate({**data, "runs": folder / runs, **sections})


def from_shards(folder: Path, runs: str = "runs", shards: Path | None = None, **sections: Any) -> Recipe:
    return recipe(folder, {"shards": shards or folder / "shards"}, runs, **sections)


def made(chosen: Recipe, announce: Callable[[str], None] = lambda line: None) -> Corpus:
    return make_corpus(chosen, Workspace(chosen.folder, announce))


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return made(from_shards(folder))


def test_datasets_are_those_of_the_text(folder: Path, corpus: Corpus) -> None:
    reading = {"paths": [folder / "corpus"], "tokenizer": folder / "tokenizer.json", "title_field": "title"}
    text = made(recipe(folder, reading))

    for name in DATASETS:
        for suffix in (".bin", ".idx", ".json"):
            files = [(each.datasets.folder / f"{name}{suffix}").read_bytes() for each in (text, corpus)]
            assert files[0] == files[1]
        for column in ("id", "cluster", "bytes"):
            assert text.column(name, column) == corpus.column(name, column)
        IndexedDataset(corpus.datasets.folder / name).verify()
    assert text.datasets.facts == corpus.datasets.facts
    assert text.tokenizer.facts == corpus.tokenizer.facts
    assert text.split.facts == corpus.split.facts
    assert corpus.split.facts["quarantine"]["reasons"] == {"invalid_json": 1}


def test_shards_without_a_document_are_passed_over(folder: Path, corpus: Corpus) -> None:
    sizes = [len(IndexedDataset(path / "documents")) for path in sorted((folder / "shards").glob("shard-*"))]
    table = pq.ParquetFile(corpus.split.folder / "documents.parquet")

    assert 0 in sizes and sum(sizes) == DOCUMENTS
    groups = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
    assert groups == [size for size in sizes if size]


def test_nothing_is_left_of_the_search_for_duplicates(corpus: Corpus) -> None:
    names = {path.name for path in corpus.split.folder.iterdir()}
    assert names == {"documents.parquet", "manifest.json"}


def test_pairs_are_made_of_the_copied_datasets(folder: Path, corpus: Corpus) -> None:
    chosen = from_shards(folder)
    workspace = Workspace(chosen.folder, lambda line: None)
    context = Context(chosen, workspace, corpus, 0, SimpleNamespace(device="cpu"))  # type: ignore[arg-type]

    pairs = pairs_stage(context, embed_stage(context, None))  # type: ignore[arg-type]

    assert 0 < pairs.facts["train"]["pairs"] <= 50
    assert plan(chosen)["tokens_are"] == "exact"


def test_where_the_shards_run_changes_neither_names_nor_bytes(folder: Path, corpus: Corpus) -> None:
    workers = {"engine": "local", "workers": 2}
    local = made(recipe(folder, {"shards": folder / "shards"}, "elsewhere", shards=workers))

    for one, other in ((corpus.split, local.split), (corpus.datasets, local.datasets)):
        assert one.folder.name == other.folder.name
        assert one.digest == other.digest


def test_a_stage_that_was_stopped_while_it_cleaned_up_goes_on(
    folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = from_shards(folder, "stopped")

    remove = shutil.rmtree

    def stopped(path: Path, ignore_errors: bool = False) -> None:
        if path.name != "duplicates":
            return remove(path, ignore_errors)
        next(path.rglob("clusters.npy")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shard_stages.shutil, "rmtree", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(chosen)
    monkeypatch.undo()

    assert made(chosen).split.digest == corpus.split.digest


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(folder / "shards", tmp_path / "shards"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda shards: (shards / "corpus.json").unlink(),
            r"no corpus\.json, so tools/preprocess_corpus\.py",
        ),
        (shutil.rmtree, r"no corpus\.json"),
        (lambda shards: (shards / "shard-000002" / "documents.bin").write_bytes(b""), "remove that folder"),
        (
            lambda shards: Tokenizer.train(iter(["other text, other text"]), 270).save(
                shards / "tokenizer.json"
            ),
            r"shard-000000: written with tokenizer [0-9a-f]{12}, .*tokenizer\.json is [0-9a-f]{12}; restore",
        ),
    ],
)
def test_shards_that_cannot_be_used_are_named(
    shards: Path, tmp_path: Path, damage: Callable[[Path], Any], said: str
) -> None:
    damage(shards)
    with pytest.raises(InputError, match=said):
        made(from_shards(tmp_path, shards=shards))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        (
            {"shards": "s", "paths": ["t.txt"]},
            "corpus.paths is .*'t.txt'.* and corpus.shards is s; set exactly one",
        ),
        ({"vocabulary_size": 300}, r"corpus.paths is \[\] and corpus.shards is None; set exactly one"),
        ({"shards": "s", "vocabulary_size": 300}, "corpus.vocabulary_size needs text; .* leave it out"),
        ({"shards": "s", "tokenizer": "t.json"}, "corpus.tokenizer needs text; .* leave it out"),
        ({"shards": "s", "title_field": "title"}, "corpus.title_field needs text; .* leave it out"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, corpus: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe(tmp_path, corpus)


def test_the_command_line_says_in_one_line_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "configs" / "demo.toml").read_text()
    text = text.replace('paths = ["corpora/demo/wikipedia_leads.jsonl"]', f'shards = "{tmp_path}/shards"')
    text = text.replace('title_field = "title"\n', "").replace("vocabulary_size = 4096 ", "# ", 1)
    (tmp_path / "recipe.toml").write_text(text)
    runs = f'runs="{tmp_path}/runs"'

    assert main(["plan", str(tmp_path / "recipe.toml"), runs]) == 0
    capsys.readouterr()
    assert main(["run", str(tmp_path / "recipe.toml"), runs]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/shards: no corpus.json" in line
    assert not (tmp_path / "runs").exists()
