"""The model that writes computes what the trained one does, from weights of half the size."""

import copy

import pytest
import torch
from synthesis_world import CONTEXT, VOCABULARY, tiny_model

from megasbp.model.cache import KeyValueCache
from megasbp.parallel.runtime import Runtime
from megasbp.synthesis.generator import load_generator, narrow_weights
from megasbp.training.checkpoint import checkpoint_tensors, save_checkpoint


def states_and_logits(model):
    tokens = torch.randint(VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))
    places = torch.arange(9).expand(3, -1)
    cache = KeyValueCache(model.config, 3, CONTEXT, model.compute_dtype)
    hidden = model.decode(tokens, places, cache, torch.arange(3), torch.ones(3, 9, dtype=torch.bool))
    with torch.no_grad():
        return hidden, model.logits(hidden)


def test_narrow_weights_change_no_bit():
    model = tiny_model()
    model.compute_dtype = torch.bfloat16
    narrow = copy.deepcopy(model)
    narrow_weights(narrow, torch.bfloat16)
    assert narrow.embedding.weight.dtype == torch.bfloat16
    assert narrow.norm.weight.dtype == torch.float32
    for one, other in zip(states_and_logits(narrow), states_and_logits(model), strict=True):
        assert torch.equal(one, other)


def test_logits_are_the_same_with_and_without_gradients():
    model = tiny_model()
    hidden, logits = states_and_logits(model)
    torch.testing.assert_close(model.logits(hidden).detach(), logits, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "step-00000001"
    model = tiny_model()
    state = {"model": model.config.model_dump(mode="json")}
    save_checkpoint(folder, checkpoint_tensors(model), state, Runtime.start())
    return folder


@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_cpu_writes_in_fp32_unless_it_is_told_otherwise(checkpoint, precision, dtype):
    model = load_generator(checkpoint, "cpu", precision)
    assert model.compute_dtype == dtype
    assert model.output_weight.dtype == dtype
