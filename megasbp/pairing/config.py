"""The section [pairing] of a recipe."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from megasbp.errors import InputError

PairSourceName = Literal["neighbours", "list", "links", "random", "continuation"]
_FROM_FILE = ("list", "links")
# Setting -> the sources that it is for. Another source refuses it, because it would change nothing there.
_SETTINGS_OF: dict[str, tuple[PairSourceName, ...]] = {
    "path": ("list", "links"),
    "maximum_unknown_share": ("list", "links"),
    "both_ways": ("links",),
    "random_pairs": ("random",),
}
# What only the search for neighbours reads. Not refused elsewhere: a recipe keeps its band while a source is
# tried on the command line.
_OF_NEIGHBOURS = ("search", "neighbours", "minimum_similarity", "maximum_similarity")


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

    Similarities of different embedders are not comparable: the band belongs to the embedder. Near-duplicates
    and caps hold for every source; the band and `neighbours` are for the source "neighbours" alone.

    Attributes:
        source: where the pairs come from: "neighbours" (nearest by embedding), "list" (a file of pairs),
            "links" (a file of edges between documents), "random" (uniform pairs, a control) or
            "continuation" (the beginning of a document and what follows it).
        path: file of the list or of the links: see `megasbp.pairing.edges`.
        maximum_unknown_share: more rows of that file than this share with an id that no document of the
            corpus has stop the run.
        both_ways: a link is a pair in both directions.
        random_pairs: random pairs drawn for tuning, before near-duplicates and caps.
        embedder: "minilm" (MiniLM-L6 from a Python package, offline), "tfidf", "checkpoint" (the run's own
            baseline), or any sentence-transformers model by name or folder, e.g. "Qwen/Qwen3-Embedding-0.6B".
            Sources other than "neighbours" only measure the similarity of their pairs with it; "none" spares
            them that.
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

    source: PairSourceName = "neighbours"
    path: Path | None = None
    maximum_unknown_share: float = Field(0.05, ge=0, le=1)
    both_ways: bool = False
    random_pairs: int | None = Field(None, ge=2)
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

    @model_validator(mode="after")
    def _settings_fit_the_source(self) -> Self:
        for name, sources in _SETTINGS_OF.items():
            changed = getattr(self, name) != type(self).model_fields[name].default
            if changed and self.source not in sources:
                raise ValueError(
                    f"{name} is for source {' and '.join(map(repr, sources))}, this one is {self.source!r}; "
                    f"leave {name} out or set source"
                )
        if self.source in _FROM_FILE and self.path is None:
            raise ValueError(f"source {self.source!r} needs path, the file of pairs; set path")
        if self.source == "random" and self.random_pairs is None:
            raise ValueError("source 'random' needs random_pairs, how many pairs to draw; set it")
        if self.source == "neighbours" and self.embedder == "none":
            raise ValueError("source 'neighbours' needs an embedder; set one or another source")
        return self

    def file(self) -> Path | None:
        """The file that the source reads, if it reads one.

        Raises:
            InputError: it is missing.
        """
        if self.path is not None and not self.path.is_file():
            raise InputError(f"{self.path}: no such file; correct pairing.path")
        return self.path

    def deciding(self) -> dict[str, Any]:
        """The settings that the pairs of this source depend on, JSON-serialisable; not where a file lies."""
        left_out = {name for name, sources in _SETTINGS_OF.items() if self.source not in sources} | {"path"}
        if self.source == "neighbours":
            left_out.add("source")
        else:
            left_out.update(_OF_NEIGHBOURS)
        return self.model_dump(mode="json", exclude=left_out)
