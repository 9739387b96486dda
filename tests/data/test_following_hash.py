"""The hash of a file that grows: the plain SHA-256 of its bytes, or an error that names the file."""

import hashlib
from pathlib import Path

import pytest

from megasbp.data.following_hash import FollowingHash


def test_a_file_that_grows_has_the_hash_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    pieces = [bytes([number]) * size for number, size in enumerate((1, 300_000, 0, 7, 1 << 18, 63))]
    with FollowingHash(path) as following, open(path, "wb", buffering=0) as file:
        for piece in pieces:
            file.write(piece)
            following.follow(file.tell())
        digest = following.finish(file.tell())
    assert digest == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_a_file_that_nobody_followed_is_hashed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (b"", b"bytes"):
        path.write_bytes(data)
        with FollowingHash(path) as following:
            assert following.finish(len(data)) == hashlib.sha256(data).hexdigest()


def test_a_file_that_is_shorter_than_was_said_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"bytes")
    with FollowingHash(path) as following:
        following.follow(6)
        with pytest.raises(OSError, match="error") as raised:
            following.finish(6)
    assert raised.value.filename == str(path)
