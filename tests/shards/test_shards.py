import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import shard_work
from shard_checks import all_bytes, go_on_after_kill_9, is_alive, run, wait_until

from megasbp.errors import InputError, ShardError
from megasbp.shards.config import ShardsConfig
from megasbp.shards.lock import folder_lock
from megasbp.shards.publication import shard_folder


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def test_bytes_and_order_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    shards = [5, 0, 3, 1, 1_000_000]
    results = []
    for workers in (1, 2, 3):
        folder = tmp_path / str(workers)
        manifests = run(shard_work.write_numbers, shards, folder, {"size": 9}, workers=workers)
        assert [manifest.settings["shard"] for manifest in manifests] == shards
        assert [manifest.facts for manifest in manifests] == [{"bytes": 32 * 9}] * 5
        results.append((all_bytes(folder), manifests))
    assert results[0] == results[1] == results[2]
    assert len(results[0][0]) == 3 * 5
    assert (tmp_path / "1" / "shard-1000000" / "deeper" / "name.txt").read_text() == "shard 1000000"


def test_what_is_there_is_kept_and_the_rest_is_made(tmp_path: Path, marks: Path) -> None:
    lines: list[str] = []
    for shards in ([1, 2], [0, 1, 2, 3]):
        run(shard_work.mark, shards, tmp_path / "out", paths={"marks": marks}, lines=lines)
    assert sorted(mark.name[0] for mark in marks.iterdir()) == ["0", "1", "2", "3"]
    assert "mark: 2 of 4 shards done before, kept" in lines
    assert lines[-1].startswith("mark: 4/4 shards, ")
    assert lines[-1].endswith(" 0:00:00 left")


def test_shards_that_do_not_last_hold_the_same_files_without_hashes(tmp_path: Path) -> None:
    for lasting in (True, False):
        folder = tmp_path / str(lasting)
        manifests = run(shard_work.write_numbers, [0, 1], folder, {"size": 9}, workers=2, lasting=lasting)
        hashed = [["sha256" in entry for entry in manifest.files.values()] for manifest in manifests]
        assert hashed == [[lasting] * 2] * 2
    files = [
        {name: data for name, data in all_bytes(tmp_path / str(lasting)).items() if "manifest" not in name}
        for lasting in (True, False)
    ]
    assert files[0] == files[1] and len(files[0]) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"size": 3}}, "made with size 2, now 3"),
        ({"inputs": {"corpus": "b"}}, "made with corpus a, now b"),
        ({"work": shard_work.fail_once}, "made with shard_work:write_numbers, now shard_work:fail_once"),
    ],
)
def test_a_shard_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    first = {"work": shard_work.write_numbers, "settings": {"size": 2}, "inputs": {"corpus": "a"}}
    run(shards=[0], folder=tmp_path, **first)
    before = all_bytes(tmp_path)
    with pytest.raises(InputError, match=f"shard-000000: {said}; use another folder, or remove {tmp_path}"):
        run(shards=[1, 0], folder=tmp_path, **(first | change))
    assert all_bytes(tmp_path) == before


def test_a_damaged_shard_is_named_and_not_overwritten(tmp_path: Path) -> None:
    run(shard_work.write_numbers, [0], tmp_path, {"size": 2})
    (tmp_path / "shard-000000" / "data.bin").write_bytes(b"short")
    with pytest.raises(InputError, match="shard-000000: does not hold what .* says; remove that folder"):
        run(shard_work.write_numbers, [0], tmp_path, {"size": 2})
    assert (tmp_path / "shard-000000" / "data.bin").read_bytes() == b"short"


def test_a_run_goes_on_after_kill_9_of_the_main_process(tmp_path: Path, marks: Path) -> None:
    go_on_after_kill_9(tmp_path, marks, "local", seconds=0.1)


def test_a_dead_workers_shard_is_begun_again(tmp_path: Path, marks: Path) -> None:
    lines: list[str] = []
    settings = {"victim": 2, "times": 2}
    run(shard_work.die, range(5), tmp_path / "out", settings, paths={"marks": marks}, lines=lines)
    assert len(list(marks.iterdir())) == 2
    assert (
        "die: shard 2: its worker was killed (SIGKILL; out of memory?); attempt 1 of 3, begun again" in lines
    )
    assert sorted(os.listdir(tmp_path / "out")) == [f"shard-{shard:06d}" for shard in range(5)]
    assert (tmp_path / "out" / "shard-000002" / "data.txt").read_text() == "whole 2"


def test_a_shard_that_always_kills_its_worker_stops_the_run(tmp_path: Path, marks: Path) -> None:
    settings = {"victim": 1, "times": 99}
    with pytest.raises(ShardError, match="shard 1: its worker was killed .* given up after 2 attempts"):
        run(shard_work.die, [0, 1], tmp_path / "out", settings, paths={"marks": marks}, workers=1, attempts=2)
    assert len(list(marks.iterdir())) == 2
    assert os.listdir(tmp_path / "out") == ["shard-000000"]


def test_a_worker_dies_with_its_children(tmp_path: Path, marks: Path) -> None:
    run(shard_work.die_with_a_child, [0], tmp_path / "out", paths={"marks": marks})
    child = int(next(marks.iterdir()).name)
    assert not is_alive(child)


def test_a_mistake_of_the_user_stops_at_once_and_names_the_shard(tmp_path: Path, marks: Path) -> None:
    settings = {"victim": 1, "kind": "mistake"}
    with pytest.raises(InputError, match=r"^shard 1: part-3\.jsonl: line 7 is not JSON$"):
        run(shard_work.fail, range(9), tmp_path / "out", settings, paths={"marks": marks}, workers=1)
    assert len(list(marks.iterdir())) == 2
    assert os.listdir(tmp_path / "out") == ["shard-000000"]


def test_a_full_disk_is_named_and_what_is_published_stays(tmp_path: Path, marks: Path) -> None:
    settings = {"victim": 1, "kind": "full"}
    with pytest.raises(InputError, match=r"shard 1: no space left for .* GB free\); free some and run again"):
        run(shard_work.fail, range(9), tmp_path / "out", settings, paths={"marks": marks}, workers=1)
    assert len(list(marks.iterdir())) == 2
    assert os.listdir(tmp_path / "out") == ["shard-000000"]


@pytest.mark.parametrize(("kind", "said"), [("error", "KeyError: 'column'"), ("exit", "SystemExit: 0")])
def test_a_failing_shard_is_tried_again_and_then_named(
    tmp_path: Path, marks: Path, kind: str, said: str
) -> None:
    settings = {"victim": 1, "kind": kind}
    with pytest.raises(ShardError, match=f"shard 1: {said}; given up after 3 attempts\nTraceback"):
        run(shard_work.fail, range(9), tmp_path / "out", settings, paths={"marks": marks}, workers=1)
    assert sorted(mark.name[0] for mark in marks.iterdir()) == ["0", "1", "1", "1"]


def test_a_passing_failure_is_overcome(tmp_path: Path, marks: Path) -> None:
    lines: list[str] = []
    manifests = run(shard_work.fail_once, range(3), tmp_path / "out", paths={"marks": marks}, lines=lines)
    assert len(manifests) == 3
    assert sum("OSError: the network is away; attempt 1 of 3, begun again" in line for line in lines) == 3


def test_a_shard_computed_twice_is_published_once(tmp_path: Path) -> None:
    manifests = run(shard_work.overtaken, range(2), tmp_path, {"same": True}, paths={"run": tmp_path})
    assert sorted(os.listdir(tmp_path)) == ["shard-000000", "shard-000001"]
    assert [manifest.facts for manifest in manifests] == [{}, {}]


def test_work_that_is_not_a_function_of_its_arguments_is_caught(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"shard 4: data\.txt came out differently when .* computed twice"):
        run(shard_work.overtaken, [4], tmp_path, {"same": False}, paths={"run": tmp_path})
    assert (tmp_path / "shard-000004" / "data.txt").read_text() == "other"


def test_a_worker_of_a_run_that_lost_its_folder_publishes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not held by this run, as .* sees it"):
        run(shard_work.lose_the_folder, [0], tmp_path, paths={"run": tmp_path})
    assert not shard_folder(tmp_path, 0).exists()


def test_the_token_is_on_the_disk_before_anyone_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / ".lock").read_text()))
    with folder_lock(tmp_path) as token:
        assert [text.endswith(f"\n{token}") for text in synced] == [True]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with (
        folder_lock(tmp_path),
        pytest.raises(InputError, match=f"in use by process {os.getpid()} on .*; wait for it or stop it"),
    ):
        run(shard_work.write_numbers, [0], tmp_path, {"size": 1})


def test_threads_gpus_and_paths_reach_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("text")
    paths = {"corpus": Path("corpus.txt"), "parts": [Path("a"), Path("b")]}
    config = {"workers": 1, "threads": 3, "gpus": 2}
    (manifest,) = run(shard_work.show_environment, [0], tmp_path / "out", paths=paths, **config)
    expected = {"threads": "3", "gpus": "5,7", "corpus": "text", "parts": ["a", "b"]}
    assert manifest.facts == expected


def test_tasks_that_share_gpus_get_them_in_turn(tmp_path: Path) -> None:
    from megasbp.shards.local import place_devices

    devices = ["0", "1", "2", "3"]
    assert [place_devices(place, 0.5, devices) for place in range(8)] == [[str(p // 2)] for p in range(8)]
    assert [place_devices(place, 2, devices) for place in range(2)] == [["0", "1"], ["2", "3"]]
    assert place_devices(0, 0, devices) == []


def test_more_than_the_machine_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(
        InputError, match="gpus is 1 for each of 2 workers; this machine shows 1 GPUs, enough for 1"
    ):
        run(shard_work.write_numbers, [0], tmp_path, {"size": 1}, gpus=1)
    with pytest.raises(
        InputError, match="memory_gb is 1e\\+06 for each of 2 workers; .* enough for 0; lower"
    ):
        run(shard_work.write_numbers, [0], tmp_path, {"size": 1}, memory_gb=1e6)


def test_work_that_workers_cannot_import_is_refused(tmp_path: Path) -> None:
    def nested(shard: int, folder: Path) -> None: ...

    with pytest.raises(InputError, match="workers cannot import it; move it to the top level of a module"):
        run(nested, [0], tmp_path)


def test_an_interrupted_run_ends_its_workers(tmp_path: Path, marks: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: len(list(marks.iterdir())) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    # A job that a shell has put into the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run(shard_work.mark, range(2), tmp_path / "out", {"seconds": 60}, paths={"marks": marks})
    finally:
        signal.signal(signal.SIGINT, before)
    workers = {int(mark.name.split("-")[1]) for mark in marks.iterdir()}
    assert not any(is_alive(worker) for worker in workers)
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"address": "auto"}, 'shards.engine is "local"; set engine = "ray"'),
        ({"gpus": 1.5}, "shards.gpus is 1.5; allowed: 0, a part of one GPU, or a whole number"),
        ({"attempts": 0}, "greater than or equal to 1"),
        ({"engine": "slurm"}, "'inline', 'local' or 'ray'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ShardsConfig(**values)


def test_ray_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install '\.\[ray\]'` from a clone or set shards.engine"):
        run(shard_work.write_numbers, [0], tmp_path, {"size": 1}, engine="ray")
