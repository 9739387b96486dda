"""The section [pairing] of a recipe."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SearchConfig(BaseModel):
    """How neighbours are searched for.

    Attributes:
        engine: "exact" compares all rows with all; "partitioned" only with rows of near partitions, on disk;
            "faiss_ivf" is faiss' inverted file, in memory; "auto" is exact where that takes a minute or so on
            two cores, else partitioned.
        recall: share of the true neighbours to be found, on a sample; a row that ties with the last true one
            counts.
        recall_sample: queries that the settings are chosen on, and as many others on which the recall that
            every run prints is measured.
        partitions: about the square root of the rows by default, or fewer.
        store: nearest partitions that a row is stored in; chosen on the sample by default.
        probe: nearest partitions that a query asks; chosen on the sample by default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["auto", "exact", "partitioned", "faiss_ivf"] = "auto"
    recall: float = Field(0.97, gt=0, lt=1)
    recall_sample: int = Field(1024, ge=1)
    partitions: int | None = Field(None, ge=1)
    store: int | None = Field(None, ge=1)
    probe: int | None = Field(None, ge=1)


class PairingConfig(BaseModel):
    """How related documents are found and which pairs are kept.

    Similarities of different embedders are not comparable: the band belongs to the embedder.

    Attributes:
        embedder: "minilm" (MiniLM-L6 from a Python package, offline), "tfidf", "checkpoint" (the run's own
            baseline), or any sentence-transformers model by name or folder, e.g. "Qwen/Qwen3-Embedding-0.6B".
        search: how the nearest neighbours are searched for.
        neighbours: nearest neighbours looked at per query document.
        minimum_similarity: lower bound of the band (the paper's alpha), inclusive. Too low is noise.
        maximum_similarity: upper bound of the band, inclusive. Too high is copies.
        maximum_jaccard: a pair that shares more than this share of its token shingles is a near-duplicate.
        shingle_width: tokens in a shingle.
        maximum_per_seed: pairs in which one document is the seed.
        maximum_per_target: pairs in which one document is the target; keeps hubs from dominating.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedder: str = Field("minilm", min_length=1)
    search: SearchConfig = SearchConfig()
    neighbours: int = Field(20, ge=1)
    minimum_similarity: float = Field(0.45, ge=-1, le=1)
    maximum_similarity: float = Field(0.95, ge=-1, le=1)
    maximum_jaccard: float = Field(0.2, ge=0, le=1)
    shingle_width: int = Field(13, ge=1)
    maximum_per_seed: int = Field(8, ge=1)
    maximum_per_target: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> Self:
        if self.minimum_similarity > self.maximum_similarity:
            raise ValueError(
                f"minimum_similarity {self.minimum_similarity} lies above maximum_similarity "
                f"{self.maximum_similarity}; swap them or lower minimum_similarity"
            )
        return self
