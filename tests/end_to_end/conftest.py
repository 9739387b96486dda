import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import write_corpus, write_recipe


def megasbp_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "megasbp", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def published(run: Path) -> dict[str, bytes]:
    """What a run's report consists of."""
    files = ("results.json", "table.txt", "report.html")
    return {name: (run / "report" / name).read_bytes() for name in files}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "themes.jsonl"
    write_corpus(path)
    return path


@pytest.fixture(scope="session")
def finished_run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that was run once, uninterrupted: small.toml, runs/small, output.txt."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(folder, corpus)
    done = subprocess.run(
        megasbp_command("run", str(recipe)), env=environment(), capture_output=True, text=True, check=False
    )
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder
