"""The section [model] of a recipe."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ModelConfig(BaseModel):
    """Shape of a decoder-only transformer of the Llama family.

    Attributes:
        vocabulary_size: rows of the embedding, special tokens included.
        layers: blocks.
        width: of the residual stream.
        heads: query heads.
        kv_heads: key and value heads; divides `heads`.
        head_dim: of each head; even. heads * head_dim may differ from `width`.
        feed_forward: inner width of the gated feed-forward layer.
        rope_theta: base of the rotary wavelengths.
        norm_epsilon: added to the mean square in every norm.
        qk_norm: normalise queries and keys per head, before they are rotated (Qwen3); without it the model is
            a Llama.
        tied: the output layer is the embedding.
        maximum_positions: longest sequence the model is meant for.
        mup_base_width: the width at which learning rate and weight decay were chosen: they then hold at this
            width too (µP, see `megasbp.model.mup`). None for the standard parametrisation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocabulary_size: int = Field(ge=2)
    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=2)
    feed_forward: int = Field(ge=1)
    rope_theta: float = Field(10_000.0, gt=1, allow_inf_nan=False)
    norm_epsilon: float = Field(1e-6, gt=0, allow_inf_nan=False)
    qk_norm: bool = True
    tied: bool = True
    maximum_positions: int = Field(ge=1)
    mup_base_width: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.heads % self.kv_heads:
            divisors = [divisor for divisor in range(1, self.heads + 1) if self.heads % divisor == 0]
            nearest = min(divisors, key=lambda divisor: (abs(divisor - self.kv_heads), divisor))
            raise ValueError(
                f"model.kv_heads is {self.kv_heads}, which does not divide model.heads {self.heads}; "
                f"the nearest legal value is {nearest}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"model.head_dim is {self.head_dim}, but rotary positions turn pairs of elements; "
                f"the nearest legal value is {self.head_dim + 1}"
            )
        return self
