"""What the parts of results.json are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A part of the results. Keys that the report does not draw may stand beside those it does."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Histogram(Part):
    """Counts between n + 1 edges."""

    edges: list[Finite]
    counts: list[Count]


class Interval(Part):
    """An estimate with the bounds of its interval; null where there is none."""

    estimate: Finite | None
    low: Finite | None = None
    high: Finite | None = None
    level: Finite = 0.95
    label: str = ""
