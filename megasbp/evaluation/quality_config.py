"""The recipe's [quality] section."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class QualityConfig(BaseModel):
    """What is measured on the synthetic text, beside what needs no setting.

    Attributes:
        documents: of each arm, the first so many accepted documents are embedded, for the relation to their
            seeds and the shift of topics.
        candidates: documents among which a text has to find its seed, the seed among them.
        topics: groups into which k-means divides the unique text; fewer where it has not ten documents for
            each.
        duplicate_sizes: near-duplicates are counted among the first so many accepted documents of each arm,
            where it has them, and among as many real ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int = Field(2000, ge=2)
    candidates: int = Field(1000, ge=2)
    topics: int = Field(64, ge=2)
    duplicate_sizes: tuple[PositiveInt, ...] = Field((1_000, 10_000, 100_000, 1_000_000), min_length=1)

    def content(self) -> dict[str, Any]:
        """The settings other than the defaults, JSON-serialisable: a new setting changes no old hash."""
        return self.model_dump(mode="json", exclude_defaults=True)
