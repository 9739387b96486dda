"""The transformer: Llama blocks, optionally with QK-norm. Knows nothing of ranks, meshes or collectives.

Shapes: B batch, S sequence, D width, H query heads, K key-value heads, E head dimension, V vocabulary;
in decoding N lanes, T tokens of each, C capacity of a cache.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from megasbp.kernels.attention import Segments, attention, prepare_segments
from megasbp.kernels.linear_cross_entropy import linear_cross_entropy
from megasbp.kernels.products import wide_product
from megasbp.kernels.qk_norm_rope import qk_norm_rope
from megasbp.kernels.rope import rotate, rotation_table
from megasbp.kernels.swiglu import swiglu
from megasbp.model.cache import Cache
from megasbp.model.config import ModelConfig
from megasbp.model.layers import Embedding, Linear, RMSNorm
from megasbp.model.mup import output_multiplier

IGNORED_LABEL = -100
# Of queries, keys, values and segments.
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Segments | None], torch.Tensor]
# Of hidden states, the output layer's weight, labels, the label of tokens without a loss, the reduction, and
# the weight of the z-loss.
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, Literal["sum", "none"], float], torch.Tensor]


class Attention(nn.Module):
    """Grouped-query attention with rotary positions.

    Attributes:
        attend: as `attention`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.query = Linear(config.width, config.heads * config.head_dim)
        self.key = Linear(config.width, config.kv_heads * config.head_dim)
        self.value = Linear(config.width, config.kv_heads * config.head_dim)
        self.output = Linear(config.heads * config.head_dim, config.width)
        self.query_norm = RMSNorm(config.head_dim, config.norm_epsilon) if config.qk_norm else None
        self.key_norm = RMSNorm(config.head_dim, config.norm_epsilon) if config.qk_norm else None
        self.attend: Attend = attention

    def forward(self, x_BSD: torch.Tensor, rotation: torch.Tensor, segments: Segments | None) -> torch.Tensor:
        q_BSHE, k_BSKE, v_BSKE = self._project(x_BSD, rotation)
        return self.output(self.attend(q_BSHE, k_BSKE, v_BSKE, segments).flatten(2))

    def decode(
        self,
        x_NTD: torch.Tensor,
        rotation: torch.Tensor,
        cache: Cache,
        layer: int,
        lanes: Any,
    ) -> torch.Tensor:
        return self.output(cache.attend(layer, lanes, *self._project(x_NTD, rotation)).flatten(2))

    def _project(
        self, x_BSD: torch.Tensor, rotation: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        heads = (-1, self.head_dim)
        q_BSHE = self.query(x_BSD).unflatten(-1, heads)
        k_BSKE = self.key(x_BSD).unflatten(-1, heads)
        v_BSKE = self.value(x_BSD).unflatten(-1, heads)
        if self.query_norm is None or self.key_norm is None:
            return *rotate(q_BSHE, k_BSKE, rotation), v_BSKE
        factors = self.query_norm.factors, self.key_norm.factors
        return *qk_norm_rope(q_BSHE, k_BSKE, *factors, rotation, self.query_norm.epsilon), v_BSKE


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.width, config.feed_forward)
        self.up = Linear(config.width, config.feed_forward)
        self.down = Linear(config.feed_forward, config.width)

    def forward(self, x_BSD: torch.Tensor) -> torch.Tensor:
        return self.down(swiglu(self.gate(x_BSD), self.up(x_BSD)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_epsilon)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BSD: torch.Tensor, rotation: torch.Tensor, segments: Segments | None) -> torch.Tensor:
        attended = self.attention(self.attention_norm(x_BSD), rotation, segments)
        x_BSD, normalised = self.feed_forward_norm.after_sum(attended, x_BSD)
        return x_BSD + self.feed_forward(normalised)

    def decode(
        self,
        x_NTD: torch.Tensor,
        rotation: torch.Tensor,
        cache: Cache,
        layer: int,
        lanes: Any,
    ) -> torch.Tensor:
        attended = self.attention.decode(self.attention_norm(x_NTD), rotation, cache, layer, lanes)
        x_NTD, normalised = self.feed_forward_norm.after_sum(attended, x_NTD)
        return x_NTD + self.feed_forward(normalised)


class Transformer(nn.Module):
    """A decoder-only language model. Its weights are unset until `initialize` or a checkpoint fills them.

    Attributes:
        blocks: by their number in the model, as text.
        compute_dtype: torch.float32, or torch.bfloat16. Parameters stay fp32; activations and the casts of
            the weights have this type; norms, softmax and logits are fp32 inside.
        loss: as `linear_cross_entropy`.
        z_loss: weight of the squared logarithm of the softmax's sum, in a loss that has gradients.
        wide_product: as `products.wide_product`, of logits without gradients.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        self.embedding = Embedding(config.vocabulary_size, config.width)
        self.blocks = nn.ModuleDict({str(layer): Block(config) for layer in range(config.layers)})
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        self.output = None if config.tied else Linear(config.width, config.vocabulary_size)
        self.loss: Loss = linear_cross_entropy
        self.z_loss = 0.0
        self.wide_product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = wide_product

    @property
    def output_weight(self) -> torch.Tensor:
        """[V, D], of the output layer: the embedding's when tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    def forward(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        reduction: Literal["sum", "none"] = "sum",
    ) -> torch.Tensor:
        """The loss, or without labels the logits.

        Args:
            tokens: int32 or int64 [B, S]; so are the others.
            positions: [B, S], restarting at each segment.
            segments: [B, S]: tokens see the tokens before them in their own run of equal numbers. None:
                a row is one segment.
            labels: [B, S], the token to be predicted at each place, -100 where there is no loss.
            reduction: of the loss: "sum" over the labelled tokens, or "none".

        Returns:
            fp32: nats, a scalar or [B, S] with zeros where there is no label; or logits [B, S, V].
        """
        hidden = self.hidden(tokens, positions, segments)
        if labels is None:
            return self.logits(hidden)
        return self.nats(hidden, labels, reduction)

    def nats(
        self, hidden: torch.Tensor, labels: torch.Tensor, reduction: Literal["sum", "none"]
    ) -> torch.Tensor:
        """The loss of what the output layer reads; as of `forward`. What is only measured has no z-loss."""
        z_loss = self.z_loss if torch.is_grad_enabled() else 0.0
        return self.loss(hidden, self.output_weight, labels, IGNORED_LABEL, reduction, z_loss)

    def hidden(
        self, tokens: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the output layer reads, `compute_dtype` [B, S, D]; arguments as of `forward`."""
        x_BSD = self.embedding(tokens, self.compute_dtype)
        return self.finish(self.through_blocks(x_BSD, positions, segments))

    def through_blocks(
        self, x_BSD: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor | None
    ) -> torch.Tensor:
        """The residual stream, `compute_dtype` [B, S, D], behind the blocks."""
        rotation = rotation_table(positions, self.config.head_dim, self.config.rope_theta)
        prepared = None if segments is None else prepare_segments(segments)
        for block in self.blocks.values():
            x_BSD = block(x_BSD, rotation, prepared)
        return x_BSD

    def finish(self, x_BSD: torch.Tensor) -> torch.Tensor:
        """What the output layer reads, of the residual stream behind the last block."""
        states = self.norm(x_BSD)
        multiplier = output_multiplier(self.config)
        return states if multiplier == 1 else states * multiplier

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """fp32 [..., V] of states [..., D]: products of values of the states' type, summed in fp32."""
        weight = self.output_weight.to(hidden.dtype)
        if torch.is_grad_enabled():
            return functional.linear(hidden.to(torch.float32), weight.to(torch.float32))
        # A GPU reads half the bytes.
        return self.wide_product(hidden.flatten(0, -2), weight.t()).unflatten(0, hidden.shape[:-1])

    @torch.no_grad()
    def decode(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        cache: Cache,
        slots: torch.Tensor,
        valid: torch.Tensor,
    ) -> torch.Tensor:
        """Reads T new tokens of each of N documents and keeps their keys and values.

        Args:
            tokens, positions: int64 [N, T]; every position before a valid one was written earlier or is
                written by this call.
            cache: of this model and type; written at [slot, position].
            slots: int64 [N], different slots.
            valid: bool [N, T]; what is not valid is padding: nothing is written and its state means nothing.

        Returns:
            What the output layer reads, `compute_dtype` [N, T, D]. At one (N, T, capacity), N * T a multiple
            of 8, a row's bits depend neither on the other rows nor on its place.

        Raises:
            ValueError: a slot or position lies outside the cache.
        """
        lanes = cache.lanes(slots, positions, valid)
        rotation = rotation_table(positions, self.config.head_dim, self.config.rope_theta)
        x_NTD = self.embedding(tokens, self.compute_dtype)
        for layer, block in enumerate(self.blocks.values()):
            assert isinstance(block, Block)
            x_NTD = block.decode(x_NTD, rotation, cache, layer, lanes)
        return self.finish(x_NTD)
