"""The benchmarks of kernels and training compare like with like."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="needs triton: the launches are listed beside the cases")

from benchmarks import kernel_cases
from benchmarks.kernel_cases import CASES, Case
from benchmarks.training_profile import kind
from benchmarks.training_step import TrainingStep, random_batch
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.parallel.runtime import ALONE

RECIPES = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_sides_of_a_kernel_compute_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cases, "VOCABULARY", 512)
    inputs = case.inputs(600, "cpu")
    found, expected = case.ours(*inputs), case.plain(*inputs)
    found, expected = (x if isinstance(x, tuple) else (x,) for x in (found, expected))
    for one, other in zip(found, expected, strict=True):
        # The plain side rounds to bf16 in other places: up to three roundings of 2**-8.
        torch.testing.assert_close(one, other, rtol=3 * 2.0**-8, atol=3 * 2.0**-8)


@pytest.fixture
def recipe() -> Recipe:
    small = ("model.layers=1", "model.width=32", "model.heads=2", "model.kv_heads=1", "model.head_dim=16")
    small += ("model.feed_forward=64", "training.sequence_length=64", "training.precision=fp32")
    return load_recipe(RECIPES / "demo.toml", small)


def test_packed_rows_restart_positions_where_documents_begin(recipe: Recipe) -> None:
    batch = random_batch(recipe, 4, document_tokens=10)
    begins = batch.positions == 0
    assert begins[:, 0].all()
    assert 4 < begins.sum() < 4 * 64 / 2
    steps = batch.positions[:, 1:] - batch.positions[:, :-1]
    assert (steps[~begins[:, 1:]] == 1).all()
    assert torch.equal((batch.segments[:, 1:] != batch.segments[:, :-1]), begins[:, 1:])


def test_a_row_of_one_document_has_one_segment(recipe: Recipe) -> None:
    batch = random_batch(recipe, 2, document_tokens=0)
    assert batch.segments.abs().sum() == 0
    assert torch.equal(batch.positions[1], torch.arange(64, dtype=torch.int32))


def test_a_timed_step_trains(recipe: Recipe) -> None:
    step = TrainingStep(recipe, ALONE)
    before = step.model.output_weight.detach().clone()
    times = step.run(random_batch(recipe, recipe.training.micro_batch, 0))
    assert not torch.equal(step.model.output_weight, before)
    assert times.total == times.gradients + times.update > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", "products"),
        ("pytorch_flash::flash_fwd_kernel<...>", "attention"),
        ("ncclDevKernel_AllGather_RING_LL", "communication"),
        ("at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "update"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("attention_backward_keys", "attention"),
        ("swiglu_backward", "pointwise"),
    ],
)
def test_kernels_are_sorted_by_their_names(name: str, expected: str) -> None:
    assert kind(name) == expected
