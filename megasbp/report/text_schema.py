"""The shape of what results.json says of the synthetic text beside its quality."""

from megasbp.report.schema_parts import Count, Finite, Histogram, Interval, Part


class RelationKind(Part):
    """Texts of one kind: an arm's, "true" partners of the seeds, or "unrelated" documents.

    `similarity` is that to the own seed; `rank_1` and `rank_10` are shares of texts whose seed is the most
    similar candidate, or among the ten most similar ones.
    """

    documents: Count
    seeds: Count
    similarity: dict[str, Finite]
    histogram: Histogram
    rank_1: Interval
    rank_10: Interval
    reciprocal_rank: Interval


class Chance(Part):
    """What texts reach that know nothing of their seeds."""

    rank_1: Finite
    rank_10: Finite
    reciprocal_rank: Finite


class Relation(Part):
    """Whether texts show which seed they were written from, among `candidates` documents."""

    embedder: str
    candidates: Count
    chance: Chance
    kinds: dict[str, RelationKind]
