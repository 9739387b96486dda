"""The recipe: one TOML file that states an experiment. Each room owns its section; they are composed here."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from megasbp.corpus.config import CorpusConfig
from megasbp.errors import InputError
from megasbp.evaluation.downstream.config import DownstreamConfig
from megasbp.evaluation.quality_config import QualityConfig
from megasbp.experiment.arms import DEFAULT_ARMS, Arm
from megasbp.experiment.gates import GatesConfig
from megasbp.launch.config import ClusterConfig, Kind
from megasbp.model.config import ModelConfig
from megasbp.pairing.config import PairingConfig
from megasbp.parallel.config import DATA_ONLY, ParallelConfig, layout_problem
from megasbp.section_settings import apply_setting, describe, read_values
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.storage import hash_object
from megasbp.synthesis.config import SynthesisConfig
from megasbp.training.config import TrainingConfig, batch_problem, pipeline_problem, products_problem

# The rates that AdamW bears fall with the width: 3e-3 at a width of 4,096, above what anyone trains with.
_HIGHEST_RATE_TIMES_WIDTH = 12.0
# Kinds of stages whose ranks have a layout.
_LAID_OUT: tuple[Kind, ...] = ("training", "tuning")


class Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BudgetConfig(Section):
    """What every arm gets: the same number of non-padding input tokens of the final model.

    Attributes:
        tokens_per_arm: matched tokens; cut down to a whole number of optimiser steps.
        synthetic_share: share of those tokens that is synthetic in the arms with synthetic text, seen once.
        synthetic_until: share of the budget by whose end the synthetic text has been read, among unique
            text; what is left is unique text alone. 1, as in the paper, spreads it over the whole.
        arms: which of `arms.ARMS` run. The baseline is always among them: the synthesizer starts from it.
        multiples: further baselines, on so many times the unique documents each, for the data-efficiency
            multiplier; their documents are the oracle's.
        equal_flops: two further baselines that spend on training what SBP spends from end to end, with the
            model that its synthesizer starts from already owned, and counted.
        expected_tokens_per_document: for `megasbp plan` until the corpus is tokenised; separators included.
    """

    tokens_per_arm: int = Field(gt=0)
    synthetic_share: float = Field(0.375, gt=0, lt=1)
    synthetic_until: float = Field(1.0, gt=0, le=1)
    arms: tuple[Arm, ...] = DEFAULT_ARMS
    multiples: tuple[int, ...] = ()
    equal_flops: bool = False
    expected_tokens_per_document: float = Field(gt=2)

    @model_validator(mode="after")
    def _arms_are_complete(self) -> Self:
        if "baseline" not in self.arms or len(set(self.arms)) != len(self.arms):
            raise ValueError("arms must name 'baseline' and no arm twice")
        if self.synthetic_until < self.synthetic_share:
            raise ValueError(
                f"synthetic_until is {self.synthetic_until}, but the synthetic text is synthetic_share "
                f"{self.synthetic_share} of the budget; set it to at least that"
            )
        if self.equal_flops and "sbp" not in self.arms:
            raise ValueError("equal_flops compares with SBP; add 'sbp' to arms, or set it to false")
        if "seed_packing" in self.arms:
            if "sbp" not in self.arms:
                raise ValueError("arm 'seed_packing' packs the text of 'sbp'; name that before it")
            if self.synthetic_share >= 0.5:
                raise ValueError(
                    f"synthetic_share is {self.synthetic_share}, but arm 'seed_packing' reads a seed with "
                    "each synthetic document; set it below 0.5"
                )
        if "second_round" in self.arms and "sbp" not in self.arms:
            raise ValueError("arm 'second_round' starts from the model of 'sbp'; name that before it")
        if any(low >= high for low, high in pairwise((1, *self.multiples))):
            raise ValueError(f"multiples are {list(self.multiples)}; set them ascending and above 1")
        return self


class TuningConfig(Section):
    """Grid of the optimiser; the setting with the lowest final validation loss of the first seed is taken.

    Attributes:
        arms: "baseline" tries the grid on the baseline, and every arm and seed uses what is best for it, so
            that any error of the choice speaks against the other arms. "each" gives every arm as many trials
            of its own; what the synthesizers start from stays the baseline's.
        learning_rates: peaks tried; empty keeps `training.learning_rate`.
        weight_decays: tried with each peak; empty keeps `training.weight_decay`.
        budget_shares: shares of the budget, up to 1, tried with each of these, and so numbers of epochs: a
            training of its own each, its warm-up and decay included. Empty keeps the whole budget. With arms
            "baseline" all are trained on the share that is best for it, with "each" on their own.
    """

    arms: Literal["baseline", "each"] = "baseline"
    learning_rates: tuple[float, ...] = ()
    weight_decays: tuple[float, ...] = ()
    budget_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()


class SynthesizerConfig(Section):
    """Tuning of p(d2 | d1) from the baseline's best-validation checkpoint.

    Attributes:
        context: tokens of a row; the seed document is cut to half of it.
        global_batch: rows per optimiser step.
        micro_batch: rows per forward pass and rank.
        learning_rates: constant learning rates tried; the best held-out pair loss decides.
        weight_decay: of the tuning.
        maximum_epochs: over the pair table; the best validation ends it earlier.
        validations: validations over `maximum_epochs`.
        patience: validations without improvement after which tuning stops.
        unit: pairs of whole documents or of passages; "auto" takes passages when more than 20% would be cut.
        maximum_validation_pairs: held-out pairs used to choose learning rate and steps.
    """

    context: int = Field(512, ge=16)
    global_batch: int = Field(16, ge=1)
    micro_batch: int = Field(16, ge=1)
    learning_rates: tuple[float, ...] = Field((3e-4,), min_length=1)
    weight_decay: float = Field(0.1, ge=0)
    maximum_epochs: float = Field(4, gt=0)
    validations: int = Field(8, ge=1)
    patience: int = Field(2, ge=1)
    unit: Literal["auto", "document", "passage"] = "auto"
    maximum_validation_pairs: int = Field(400, ge=1)


class EvaluationConfig(Section):
    """Held-out evaluation.

    Attributes:
        batch_size: rows per forward pass.
        maximum_value_pairs: test pairs on which the worth of a pair is measured.
        bootstrap_resamples: of document clusters, for every interval.
        triples: (seed, neighbour, synthetic) triples shown in the report.
        downstream: tasks that every arm is measured on besides.
    """

    batch_size: int = Field(16, ge=1)
    maximum_value_pairs: int = Field(2000, ge=1)
    bootstrap_resamples: int = Field(10_000, ge=100)
    triples: int = Field(40, ge=0)
    downstream: DownstreamConfig = DownstreamConfig()

    def content(self) -> dict[str, Any]:
        """The section as JSON-serialisable values; without tasks it is as it was before there were any."""
        values = self.model_dump(mode="json", exclude={"downstream"})
        return {**values, "downstream": self.downstream.content()} if self.downstream.tasks else values


class Recipe(Section):
    """An experiment. `name` names its folder below `runs`; `seeds` each rerun the whole pipeline.

    `threads` fixes torch's CPU threads (0: as the machine has), because the last bits of a matrix product
    depend on it. `shards` says where the stages that are cut into shards run; without it, in this process.
    `parallel` lays training out over torchrun's ranks; `cluster` says, for `megasbp run --launcher`, how many
    ranks each kind of step gets, and in which layout.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    threads: int = Field(0, ge=0)
    runs: Path = Path("runs")
    corpus: CorpusConfig
    model: ModelConfig
    training: TrainingConfig
    parallel: ParallelConfig = ParallelConfig()
    tuning: TuningConfig = TuningConfig()
    pairing: PairingConfig
    synthesizer: SynthesizerConfig = SynthesizerConfig()
    synthesis: SynthesisConfig
    budget: BudgetConfig
    gates: GatesConfig = GatesConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    quality: QualityConfig = QualityConfig()
    shards: ShardsConfig = INLINE
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        step = self.training.global_batch * self.training.sequence_length
        if self.budget.tokens_per_arm < step:
            raise ValueError(
                f"budget.tokens_per_arm is {self.budget.tokens_per_arm}, below one optimiser step of {step} "
                f"tokens (training.global_batch x training.sequence_length); set it to at least {step}"
            )
        longest = max(self.training.sequence_length, self.synthesizer.context)
        if longest > self.model.maximum_positions:
            raise ValueError(
                f"model.maximum_positions is {self.model.maximum_positions}, below the longest sequence "
                f"{longest}; set it to at least {longest}"
            )
        if self.synthesizer.global_batch % self.synthesizer.micro_batch:
            raise ValueError(
                f"synthesizer.global_batch {self.synthesizer.global_batch} is not a multiple of "
                f"synthesizer.micro_batch {self.synthesizer.micro_batch}"
            )
        if self.pairing.source == "continuation" and self.synthesizer.unit != "auto":
            raise ValueError(
                f"synthesizer.unit is {self.synthesizer.unit!r}, but pairing.source 'continuation' pairs "
                "parts of documents; leave synthesizer.unit at 'auto'"
            )
        if self.pairing.source == "continuation" and "continuation" in self.budget.arms:
            raise ValueError(
                "budget.arms names 'continuation', but with pairing.source 'continuation' sbp is that arm; "
                "leave one of them out"
            )
        largest = max(self.budget.multiples, default=1)
        if largest * self.corpus.unique > self.corpus.oracle:
            raise ValueError(
                f"budget.multiples asks for {largest} times corpus.unique, more than corpus.oracle, "
                f"{self.corpus.oracle}; set corpus.oracle to at least {largest * self.corpus.unique}"
            )
        if self.budget.multiples and self.corpus.unique_topics is not None:
            raise ValueError(
                "budget.multiples adds documents at random, but corpus.unique_topics makes the unique ones "
                "whole topics; leave one of them out"
            )
        size = self.corpus.vocabulary_size
        if size is not None and size > self.model.vocabulary_size:
            raise ValueError(
                f"corpus.vocabulary_size {size} exceeds model.vocabulary_size {self.model.vocabulary_size}; "
                f"set model.vocabulary_size to at least {size}"
            )
        rates = (self.training.learning_rate, *self.tuning.learning_rates)
        if self.model.mup_base_width is None and max(rates) * self.model.width > _HIGHEST_RATE_TIMES_WIDTH:
            highest = _HIGHEST_RATE_TIMES_WIDTH / self.model.width
            raise ValueError(
                f"a learning rate of {max(rates):g} is too high for model.width {self.model.width} in the "
                f"standard parametrisation; set it to at most {highest:.2g}, or set model.mup_base_width to "
                "the width at which the rate was chosen"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat")
        return self

    @model_validator(mode="after")
    def _layouts_are_used_and_agree(self) -> Self:
        own = [f"cluster.{kind}.parallel" for kind in _LAID_OUT if self.cluster.of(kind).parallel is not None]
        if "parallel" in self.model_fields_set and len(own) == len(_LAID_OUT):
            raise ValueError(f"parallel is set, but {' and '.join(own)} take its place; set those")
        for kind in _LAID_OUT:
            problem = products_problem(self.training, self.layout(kind))
            if problem:
                raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _cluster_fits(self) -> Self:
        # A recipe without the section may be laid out by torchrun's own options.
        if "cluster" in self.model_fields_set:
            synthesizer = self.synthesizer
            sizes = {"global_batch": synthesizer.global_batch, "micro_batch": synthesizer.micro_batch}
            tuning = self.training.model_copy(update={"sequence_length": synthesizer.context, **sizes})
            settings: tuple[tuple[Kind, str, TrainingConfig], ...] = (
                ("training", "training", self.training),
                ("tuning", "synthesizer", tuning),
            )
            for kind, section, training in settings:
                layout, ranks = self.layout(kind), self.cluster.of(kind).ranks
                problem = layout_problem(layout, self.model, training.sequence_length, ranks)
                readers = ranks * layout.replicate // layout.unit
                problem = problem or batch_problem(training.global_batch, training.micro_batch, readers)
                problem = problem or pipeline_problem(training, layout, readers, section)
                if problem:
                    raise ValueError(f"cluster.{kind}: {problem}")
        return self

    def layout(self, kind: Kind) -> ParallelConfig:
        """The layout of the ranks that make a kind of step."""
        if kind not in _LAID_OUT:
            return DATA_ONLY
        own = self.cluster.of(kind).parallel
        return self.parallel if own is None else own

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs / self.name

    def content(self) -> dict[str, Any]:
        """The recipe as JSON-serialisable values, without where it runs."""
        values = self.model_dump(mode="json", exclude={"runs", "shards", "parallel", "cluster", "quality"})
        own = {
            "corpus": self.corpus.content(),
            "training": self.training.content(),
            "synthesis": self.synthesis.content(),
            "evaluation": self.evaluation.content(),
        }
        quality = self.quality.content()
        return {**values, **own, **({"quality": quality} if quality else {})}

    @property
    def hash(self) -> str:
        """Hash of `content`."""
        return hash_object(self.content())


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies `section.key=value` overrides (values are TOML; bare words are strings).

    Raises:
        InputError: the file is missing or not TOML, a key unknown or a value impossible; the message names
            the key and the mend.
    """
    data = read_values(path)
    for override in overrides:
        apply_setting(data, override, "an override; write section.key=value")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, Recipe)}") from None
