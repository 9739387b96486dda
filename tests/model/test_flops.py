import pytest
from model_world import small_config

from megasbp.model.config import ModelConfig
from megasbp.model.flops import flops_per_token, parameter_count
from megasbp.model.transformer import Transformer


def shape_of_3b(**changes) -> ModelConfig:
    """26 layers of width 3072, 24 query and 8 key-value heads of 128."""
    return ModelConfig(
        **{
            "vocabulary_size": 65_536,
            "layers": 26,
            "width": 3072,
            "heads": 24,
            "kv_heads": 8,
            "head_dim": 128,
            "feed_forward": 8192,
            "qk_norm": False,
            "tied": False,
            "maximum_positions": 4096,
            **changes,
        }
    )


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"qk_norm": False}, {"kv_heads": 6, "layers": 1}])
def test_parameters_are_those_of_the_module(changes):
    config = small_config(**changes)
    sizes = {name: parameter.numel() for name, parameter in Transformer(config).named_parameters()}
    assert parameter_count(config) == sum(sizes.values())
    inner = sum(size for name, size in sizes.items() if name not in ("embedding.weight", "output.weight"))
    assert parameter_count(config, embedding=False) == inner


def test_the_3b_shape_has_its_parameters():
    assert parameter_count(shape_of_3b()) == pytest.approx(3.02e9, rel=1e-3)


def test_the_3b_shape_has_its_operations_in_both_conventions():
    # 6 x 2.8186e9 weights of matrix products, and 12 x 26 x 3072 x 4096 for attention, whole or half.
    assert flops_per_token(shape_of_3b(), 4096, causal=False) == pytest.approx(20.84e9, abs=5e6)
    assert flops_per_token(shape_of_3b(), 4096, causal=True) == pytest.approx(18.87e9, abs=5e6)


def test_a_tied_output_layer_counts_as_a_product():
    assert flops_per_token(shape_of_3b(tied=True), 4096, True) == flops_per_token(shape_of_3b(), 4096, True)
