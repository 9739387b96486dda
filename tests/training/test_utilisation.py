from pathlib import Path

import pytest
import torch
from training_world import SEQUENCE, model_config, read_metrics, training_job

from megasbp.model.flops import flops_per_token
from megasbp.parallel.runtime import Runtime
from megasbp.training.metrics import TIME_FIELDS
from megasbp.training.trainer import train
from megasbp.training.utilisation import Utilisation, peak_tflops


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("Some other device", None),
    ],
)
def test_a_device_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, tflops: float) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_tflops(torch.device("cuda")) == tflops
    assert peak_tflops(torch.device("cpu")) is None


def test_the_share_of_the_peak_is_that_of_all_ranks() -> None:
    config = model_config()
    used = Utilisation(config, SEQUENCE, tflops=2e-6, ranks=4).of(tokens_per_second=10)
    for name, causal in (("mfu_causal", True), ("mfu_full", False)):
        assert used[name] == pytest.approx(flops_per_token(config, SEQUENCE, causal) * 10 / 8e6, abs=5e-5)


def test_every_row_says_what_the_step_used(tmp_path: Path) -> None:
    train(training_job(tmp_path, training={"log_every": 3}, steps=5), Runtime.start())
    rows = read_metrics(tmp_path)
    assert len(rows) == 5
    for row in rows:
        assert set(TIME_FIELDS) <= row.keys()
        assert row["mfu_causal"] is row["mfu_full"] is None
        assert 0 <= row["data_seconds"] < 60
        assert row["peak_memory_bytes"] > 50e6  # torch alone is larger


def test_a_peak_that_is_given_is_taken(tmp_path: Path) -> None:
    train(training_job(tmp_path, training={"peak_tflops": 1e-3}, steps=2), Runtime.start())
    config = model_config()
    ratio = flops_per_token(config, SEQUENCE, causal=False) / flops_per_token(config, SEQUENCE, causal=True)
    for row in read_metrics(tmp_path):
        share = flops_per_token(config, SEQUENCE, causal=True) * row["tokens_per_second"] / 1e9
        assert row["mfu_causal"] == pytest.approx(share, abs=1e-3)
        assert row["mfu_full"] == pytest.approx(ratio * row["mfu_causal"], abs=1e-3)
