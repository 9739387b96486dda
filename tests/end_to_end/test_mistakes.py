"""Each mistake of a user: one line naming the file or setting, the place and the mend; nothing is lost."""

import errno
import gzip
import json
import os
import shutil
from pathlib import Path

import pytest
from small_run import write_recipe

from megasbp import storage
from megasbp.cli import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs the command line, which must fail with one line on stderr; returns that line."""
    assert main(list(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("megasbp: ")]
    assert len(lines) == 1
    return lines[0]


def recipe_with_corpus(folder: Path, name: str, content: bytes) -> str:
    corpus = folder / name
    corpus.write_bytes(content)
    return str(write_recipe(folder, corpus))


def test_missing_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", str(write_recipe(tmp_path, tmp_path / "nowhere.jsonl")))
    assert "nowhere.jsonl" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--jobs", "0"], "--jobs 0: is the number of workers, at least 1"),
        (
            ["--jobs", "2", "--launcher", "slurm"],
            "--jobs 2: is for one machine; leave it out with --launcher",
        ),
    ],
)
def test_jobs_that_are_none_or_not_of_one_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    recipe = str(write_recipe(tmp_path, tmp_path / "nowhere.jsonl"))
    assert message in refused(capsys, "run", recipe, *arguments)


def test_empty_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "empty.jsonl" in refused(capsys, "run", recipe_with_corpus(tmp_path, "empty.jsonl", b""))


def test_all_bad_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", recipe_with_corpus(tmp_path, "bad.jsonl", b"{not json}\n" * 200))
    assert "bad" in line
    assert "quarantine.jsonl" in line


def test_cut_compressed_corpus(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(corpus.read_bytes())
    line = refused(capsys, "run", recipe_with_corpus(tmp_path, "cut.jsonl.gz", whole[: len(whole) // 8]))
    assert "documents" in line


def test_too_few_documents(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", str(write_recipe(tmp_path, corpus)), "corpus.oracle=4000")
    assert "corpus has 420 usable documents" in line


def test_misspelt_key(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", str(write_recipe(tmp_path, corpus)), "training.lerning_rate=1e-3")
    assert "training.lerning_rate: unknown setting; did you mean 'learning_rate'?" in line


def test_impossible_value(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "plan", str(write_recipe(tmp_path, corpus)), "budget.synthetic_share=1.5")
    assert "budget.synthetic_share" in line
    assert "1.5" in line


def test_budget_below_one_step(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "run", str(write_recipe(tmp_path, corpus)), "budget.tokens_per_arm=100")
    assert "below one optimiser step of 512 tokens" in line


def test_recipe_that_is_not_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.toml").write_text("name = ")
    assert "broken.toml: not valid TOML" in refused(capsys, "run", str(tmp_path / "broken.toml"))


@pytest.fixture
def damaged(finished_run: Path, corpus: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    write_recipe(tmp_path, corpus)
    shutil.copytree(finished_run / "runs", tmp_path / "runs")
    return tmp_path


def datasets_folder(folder: Path) -> Path:
    return next((folder / "runs" / "small").glob("datasets-*"))


@pytest.mark.parametrize("name", ["unique.idx", "oracle.bin"])
def test_a_truncated_dataset_is_named(damaged: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = datasets_folder(damaged) / name
    path.write_bytes(path.read_bytes()[:-7])
    line = refused(capsys, "run", str(damaged / "small.toml"))
    assert name in line
    assert "remove that folder" in line


def test_a_dataset_of_another_tokenizer_is_refused(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = datasets_folder(damaged)
    sidecar = json.loads((folder / "unique.json").read_text())
    sidecar = json.loads(json.dumps(sidecar).replace(sidecar["metadata"]["tokenizer"], "0" * 64))
    (folder / "unique.json").write_text(json.dumps(sidecar, sort_keys=True, indent=2) + "\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["unique.json"]["bytes"] = (folder / "unique.json").stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(damaged / "runs" / "small" / "seed-0")
    line = refused(capsys, "run", str(damaged / "small.toml"))
    assert "written with tokenizer 000000000000" in line


def test_results_that_are_not_results(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = damaged / "runs" / "small"
    (run / "report" / "results.json").write_text("{}")
    assert "results.json" in refused(capsys, "report", str(run))


def test_clean_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").mkdir()
    assert "not a run of megasbp" in refused(capsys, "clean", str(tmp_path / "precious"), "--all")
    assert (tmp_path / "precious").exists()


def test_a_full_disk_keeps_finished_stages(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = damaged / "runs" / "small"
    finished = {path: path.read_bytes() for path in run.rglob("manifest.json")}

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(storage, "sync_file", full)
    line = refused(capsys, "run", str(damaged / "small.toml"), "synthesis.temperature=0.9")
    assert "No space left on device" in line
    assert {path: path.read_bytes() for path in finished} == finished
    assert not list(run.rglob("*.partial-*"))
