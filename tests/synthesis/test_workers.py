import importlib.util
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from synthesis_world import CONFIG, file_hashes, open_seeds, run, tiny_model

from megasbp.errors import InputError
from megasbp.parallel.runtime import Runtime
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.synthesis import workers
from megasbp.synthesis.workers import WorkersWriter
from megasbp.training.checkpoint import checkpoint_tensors, save_checkpoint

# Nearly every document is kept, so that few are needed.
KEEPING = CONFIG.model_copy(
    update={
        "drop_duplicates": False,
        "minimum_tokens": 0,
        "maximum_repeated_share": 1.0,
        "maximum_seed_copy": 1.0,
        "maximum_corpus_copy": 1.0,
        "maximum_held_out_copy": 1.0,
    }
)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return open_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "step-00000001"
    state = {"model": model.config.model_dump(mode="json")}
    save_checkpoint(folder, checkpoint_tensors(model), state, Runtime.start())
    return folder


@pytest.fixture(scope="module")
def streamed(model, seeds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streamed")
    return folder, run(folder, model, seeds)


def run_with_workers(folder, checkpoint, seeds, model, **changed):
    """What workers do, without the time that it takes to start them."""
    return run(folder, model, seeds, writer=WorkersWriter(INLINE, checkpoint, announce=None), **changed)


def test_shards_of_their_own_have_the_bytes_of_the_stream(tmp_path, streamed, checkpoint, seeds, model):
    result = run_with_workers(tmp_path, checkpoint, seeds, model)
    # A shard beyond the last one may have been written in vain.
    assert file_hashes(streamed[0]).items() <= file_hashes(tmp_path).items()
    assert (result.tokens, result.shards, result.drops) == (
        streamed[1].tokens,
        streamed[1].shards,
        streamed[1].drops,
    )


def test_workers_go_on_where_the_stream_stopped(tmp_path, streamed, checkpoint, seeds, model):
    folder = shutil.copytree(streamed[0], tmp_path / "corpus")
    (folder / "synthesis.json").unlink()
    shutil.rmtree(folder / "shards" / "shard-000001")
    run_with_workers(folder, checkpoint, seeds, model)
    assert file_hashes(folder) == file_hashes(streamed[0])


def test_shards_beyond_the_need_are_not_joined(tmp_path, checkpoint, seeds, model):
    more = run_with_workers(tmp_path, checkpoint, seeds, model)
    less = run_with_workers(tmp_path, checkpoint, seeds, model, need_tokens=1)
    assert less.shards == 1 < more.shards


def test_no_shard_is_written_that_is_surely_not_needed(tmp_path, checkpoint, seeds, model, monkeypatch):
    waves = []

    def counting(work, shards, *arguments, **named):
        waves.append(shards)
        return run_shards(work, shards, *arguments, **named)

    monkeypatch.setattr(workers, "run_shards", counting)
    need = 3000
    result = run_with_workers(tmp_path, checkpoint, seeds, model, need_tokens=need, config=KEEPING)
    # A document has at most 24 tokens and two marks.
    assert waves[0] == range(need // (26 * CONFIG.shard_documents))
    assert [wave.start for wave in waves[1:]] == [wave.stop for wave in waves[:-1]]
    assert len(waves) <= 5
    assert waves[-1].stop - result.shards <= 1


def test_a_run_that_drops_nearly_everything_stops(tmp_path, checkpoint, seeds, model):
    config = CONFIG.model_copy(update={"minimum_tokens": 23, "shard_documents": 128})
    with pytest.raises(InputError, match="of 256 documents accepted"):
        run_with_workers(tmp_path, checkpoint, seeds, model, config=config, need_tokens=10**6)


def test_shards_of_another_run_are_refused(tmp_path, checkpoint, seeds, model):
    run_with_workers(tmp_path, checkpoint, seeds, model)
    with pytest.raises(InputError, match=r"shard-000000: .* with seed 5, now 6; use another folder"):
        run_with_workers(tmp_path, checkpoint, seeds, model, seed=6)


def test_two_workers_one_of_them_killed_write_the_bytes_of_the_stream(
    tmp_path, streamed, checkpoint, seeds, model, monkeypatch
):
    # All at once: starting workers is what takes time here.
    monkeypatch.setattr(workers, "likely_shards", lambda store, meter: streamed[1].shards)
    lines = []
    # Rows record the threads, which other tests may have set.
    two = ShardsConfig(workers=2, threads=torch.get_num_threads())
    writer = WorkersWriter(two, checkpoint, announce=lines.append)
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "shards",), daemon=True)
    killer.start()
    run(tmp_path, model, seeds, writer=writer)
    killer.join()
    assert any("its worker was killed (SIGKILL" in line for line in lines)
    assert file_hashes(tmp_path) == file_hashes(streamed[0])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray (pip install .[ray])")
def test_a_ray_cluster_writes_the_bytes_of_the_stream(
    tmp_path, streamed, checkpoint, seeds, model, monkeypatch
):
    # All at once: starting a cluster is what takes time here.
    monkeypatch.setattr(workers, "likely_shards", lambda store, meter: streamed[1].shards)
    config = ShardsConfig(engine="ray", workers=2, threads=torch.get_num_threads())
    run(tmp_path, model, seeds, writer=WorkersWriter(config, checkpoint, announce=None))
    assert file_hashes(tmp_path) == file_hashes(streamed[0])


def kill_a_worker(shards: Path) -> None:
    """Waits until a shard is begun, then kills one of this process's workers."""
    while not any(shards.glob("shard-*.partial-*")):
        time.sleep(0.01)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    victim = next(
        int(child) for child in children if "local_worker" in Path(f"/proc/{child}/cmdline").read_text()
    )
    os.kill(victim, signal.SIGKILL)
