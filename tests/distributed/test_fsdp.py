"""FSDP2 on 2 and 4 ranks against one process, case by case of one launch each."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fsdp_cases import JOB_STEPS, LAYOUTS, build, job_of, step_tensors
from launch import launch
from safetensors.torch import load_file
from steps import GLOBAL_BATCH, assert_runs_agree
from training_world import RaggedSource, read_metrics

from megasbp.parallel.runtime import Runtime
from megasbp.training.checkpoint import load_model, load_tensors
from megasbp.training.checkpoint_files import newest_checkpoint
from megasbp.training.trainer import train
from megasbp.training.validation import validation_loss

RANKS = (2, 4)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The folder of each launch; the run that 4 ranks left unfinished is finished by 2 and by 1."""
    folders = {ranks: tmp_path_factory.mktemp(f"ranks{ranks}") for ranks in (1, *RANKS)}
    launch("fsdp_cases.py", folders[4], folders[2], seconds=200)
    shutil.copytree(folders[4] / "interrupted", folders[1] / "interrupted-before")
    source = RaggedSource(1)
    train(job_of(folders[1] / "interrupted-before", source=source), Runtime.start())
    (folders[1] / "facts.json").write_text(json.dumps({"read": {"interrupted-before": source.read}}))
    train(job_of(folders[1] / "job"), Runtime.start())
    return folders


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, torch.Tensor]]:
    return {name: step_tensors(Runtime.start(), *layout) for name, layout in LAYOUTS.items()}


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "facts.json").read_text())


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.endswith("fp32")])
@pytest.mark.parametrize("ranks", RANKS)
def test_loss_gradients_norm_and_next_parameters_equal_one_process(
    launched: dict[int, Path], alone: dict[str, dict[str, torch.Tensor]], ranks: int, layout: str
) -> None:
    found, expected = load_file(launched[ranks] / f"{layout}.safetensors"), alone[layout]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # The same fp32 products summed in another order: relative to the tensor's largest element.
        scale = float(tensor.abs().max())
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.endswith("bf16")])
@pytest.mark.parametrize("ranks", RANKS)
def test_bf16_on_several_ranks_reduces_in_fp32_and_stays_near_one_process(
    launched: dict[int, Path], alone: dict[str, dict[str, torch.Tensor]], ranks: int, layout: str
) -> None:
    found, expected = load_file(launched[ranks] / f"{layout}.safetensors"), alone[layout]
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        if "gradient" in name and name.startswith("0."):
            # Each rank rounds its own gradients to bf16 (2**-8) before the fp32 sum.
            error = (found[name] - tensor).norm() / tensor.norm()
            assert error < 2**-6, name
    # Products of the same bf16 operands, summed in another order and rounded anew in each layer.
    assert float(found["0.loss"]) == pytest.approx(float(expected["0.loss"]), rel=1e-3)


@pytest.mark.parametrize("ranks", RANKS)
def test_micro_batches_add_no_communication(launched: dict[int, Path], ranks: int) -> None:
    counts = facts(launched[ranks])["communication"]
    modules = 3  # two blocks and the root
    assert counts["2"] == counts["4"]
    assert sorted(counts["2"].values()) == [modules, modules]
    single = facts(launched[ranks])["one micro-batch"]
    # With one micro-batch each block is gathered again for its backward pass; the root is kept.
    assert sorted(single.values()) == [modules, 2 * modules - 1]


@pytest.mark.parametrize("ranks", RANKS)
def test_a_loss_that_is_infinite_on_one_rank_is_skipped_by_all(launched: dict[int, Path], ranks: int) -> None:
    assert facts(launched[ranks])["skipped"] == {"broken": True, "sound": False}


@pytest.mark.parametrize("ranks", RANKS)
def test_a_global_batch_that_the_ranks_cannot_share_is_refused_before_anything_is_written(
    launched: dict[int, Path], ranks: int
) -> None:
    refused = facts(launched[ranks])["refusal"]
    nearest = {2: 16, 4: 16}[ranks]
    assert f"4 x {ranks} ranks; set global_batch to {nearest}" in refused["message"]
    assert not refused["written"]


@pytest.mark.parametrize("ranks", RANKS)
def test_sigterm_to_one_rank_stops_all_at_the_same_step_and_the_run_continues(
    launched: dict[int, Path], ranks: int
) -> None:
    stopped = facts(launched[ranks])["stopped"]
    assert stopped["statuses"] == ranks * (128 + signal.SIGTERM)
    assert 4 <= stopped["step"] < 8  # the loader reads ahead of step 7
    assert stopped["then"] == JOB_STEPS


@pytest.mark.parametrize("ranks", RANKS)
def test_a_sum_of_squares_counts_each_element_once(launched: dict[int, Path], ranks: int) -> None:
    assert facts(launched[ranks])["squares"] == pytest.approx(91 + 30, rel=1e-6)


@pytest.mark.parametrize("ranks", RANKS)
def test_text_reaches_all_ranks(launched: dict[int, Path], ranks: int) -> None:
    assert facts(launched[ranks])["text"] == "größer"


@pytest.mark.parametrize("ranks", RANKS)
def test_validation_equals_one_process_though_rows_do_not_divide(
    launched: dict[int, Path], ranks: int
) -> None:
    model = build(Runtime.start(), True, "fp32")
    expected = validation_loss(model, RaggedSource(2, 7), 2, Runtime.start())
    assert facts(launched[ranks])["validation"] == pytest.approx(expected, rel=1e-6)


CONTINUED = [(4, "job"), (2, "job"), (2, "interrupted-before"), (1, "interrupted-before")]


@pytest.mark.parametrize(("ranks", "folder"), CONTINUED)
def test_a_run_interrupted_at_four_ranks_continues_at_any_number_with_the_same_losses(
    launched: dict[int, Path], ranks: int, folder: str
) -> None:
    found, expected = read_metrics(launched[ranks] / folder), read_metrics(launched[1] / "job")
    assert_runs_agree(found, expected, JOB_STEPS)


@pytest.mark.parametrize(("ranks", "folder"), CONTINUED)
def test_an_interrupted_run_reads_every_sample_once_up_to_its_checkpoint_and_behind_it(
    launched: dict[int, Path], ranks: int, folder: str
) -> None:
    interrupted = facts(launched[ranks if folder == "job" else 4])
    kept = interrupted["interrupted at"] * GLOBAL_BATCH
    before = [sample for sample in interrupted["read"]["until interrupted"] if sample < kept]
    behind = facts(launched[ranks])["read"][folder]
    assert sorted(before + behind) == list(range(JOB_STEPS * GLOBAL_BATCH))


def test_a_checkpoint_of_four_ranks_holds_the_same_bits_for_one_process(launched: dict[int, Path]) -> None:
    checkpoint = newest_checkpoint(launched[4] / "interrupted" / "checkpoints")
    assert checkpoint is not None
    model = load_model(checkpoint)
    assert len(list(checkpoint.glob("*.safetensors"))) == 4
    shards: dict[str, list[np.ndarray]] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            shards.setdefault(name, []).append(tensor.numpy())
    for name, parameter in model.named_parameters():
        assert np.array_equal(np.concatenate(shards[f"model.{name}"]), parameter.detach().numpy()), name
    moment = {name: torch.zeros(sum(map(len, parts))) for name, parts in shards.items() if parts[0].ndim == 1}
    load_tensors(checkpoint, moment)
    assert all(np.array_equal(np.concatenate(shards[name]), tensor) for name, tensor in moment.items())
