"""Arithmetic over a model's shape: parameters and floating-point operations."""

from megasbp.model.config import ModelConfig


def parameter_count(config: ModelConfig, embedding: bool = True) -> int:
    """Parameters of `Transformer(config)`.

    Args:
        embedding: False leaves out the embedding and the output layer.
    """
    table = config.vocabulary_size * config.width
    norms = config.layers * 2 * config.width + config.width
    if config.qk_norm:
        norms += config.layers * 2 * config.head_dim
    tables = (1 if config.tied else 2) * table if embedding else 0
    return config.layers * _block_matrices(config) + norms + tables


def flops_per_token(config: ModelConfig, sequence_length: int, causal: bool) -> float:
    """Floating-point operations of forward and backward pass per token; a multiply-add counts as two.

    Three times the forward pass: 6 for each weight of a matrix product (the output layer counts, tied or not;
    the embedding is a look-up), and 12 * layers * heads * head_dim * sequence_length for attention's two
    products (Narayanan et al., arXiv 2104.04473, appendix). Recomputation, norms and the optimiser are not
    counted; the forward pass alone is a third.

    Args:
        sequence_length: tokens that attention spans.
        causal: True counts the half of the attention matrix that a causal model needs; False the whole of it,
            as Megatron-LM reports. Published figures mix both and differ by 6 to 17%: print both.
    """
    weights = config.layers * _block_matrices(config) + config.vocabulary_size * config.width
    attention = 12.0 * config.layers * config.heads * config.head_dim * sequence_length
    return 6.0 * weights + (attention / 2 if causal else attention)


def _block_matrices(config: ModelConfig) -> int:
    """Weights of a block's matrix products."""
    projections = 2 * (config.heads + config.kv_heads) * config.head_dim * config.width
    return projections + 3 * config.width * config.feed_forward
