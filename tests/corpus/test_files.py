"""Which files a folder stands for."""

import os
from pathlib import Path

import pytest

from megasbp.corpus.files import corpus_files
from megasbp.errors import InputError


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "corpus", tmp_path / "other disk"
    (folder / "inside").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (folder / "a.txt", folder / "inside" / "b.txt", elsewhere / "c.txt"):
        path.write_text("text")
    (folder / "link").symlink_to(elsewhere)
    (folder / "inside" / "back").symlink_to(folder)
    found = [path.relative_to(folder).as_posix() for path in corpus_files([folder])]
    assert found == ["a.txt", "inside/b.txt", "link/c.txt"]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt")
    try:
        with open(path, "w") as file:
            file.write("text")
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    (tmp_path / "caf\u00e9.txt").write_text("text")
    with pytest.raises(InputError, match=r"caf\\udce9\.txt': the file's name is not UTF-8; rename it"):
        corpus_files([tmp_path])
