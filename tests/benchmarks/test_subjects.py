"""Every subject of tools/benchmark.py at toy size: it measures our side and publishes one results file."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.measuring import OURS
from benchmarks.vectors import passages

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark.py"
TOY = {
    "data": ["--documents", "2000", "--samples", "64", "--repeats", "1"],
    "preprocess": ["--megabytes", "1", "--vocabulary", "400", "--repeats", "1"],
    "duplicates": ["--planted", "40", "--random-documents", "1000", "--repeats", "1"],
    "pair_caps": ["--candidates", "2000", "--largest", "4000", "--repeats", "2"],
    "search": ["--rows", "2000", "--minilm-rows", "0"],
}


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("benchmark", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """600 documents of two paragraphs of random words; words are frequent and rare, as in a language."""
    generator = np.random.default_rng(0)
    words = [f"word{number}" for number in range(3000)]
    weights = 1 / np.arange(1, 3001)
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(600):
            lines = [" ".join(generator.choice(words, 120, p=weights / weights.sum())) for _ in range(2)]
            file.write(json.dumps({"text": "\n".join(lines)}) + "\n")
    return path


@pytest.mark.parametrize(
    "subject",
    ["pair_caps", *(pytest.param(name, marks=pytest.mark.slow) for name in TOY if name != "pair_caps")],
)
def test_a_subject_measures_our_side(subject, tool, corpus, tmp_path):
    output = tmp_path / "results.json"
    arguments = [subject, *TOY[subject], "--output", str(output), "--folder", str(tmp_path)]
    if subject not in ("data", "pair_caps"):
        arguments += ["--corpus", str(corpus)]
    if subject == "search":
        arguments += ["--cache", str(tmp_path / "cache")]
    assert tool.main(arguments) in (0, 1)
    results = report.load(output)
    assert results["subject"] == subject
    assert results["settings"]["repeats"] >= 1
    for measure in results["measures"]:
        ours = next(side for side in measure["sides"] if side["name"].startswith(OURS))
        assert ours["values"] and all(value >= 0 for value in ours["values"]), measure["name"]


def test_settings_hold_no_folders_of_this_machine(tool, tmp_path):
    options = tool.parse(["preprocess", "--corpus", str(tmp_path / "a.jsonl"), "--folder", str(tmp_path)])
    assert tool.settings(options)["corpus"] == ["a.jsonl"]
    assert str(tmp_path) not in json.dumps(tool.settings(options))


def test_a_missing_run_is_named_with_the_mend(tool, tmp_path, capsys):
    assert tool.main(["embeddings", "--run", str(tmp_path / "none")]) == 2
    assert "--until train-baseline" in capsys.readouterr().err


def test_a_missing_demo_corpus_is_named_with_the_mend(tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.texts.DEMO_CORPUS", tmp_path / "none.jsonl")
    output = ["--output", str(tmp_path / "results.json")]
    assert tool.main(["duplicates", "--corpus", str(tmp_path / "none.jsonl"), *output]) == 2
    assert "fetch_demo_corpus.py" in capsys.readouterr().err
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    "arguments", (["compare", "{0}/file/a.json", "{0}/file/b.json"], ["data", "--folder", "{0}/file/folder"])
)
def test_a_file_where_a_folder_is_wanted_is_one_line(tool, tmp_path, capsys, arguments):
    (tmp_path / "file").write_text("")
    assert tool.main([argument.format(tmp_path) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"benchmark: {tmp_path}/file/") and line.endswith(": Not a directory")


def test_passages_are_paragraphs_and_where_these_are_too_few_sentences():
    long = " ".join(["word"] * 45) + "."
    short = "This sentence has more than eight words in it. So has this one, which follows it at once."
    assert passages([f"{long}\n{long}", short], 2) == [long, long]
    assert passages([short], 5) == short.replace("it. So", "it.|So").split("|")
