"""tools/find_duplicates.py: what it finds, in which order it numbers, and what it says of mistakes."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from test_corpus_clusters import planted_corpus

from megasbp.corpus.config import CorpusConfig
from megasbp.overlap.corpus_clusters import cluster_corpus, largest_clusters, load_clusters

TOOL = Path(__file__).resolve().parents[2] / "tools" / "find_duplicates.py"


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("find_duplicates", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_clusters_and_summary_of_datasets(tool, write_shards, tmp_path, capsys):
    documents = planted_corpus(5)
    datasets = write_shards(documents, bounds=(100, 100, 160))
    arguments = [str(tmp_path / "out"), *(f"{dataset}.idx" for dataset in datasets), "--workers", "2"]

    assert tool.main([*arguments, "--threshold", "0.6", "--seed", "1"]) == 0

    labels = load_clusters(tmp_path / "out")
    cluster_corpus(datasets, tmp_path / "expected", width=5, threshold=0.6, seed=1)
    assert np.array_equal(labels, load_clusters(tmp_path / "expected"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["documents"] == len(documents)
    assert summary["near_duplicates"] == len(documents) - len(set(labels.tolist()))
    first = summary["largest"][0]
    assert (
        (labels == first["label"]).sum()
        == first["documents"]
        == np.unique(labels, return_counts=True)[1].max()
    )
    starts = {str(dataset): start for dataset, start in zip(datasets, (0, 100, 100, 160), strict=True)}
    assert all(each["label"] == starts[each["dataset"]] + each["document"] for each in summary["largest"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clusters", "summary.json"]
    assert "write_candidates: " in (output := capsys.readouterr().out)
    assert f"{summary['near_duplicates']:,} (" in output

    capsys.readouterr()
    # A second time nothing is made; with another setting nothing is overwritten.
    assert tool.main([*arguments, "--threshold", "0.6", "--seed", "1"]) == 0
    assert "write_candidates" not in capsys.readouterr().out
    assert tool.main([*arguments, "--seed", "1"]) == 2
    assert "made with threshold 0.6, now 0.7; use another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    (
        (["{0}", "missing"], "missing.json: no such file"),
        (["{0}", "{0}"], "no corpus.json, so tools/preprocess_corpus.py has not finished there"),
        (["{0}/out", "{1}", "--threshold", "0.01"], "duplicate threshold 0.01: too low"),
        (["{0}/out", "{1}", "--width", "0"], "shingle width 0: must be at least 1"),
        (["{0}/out", "{1}", "--memory", "0"], "memory 0: must be at least 1048576 bytes"),
    ),
)
def test_mistakes_are_named_in_one_line(tool, write_shards, tmp_path, capsys, arguments, said):
    (dataset,) = write_shards([[1, 2, 3]])

    assert tool.main([argument.format(tmp_path, dataset) for argument in arguments]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("find_duplicates: ") and said in line
    assert not (tmp_path / "out").exists()


def test_help_explains_the_labels_and_the_threshold(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "the smallest document of its cluster" in shown
    own, recipes = (
        tool.parse(["out", "data"]).threshold,
        CorpusConfig.model_fields["duplicate_threshold"].default,
    )
    assert f"0.05 to 1 ({own}, usual where copies are dropped; a recipe" in shown
    assert f"has {recipes})" in shown


@pytest.mark.parametrize("count", (1, 2, 3, 9))
def test_largest_clusters_come_by_size_and_label(count):
    labels = np.array([0, 1, 1, 3, 3, 5, 6, 6, 6])

    assert largest_clusters(labels, count) == [(6, 3), (1, 2), (3, 2)][:count]
    assert largest_clusters(np.empty(0, np.int64), count) == []
