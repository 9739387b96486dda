"""Decode steps of full slots: which documents are in a window of steps, and what the roofline says."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from benchmarks import decoding as subject
from benchmarks.measuring import OURS
from megasbp.model.config import ModelConfig
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer

CONFIG = ModelConfig(
    vocabulary_size=64,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    feed_forward=48,
    rope_theta=10_000.0,
    qk_norm=True,
    tied=False,
    maximum_positions=1024,
)


def test_the_roofline_reads_once_and_then_multiplies(monkeypatch):
    monkeypatch.setattr(subject, "copy_rate", lambda device: 1e6)
    monkeypatch.setattr(subject, "product_rate", lambda device: 1e9)
    roofline = subject.Roofline(CONFIG, torch.device("cpu"))
    # A layer: queries, output 32 x 32; keys, values 32 x 16; three of 32 x 48; norms 32 + 32 + 8 + 8.
    weights = 2 * (2 * 1024 + 2 * 512 + 3 * 1536 + 80) + 32 + 64 * 32
    cached = 2 * 2 * 2 * 8 * 100 * 3
    operations = 2 * weights * 3 + 2 * cached * 2  # Two query heads read each key.
    assert roofline(3, 100) == pytest.approx(3 / (2 * (weights + cached) / 1e6 + operations / 1e9))


@pytest.fixture
def on_a_cpu(monkeypatch):
    """Engines with pages, on a CPU; the number of active slots of every step."""
    active = []

    class Watched(subject.Engine):
        def __init__(self, *given, **settings):
            super().__init__(*given, paged=True, **settings)

        def _launch(self):
            active.append(int(self._decoding.sum()))
            return super()._launch()

    monkeypatch.setattr(subject, "Engine", Watched)
    for name in ("reset_peak_memory_stats", "synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2**29)
    # Nine steps of the engine, as a draw each says.
    events = [
        SimpleNamespace(self_device_time_total=18e3, count=36, key="paged_attention_parts"),
        SimpleNamespace(self_device_time_total=9e3, count=9, key="sample_race"),
    ]
    recorded = SimpleNamespace(key_averages=lambda: events)
    monkeypatch.setattr(subject, "profile", lambda activities: nullcontext(recorded))
    return active


@pytest.mark.parametrize("ahead", [False, True])
def test_a_window_has_the_documents_that_are_counted(ahead, on_a_cpu):
    model = Transformer(CONFIG).eval()
    initialize(model, seed=0)
    ways = {OURS: {"ahead": ahead}}
    measure = subject.decoding(model, lambda rows, context: 1e5, 16, 128, ways)
    side = measure.ours
    assert len(side.values) == 3
    assert all(value > 0 for value in side.values)
    assert side.facts["memory_gib"] == 0.5
    assert side.facts["share"] == pytest.approx(side.median / 1e5)
    assert side.facts["milliseconds"]["attention"] == 2.0
    assert sum(side.facts["milliseconds"].values()) == 3.0
    assert (2.0, 4.0, "paged_attention_parts") in side.facts["kernels"]
    assert measure.target_limit == pytest.approx(0.8e5)
    # The warm-up's steps come first, and one after each mark may still have its document.
    timed = on_a_cpu[-(3 * 32 + 8 + 4) :]
    for rows in (14, 13, 12):
        assert timed.count(rows) == pytest.approx(32, abs=1)


def test_no_memory_is_said(on_a_cpu, monkeypatch):
    def fails(*given):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(subject, "_side", fails)
    model = Transformer(CONFIG)
    assert subject.decoding(model, lambda rows, context: 1.0, 16, 128, {OURS: {}}).ours.missing
