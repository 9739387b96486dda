"""Keys and values of the tokens a model has already read, in slots of fixed capacity."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from megasbp.kernels.decode_attention import decode_attention, visible_positions
from megasbp.model.config import ModelConfig


class Cache(Protocol):
    """What `Transformer.decode` needs of a cache."""

    @property
    def nbytes(self) -> int:
        """Memory of keys and values in bytes."""
        ...

    def lanes(self, slots: torch.Tensor, positions: torch.Tensor, valid: torch.Tensor) -> Any:
        """Where `positions` [N, T] of `slots` [N] stand; made once, used by every layer.

        Raises:
            ValueError: a position or slot lies outside the cache (checked on the CPU only: elsewhere looking
                would wait for the device).
        """
        ...

    def attend(
        self, layer: int, lanes: Any, q_NTHE: torch.Tensor, k_NTKE: torch.Tensor, v_NTKE: torch.Tensor
    ) -> torch.Tensor:
        """Keeps the new keys and values of a layer; attends the queries to all that their slots have up to
        their positions. Returns [N, T, H, E]; what is not valid means nothing."""
        ...


class KeyValueCache:
    """Slots of fixed capacity, one document each, for `Transformer.decode`.

    Every element is allocated and finite from the start. A slot need not be cleared before its next document:
    positions are written before they become visible.

    Args:
        config: of the model.
        slots: documents held together.
        capacity: C, positions of each.
        dtype: the model's compute type.

    Raises:
        ValueError: slots or capacity is not positive.
    """

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if slots < 1 or capacity < 1:
            raise ValueError(f"slots is {slots} and capacity is {capacity}; allowed: 1 or more")
        self.slots, self.capacity = slots, capacity
        self._kv_heads, self._group = config.kv_heads, config.heads // config.kv_heads
        self._head_dim, self._dtype = config.head_dim, dtype
        self._all_slots = torch.arange(slots, device=device)
        rows = slots * config.kv_heads * capacity
        # One row more than the slots need: what is not valid is written there and never read.
        shape = (config.layers, rows + 1, config.head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        """Memory of keys and values in bytes."""
        return self._keys.nbytes + self._values.nbytes

    def lanes(self, slots: torch.Tensor, positions: torch.Tensor, valid: torch.Tensor) -> "Lanes":
        """See `Cache`."""
        on_cpu = positions.device.type == "cpu"
        if on_cpu:
            check_range("position", positions, self.capacity)
            check_range("slot", slots, self.slots)
        heads = torch.arange(self._kv_heads, device=positions.device)
        places_NTK = (slots[:, None, None] * self._kv_heads + heads) * self.capacity + positions[..., None]
        scrap = self._keys.shape[1] - 1
        places = torch.where(valid[..., None], places_NTK, scrap).flatten()
        every = on_cpu and len(slots) == self.slots and torch.equal(slots, self._all_slots)
        visible = visible_positions(positions, self.capacity, self._group, self._head_dim, self._dtype)
        return Lanes(places, None if every else slots, visible)

    def attend(
        self, layer: int, lanes: "Lanes", q_NTHE: torch.Tensor, k_NTKE: torch.Tensor, v_NTKE: torch.Tensor
    ) -> torch.Tensor:
        """See `Cache`. On a GPU it runs over the full capacity."""
        keys_NKCE = self._write(self._keys[layer], lanes, k_NTKE)
        values_NKCE = self._write(self._values[layer], lanes, v_NTKE)
        return decode_attention(q_NTHE, keys_NKCE, values_NKCE, lanes.visible)

    def _write(self, rows: torch.Tensor, lanes: "Lanes", x_NTKE: torch.Tensor) -> torch.Tensor:
        rows.index_copy_(0, lanes.places, x_NTKE.flatten(0, 2))
        whole = rows[:-1].view(self.slots, self._kv_heads, self.capacity, -1)
        return whole if lanes.slots is None else whole.index_select(0, lanes.slots)


@dataclass(frozen=True)
class Lanes:
    """Which part of a cache one call works on.

    Attributes:
        places: int64 [N * T * K], row of the cache's memory of each new key.
        slots: int64 [N], or None for all slots in their order.
        visible: of `visible_positions`.
    """

    places: torch.Tensor
    slots: torch.Tensor | None
    visible: torch.Tensor


def check_range(name: str, values: torch.Tensor, size: int) -> None:
    """Raises ValueError where a value lies outside [0, size)."""
    lowest, highest = (int(bound) for bound in torch.aminmax(values))
    if lowest < 0 or highest >= size:
        offending = lowest if lowest < 0 else highest
        raise ValueError(f"{name} {offending} lies outside the cache; allowed: 0 to {size - 1}")
