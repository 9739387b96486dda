"""Cores and memory within a container's limits."""

import os
from pathlib import Path

import pytest

from megasbp.shards import machine


@pytest.mark.parametrize(("text", "limited"), [("2000000\n", True), ("max\n", False), (f"{2**63}\n", False)])
def test_the_control_groups_memory_limit_counts_where_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limited: bool
) -> None:
    (tmp_path / "memory.max").write_text(text)
    monkeypatch.setattr(machine, "_MEMORY_LIMITS", (tmp_path / "memory.max", tmp_path / "missing"))
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.usable_memory() == (2_000_000 if limited else whole)


@pytest.mark.parametrize(
    ("texts", "cores"),
    [
        (("150000 100000\n",), 2),
        (("max 100000\n",), 8),
        (("10000 100000\n",), 1),
        (("300000\n", "100000\n"), 3),
        (("-1\n", "100000\n"), 8),
        ((), 8),
    ],
)
def test_cores_are_those_of_the_affinity_and_of_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...], cores: int
) -> None:
    files = tuple(tmp_path / str(number) for number in range(len(texts)))
    for path, text in zip(files, texts, strict=True):
        path.write_text(text)
    monkeypatch.setattr(machine, "_CPU_LIMITS", (files,))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert machine.usable_cores() == cores
