import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import environment, megasbp_command
from filelock import FileLock
from small_run import write_corpus, write_recipe


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session of tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def corpus(common: Path) -> Path:
    path = common / "themes.jsonl"
    with FileLock(common / "themes.lock"):
        if not path.exists():
            write_corpus(path)
    return path


@pytest.fixture(scope="session")
def finished_run(corpus: Path, common: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that was run once, uninterrupted: small.toml, runs/small, output.txt."""
    made = common / "finished"
    # Whoever comes first runs it, a minute alone, three where each worker makes its own; each has a copy.
    with FileLock(common / "finished.lock"):
        if not (made / "output.txt").exists():
            _run_once(made, corpus)
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    write_recipe(folder, corpus)
    return folder


def _run_once(folder: Path, corpus: Path) -> None:
    """Runs the recipe in a folder, from which a failed run is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    recipe = write_recipe(folder, corpus)
    done = subprocess.run(
        megasbp_command("run", str(recipe)), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "output.txt").write_text(done.stdout + done.stderr)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs of the whole method take a minute alone and several beside other tests."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))
