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


class TopicSet(Part):
    """A set of documents beside the unique text; `divergence` is Jensen and Shannon's, in bits."""

    documents: Count
    divergence: Finite
    lost: Count
    over_represented: Count


class NullDivergence(Part):
    """The divergence of two samples of the unique text."""

    mean: Finite
    p95: Finite


class Topic(Part):
    """A topic by its most typical document, and its share in the unique text and in each set."""

    example: str
    shares: dict[str, Finite]


class TopicShift(Part):
    """How far the topics of sets lie from those of the unique text, at samples of `size` documents."""

    topics: Count
    size: Count
    null: NullDivergence
    sets: dict[str, TopicSet]
    most_shifted: list[Topic]


class TestText(Part):
    """Text that models are tested on; `shares` of the unique text's and arms' documents have a shingle of it.

    `short` documents have no shingle: they cannot be found. Nor can a benchmark's `unreadable` rows.
    """

    documents: Count
    short: Count
    unreadable: Count = 0
    shares: dict[str, Finite | None]


class Contamination(Part):
    """What is shared with tests.

    Attributes:
        before_filters: of all that an arm's writer wrote, with held-out text and not with the unique text.
        measured: documents of the unique text and of each arm, where not all were measured.
    """

    tests: dict[str, TestText]
    before_filters: dict[str, Finite]
    measured: dict[str, Count] | None = None


class JudgedRate(Interval):
    """The share of yes among the readable answers on `documents` texts, with Wilson's interval."""

    documents: Count
    unparsable: Count


class JudgedQuestion(Part):
    """A question, named by the hash of its prompt, and the rates of "real" text and of arms."""

    prompt_hash: str
    rates: dict[str, JudgedRate]


class Judge(Part):
    """Who judged, how many documents of each text, and what came of it."""

    kind: str
    name: str
    versions: list[str]
    documents: Count
    seed: int
    maximum_characters: Count
    temperature: Finite
    questions: dict[str, JudgedQuestion]
