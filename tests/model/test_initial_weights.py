import math

import pytest
import torch
from model_world import small_config

from megasbp.model.init import fill, initial_values, initialize
from megasbp.model.transformer import Transformer


def initialized(seed: int, **changes) -> Transformer:
    model = Transformer(small_config(**changes))
    initialize(model, seed)
    return model


def test_a_part_of_a_parameter_is_made_without_the_whole():
    # Larger than one chunk of `fill`.
    model = initialized(5, vocabulary_size=3001)
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        for first, last in ((0.0, 1.0), (0.3, 0.8), (1.0, 1.0), (0.9, 1.0)):
            part = tuple(slice(int(first * size), int(last * size)) for size in shape)
            found = torch.empty_like(parameter[part], memory_format=torch.contiguous_format)
            fill(found, name, model.config, 5, shape, tuple(piece.start for piece in part))
            assert torch.equal(found, parameter[part]), (name, part)


def test_only_seed_and_name_decide():
    one, same, other = initialized(5), initialized(5), initialized(6)
    deeper = initialized(5, layers=4)
    name = "blocks.1.attention.query.weight"
    assert torch.equal(one.get_parameter(name), same.get_parameter(name))
    assert torch.equal(one.get_parameter(name), deeper.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), other.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), one.get_parameter("blocks.0.attention.query.weight"))


def test_global_random_state_is_neither_used_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    initialized(5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "deviation"),
    [
        ("embedding.weight", math.sqrt(0.4 / 48)),
        ("output.weight", math.sqrt(0.4 / 48)),
        ("blocks.0.attention.value.weight", math.sqrt(0.4 / 48)),
        ("blocks.1.feed_forward.up.weight", math.sqrt(0.4 / 48)),
        # Two branches in each of three layers.
        ("blocks.1.feed_forward.down.weight", math.sqrt(0.4 / 48 / 6)),
        ("blocks.2.attention.output.weight", math.sqrt(0.4 / 48 / 6)),
    ],
)
def test_the_scale_of_each_kind_of_matrix(name, deviation):
    weight = initialized(1, tied=False).get_parameter(name)
    # Five standard errors of a standard deviation from n normal numbers.
    assert weight.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel()))


def test_norms_begin_as_ones():
    norms = [parameter for parameter in initialized(1).parameters() if parameter.dim() == 1]
    assert len(norms) == 3 * 4 + 1
    assert all((norm == 1).all() for norm in norms)


def test_the_first_weights_are_frozen():
    found = initial_values("embedding.weight", torch.arange(4), seed=7, deviation=1.0)
    # A change here means that runs can no longer be repeated from their seed.
    assert found.tolist() == [2.170461893081665, -0.8773009777069092, -0.4518860876560211, -0.479922354221344]
