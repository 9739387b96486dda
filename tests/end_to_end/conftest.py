import subprocess
from pathlib import Path

import pytest
from commands import environment, megasbp_command
from small_run import write_corpus, write_recipe


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs of the whole method take a minute alone and several beside other tests."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))
