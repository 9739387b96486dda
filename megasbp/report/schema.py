"""The shape of results.json: what the report reads and refuses; explained in docs/results-schema.md."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from megasbp.errors import InputError
from megasbp.report.schema_parts import Count, Finite, Histogram, Interval, Part
from megasbp.report.schema_tasks import Domain, Downstream
from megasbp.report.text_schema import Contamination, Judge, Relation, TopicShift
from megasbp.storage import read_json

SCHEMA_VERSION = 2


class Source(Part):
    """Where the text comes from; printed in the page's footer."""

    name: str
    licence: str = ""
    url: str = ""


class Split(Part):
    """Size of one split; tokens include the separators of documents."""

    documents: Count
    tokens: Count
    bytes: Count


class Corpus(Part):
    """Splits, bad documents by reason, near-duplicates beyond the first of each cluster, the vocabulary.

    `unit` is what is paired: "document" or "passage".
    """

    splits: dict[str, Split]
    quarantine: dict[str, Count] = {}
    near_duplicates: Count | None = None
    vocabulary_size: Count
    unit: str = "document"


class Pairing(Part):
    """The pair table that the synthesizer is tuned on.

    `reading` counts the rows of the source's file by what became of them; `without` says which held-out
    tables the source has no pairs for. "Before the caps": of every candidate that only the caps could drop.
    """

    source: str = "neighbours"
    embedder: str
    pairs: Count
    drops: dict[str, Count] = {}
    reading: dict[str, Count] = {}
    without: dict[str, str] = {}
    similarity_histogram: Histogram | None = None
    hubness: dict[str, Any] = {}
    hubness_before_caps: dict[str, Any] = {}
    in_degree: Histogram | None = None
    in_degree_before_caps: Histogram | None = None


class Trial(Part):
    """One setting of a grid and the validation loss it reached, in nats per token; null: it diverged."""

    learning_rate: Finite
    weight_decay: Finite | None = None
    budget_share: Finite = 1.0
    validation_loss: Finite | None


class Setting(Part):
    """The chosen setting of a grid."""

    learning_rate: Finite
    weight_decay: Finite | None = None
    budget_share: Finite = 1.0


class Grid(Part):
    """Settings tried and the one taken."""

    trials: list[Trial] = []
    chosen: Setting | None = None


class Tuning(Grid):
    """Grid of the baseline, and of the other arms where each has trials of its own."""

    arms: dict[str, Grid] = {}


class Point(Part):
    """A point of a learning curve: validation loss in nats per token after `tokens` input tokens."""

    step: Count
    tokens: Count
    validation_loss: Finite


class BandPoint(Point):
    """A point of a curve over seeds: the mean of the validation losses, the lowest and the highest one."""

    low: Finite
    high: Finite


class SynthesizerTrial(Part):
    """One learning rate of a synthesizer and the best held-out pair loss it reached, in nats per token.

    Null: it diverged.
    """

    learning_rate: Finite
    best_validation_loss: Finite | None


class Synthesizer(Part):
    """The tuning of one synthesizer."""

    learning_rate: Finite
    steps: Count
    pairs: Count
    best_validation_loss: Finite | None = None
    trials: list[SynthesizerTrial] = []
    history: list[Point] = []


class SimilarityBin(Part):
    """What the pairs of one band of similarity are worth, in nats per token."""

    low: Finite
    high: Finite
    pairs: Count
    worth: Finite | None


class PairLosses(Part):
    """Losses of held-out targets d2 in nats per token; differences are positive when the true seed helps."""

    pairs: Count
    tokens: Count
    losses: dict[str, Finite]
    worth: Interval
    shuffled_gap: Interval


class PairTable(PairLosses):
    """Means over the seeds, and what they are means of; pairs and tokens are the fewest of any seed.

    `bins` are of one seed, `bins_seed`.
    """

    seeds: dict[str, PairLosses] = {}
    bins: list[SimilarityBin] = []
    bins_seed: int | None = None


class PairValue(Part):
    """What a pair is worth, by how new its documents are."""

    tables: dict[str, PairTable] = {}


class Divergence(Part):
    """A training whose loss is not finite any more."""

    stage: str
    finding: str


class Gate(Part):
    """A condition asked before arms with synthetic text are trained; `mend`: what to do when it is closed."""

    name: str
    open: bool
    finding: str
    mend: str | None = None


class Synthesis(Part):
    """Generation for one arm: requests, what the filters accepted, what each of them dropped."""

    requests: Count
    accepted: Count
    acceptance: Finite
    tokens: Count
    drops: dict[str, Count] = {}


class Packing(Part):
    """Rows in which documents that belong together stand together, for one arm."""

    rows: Count
    pairs: Count
    seed_tokens: Count
    target_tokens: Count
    filler_tokens: Count
    cut_seeds: Count
    parted_targets: Count


class Plan(Part):
    """What an arm is trained on."""

    steps: Count
    tokens_per_source: dict[str, Count]
    epochs: dict[str, Finite] = {}
    synthetic_share: Finite = 0.0


class Ledger(Part):
    """Both ledgers: matched tokens, and floating-point operations from end to end."""

    matched_tokens: Count
    flops: dict[str, Finite] = {}
    total_flops_owned: Finite
    total_flops_counted: Finite


class BestValidation(Part):
    """The weights with the lowest validation loss: when, and their loss on test data."""

    step: Count
    tokens: Count
    test_nats_per_byte: Finite
    test_nats_per_token: Finite


class SeedResult(Part):
    """One seed of one arm. The test losses are of the weights at the end of the budget."""

    test_nats_per_byte: Finite
    test_nats_per_token: Finite
    best_validation: BestValidation | None = None
    best_validation_loss: Finite | None = None
    final_validation_loss: Finite | None = None
    history: list[Point] = []


class Arm(Part):
    """One arm. `test` is its loss in nats per byte over the seeds, with the weights at the end of the budget.

    `test_best_validation` is that of the weights with the lowest validation loss. `curve` is over all seeds.
    """

    plan: Plan
    ledger: Ledger
    test: Interval | None = None
    test_best_validation: Interval | None = None
    curve: list[BandPoint] = []
    seeds: dict[str, SeedResult]


class Reading(Part):
    """A contrast with other weights of the same two arms."""

    estimate: Finite
    low: Finite
    high: Finite
    level: Finite = 0.95
    p: Finite | None = None
    p_holm: Finite | None = None


class Contrast(Part):
    """What `treatment` gains over `reference`, in nats per byte.

    `role`: the "primary" hypothesis is tested alone; "secondary" ones have `p_holm`; the rest have no test.
    `detectable` is the smallest true gain that is found with 80% power.
    """

    treatment: str
    reference: str
    role: Literal["primary", "secondary", "descriptive"]
    estimate: Finite
    low: Finite
    high: Finite
    level: Finite = 0.95
    p: Finite | None = None
    p_holm: Finite | None = None
    detectable: Finite | None = None
    seeds: list[int]
    label: str
    best_validation: Reading | None = None


class OracleShare(Part):
    """The share of the oracle's gain that SBP reaches: a Fieller set."""

    kind: Literal["interval", "complement", "line", "no gain"]
    estimate: Finite | None
    low: Finite | None
    high: Finite | None
    level: Finite = 0.95
    label: str = ""


class TextSize(Part):
    """A baseline and the unique text it is trained on, as a multiple of SBP's."""

    arm: str
    multiple: Finite
    unique_tokens: Count


class Multiplier(Part):
    """How many times the unique text the baseline needs for SBP's loss.

    `estimate` is null unless `kind` is "within"; a bound is null where the interval reaches out of
    `smallest` to `largest`.
    """

    kind: Literal["below", "within", "above"]
    estimate: Finite | None
    low: Finite | None
    high: Finite | None
    smallest: Finite
    largest: Finite
    level: Finite = 0.95
    label: str = ""
    points: list[TextSize] = []


class DataEfficiency(Multiplier):
    """The multiplier at the end of the budget, and the one between best-validation weights."""

    best_validation: Multiplier | None = None


class Copied(Part):
    """Stretches (first character, end) of a synthetic text that also stand in its seed, and in the corpus."""

    seed: list[tuple[int, int]] = []
    corpus: list[tuple[int, int]] = []


class Triple(Part):
    """A seed document, its most similar true neighbour, and a document synthesised from it."""

    seed_title: str = ""
    seed: str
    neighbour: str
    synthetic: str
    copied: Copied = Copied()
    similarity: Finite | None = None
    arm: str = ""
    filters: dict[str, bool | Finite | str] = {}
    accepted: bool = True


class Results(Part):
    """results.json."""

    schema_version: Literal[2] = Field(alias="schema")
    name: str
    recipe_hash: str
    recipe: dict[str, Any] = {}
    source: Source
    corpus: Corpus
    model: dict[str, Any] = {}
    pairing: Pairing | None = None
    tuning: Tuning | None = None
    synthesizer: dict[str, Synthesizer] = {}
    pair_value: PairValue | None = None
    left_out: dict[str, list[Divergence]] = {}
    gates: dict[str, list[Gate]] = {}
    synthesis: dict[str, Synthesis] = {}
    packing: dict[str, Packing] = {}
    arms: dict[str, Arm]
    contrasts: dict[str, Contrast] = {}
    downstream: Downstream | None = None
    domains: dict[str, Domain] = {}
    oracle_share: OracleShare | None = None
    data_efficiency: DataEfficiency | None = None
    quality: dict[str, dict[str, Any]] = {}
    relation: Relation | None = None
    topics: TopicShift | None = None
    contamination: Contamination | None = None
    judge: Judge | None = None
    triples: list[Triple] = []
    what_this_run_can_show: str = ""


def check_results(results: dict[str, Any]) -> Results:
    """The results as typed parts.

    Raises:
        InputError: a key is missing or a value is not of the documented kind; the message names it.
    """
    try:
        return Results.model_validate(results)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"results: {place}: {first['msg']} (schema {SCHEMA_VERSION}); see docs/results-schema.md, "
            "and run `megasbp run` with this version to write the results again"
        ) from None


def read_results(path: Path) -> dict[str, Any]:
    """Reads and checks a results.json.

    Raises:
        InputError: the file is missing, not JSON, or not results of this schema.
    """
    results = read_json(path)
    if not isinstance(results, dict):
        raise InputError(f"{path}: holds no results; it must be a JSON object, see docs/results-schema.md")
    try:
        check_results(results)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return results
