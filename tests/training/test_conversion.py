"""Checkpoints to and from Hugging Face folders."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_checkpoint import write_checkpoint
from training_world import model_config, training_job

from megasbp.errors import InputError
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.training.checkpoint import checkpoint_tensors, load_model, save_checkpoint
from megasbp.training.checkpoint_files import require_whole
from megasbp.training.conversion import export_checkpoint, import_checkpoint
from megasbp.training.trainer import train

ROOT = Path(__file__).resolve().parent.parent.parent
SHARD_BYTES = 20_000_000


def assert_equal_models(found: Transformer, expected: Transformer) -> None:
    assert found.config == expected.config
    for (name, ours), theirs in zip(found.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("shard_bytes", [1_000, 10_000, 10**9])
def test_out_and_in_again_changes_nothing_whatever_the_shards(tmp_path: Path, shard_bytes: int) -> None:
    checkpoint = write_checkpoint(tmp_path, 3, seed=7)
    export_checkpoint(checkpoint, tmp_path / "theirs", shard_bytes=shard_bytes)
    import_checkpoint(tmp_path / "theirs", tmp_path / "again")
    assert_equal_models(load_model(tmp_path / "again"), load_model(checkpoint))


def test_a_run_starts_from_an_imported_model(tmp_path: Path) -> None:
    first = train(training_job(tmp_path / "first", steps=2), Runtime.start())
    export_checkpoint(first.last_checkpoint, tmp_path / "theirs")
    import_checkpoint(tmp_path / "theirs", tmp_path / "imported")
    losses = []
    for number, start in enumerate((first.last_checkpoint, tmp_path / "imported")):
        job = training_job(tmp_path / f"second-{number}", steps=3, initial_checkpoint=start)
        losses.append(train(job, Runtime.start()).history)
    assert losses[0] == losses[1]


def test_a_damaged_checkpoint_is_not_exported(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 3)
    (path,) = checkpoint.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(InputError, match="has other bytes"):
        export_checkpoint(checkpoint, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_an_import_that_is_refused_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, 3)
    export_checkpoint(checkpoint, tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        import_checkpoint(tmp_path / "theirs", checkpoint)
    require_whole(checkpoint)


def large_checkpoint(folder: Path) -> int:
    """Writes a checkpoint of weights only; returns its bytes, a sixteenth of which are one tensor."""
    config = model_config(
        vocabulary_size=8192, layers=20, width=512, heads=8, kv_heads=8, head_dim=64, feed_forward=1408
    )
    model = Transformer(config)
    for number, parameter in enumerate(model.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(number))
    tensors = checkpoint_tensors(model)
    save_checkpoint(folder, tensors, {"model": config.model_dump(mode="json")}, Runtime.start())
    return sum(tensor.nbytes for tensor in tensors.values())


@pytest.mark.slow
def test_memory_is_that_of_shards_not_of_the_model(tmp_path: Path) -> None:
    size = large_checkpoint(tmp_path / "checkpoint")
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "one-file")
    ended = subprocess.run(
        [sys.executable, "conversion_memory.py", tmp_path / "checkpoint", tmp_path, str(SHARD_BYTES)],
        cwd=Path(__file__).resolve().parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    grown = json.loads(ended.stdout)
    assert size > 12 * SHARD_BYTES
    # A tensor in the mapped file; a shard, and the parts of the mapped file that were read into it.
    assert grown["import"] < 2 * SHARD_BYTES
    assert grown["export"] < 3 * SHARD_BYTES
    files = list((tmp_path / "exported").glob("*.safetensors"))
    assert len(files) >= size // SHARD_BYTES
    assert max(path.stat().st_size for path in files) < 1.01 * SHARD_BYTES
    exported = {name: tensor for path in files for name, tensor in load_file(path).items()}
    for name, tensor in load_file(tmp_path / "one-file" / "model.safetensors").items():
        assert torch.equal(exported[name], tensor), name
    assert_equal_models(load_model(tmp_path / "back"), load_model(tmp_path / "checkpoint"))


@pytest.fixture
def convert() -> Callable[..., int]:
    """The tool's main function, of any arguments."""
    path = ROOT / "tools" / "convert_checkpoint.py"
    specification = importlib.util.spec_from_file_location("convert_checkpoint", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


def test_the_tool_converts_both_ways(tmp_path: Path, convert: Callable[..., int]) -> None:
    checkpoint = write_checkpoint(tmp_path, 3, seed=2)
    assert convert("export", checkpoint, tmp_path / "theirs", "--shard-gb", 1e-5) == 0
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    assert convert("import", tmp_path / "theirs", tmp_path / "again") == 0
    assert_equal_models(load_model(tmp_path / "again"), load_model(checkpoint))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "{0}/nowhere", "{0}/out"], "nowhere: missing checkpoint"),
        (["import", "{0}/nowhere", "{0}/out"], "config.json: no such file"),
        (["export", "{0}/nowhere", "{0}/out", "--shard-gb", "0"], "--shard-gb is 0, must be above 0"),
    ],
)
def test_the_tool_says_in_one_line_what_is_wrong(
    tmp_path: Path,
    convert: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert convert(*(argument.format(tmp_path) for argument in arguments)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
