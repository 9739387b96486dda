"""The method: which stage is made from which. Asking for a stage makes those before it that are missing."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

from megasbp.experiment.arm_method import ArmStages
from megasbp.experiment.arm_stages import (
    Chosen,
    best_setting,
    train_stage,
    trial_grid,
)
from megasbp.experiment.arms import Writer, first_written_arms
from megasbp.experiment.budget import trained_arms
from megasbp.experiment.context import Context, Corpus
from megasbp.experiment.corpus_stages import continuation_corpus, make_corpus
from megasbp.experiment.divergence import DivergedStage, require_finite
from megasbp.experiment.domain_stages import domains_stage
from megasbp.experiment.gate_stages import gates_of, gates_stage, round_gate_stage
from megasbp.experiment.gates import ClosedGate, Gate, require_open
from megasbp.experiment.pair_stages import continuation_context, embed_stage, pairs_stage
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.seed_results import SeedResults
from megasbp.experiment.stages import MissingStage, StageResult, Workspace
from megasbp.experiment.synthesizer_stages import (
    best_synthesizer,
    pair_value_stage,
    random_synthesizer,
    tuned_synthesizers,
)
from megasbp.experiment.text_measures import TextMeasures
from megasbp.experiment.text_stages import quality_stage
from megasbp.experiment.triple_stages import triples_stage
from megasbp.parallel.runtime import Runtime


class Method:
    """The stages of a recipe, in a workspace that says which of them may be made here.

    Attributes:
        variant: folder of what a sweep publishes for one of its recipes; None for a run's own report.
    """

    def __init__(
        self, recipe: Recipe, workspace: Workspace, runtime: Runtime, variant: Path | None = None
    ) -> None:
        self.recipe, self.workspace, self.runtime = recipe, workspace, runtime
        self.variant = variant
        self._seeds: dict[int, SeedStages] = {}

    @cached_property
    def corpus(self) -> Corpus:
        """Split, tokenizer, datasets and units: the same for every seed."""
        return make_corpus(self.recipe, self.workspace)

    @cached_property
    def domains(self) -> StageResult | None:
        """The domains of the test documents, where the recipe names a field of them."""
        return domains_stage(self.recipe, self.workspace, self.corpus.split)

    @cached_property
    def continuation_corpus(self) -> Corpus:
        """The corpus in parts of documents."""
        return continuation_corpus(self.recipe, self.workspace, self.corpus)

    def seed(self, seed: int) -> "SeedStages":
        """The stages of one of the recipe's seeds."""
        if seed not in self._seeds:
            self._seeds[seed] = SeedStages(self, seed)
        return self._seeds[seed]

    def results(self) -> list[SeedResults]:
        """Every stage of every seed but those that are left out."""
        return [self.seed(seed).results() for seed in self.recipe.seeds if seed not in self.left_out]

    @cached_property
    def left_out(self) -> dict[int, list[DivergedStage]]:
        """Seed -> its trainings that diverged; seeds without one are not there."""
        found = {seed: self.seed(seed).diverged() for seed in self.recipe.seeds}
        return {seed: diverged for seed, diverged in found.items() if diverged}


class SeedStages:
    """The stages of one seed."""

    def __init__(self, method: Method, seed: int) -> None:
        self._method, self._seed = method, seed
        self._arms: dict[str, ArmStages] = {}

    @cached_property
    def context(self) -> Context:
        """What its stages work on."""
        method = self._method
        return Context(method.recipe, method.workspace, method.corpus, self._seed, method.runtime)

    @cached_property
    def trials(self) -> list[StageResult]:
        """The first seed's baselines at all settings of the grid, diverged ones too; of other seeds none."""
        if self is not self.first:
            return []
        return [self.baseline_at(setting) for setting in trial_grid(self._method.recipe)]

    def baseline_at(self, setting: Chosen) -> StageResult:
        """The baseline's training at some settings, which may have diverged."""
        return train_stage(self.context, "baseline", setting)

    @cached_property
    def chosen(self) -> Chosen:
        """The settings of the first seed's best baseline."""
        grid = trial_grid(self._method.recipe)
        return grid[0] if len(grid) == 1 else best_setting(grid, self.first.trials)

    @property
    def first(self) -> "SeedStages":
        """The seed on which settings are tried."""
        return self._method.seed(self._method.recipe.seeds[0])

    @property
    def baseline(self) -> StageResult:
        """The baseline at the chosen settings.

        Raises:
            DivergedStage: its training diverged.
        """
        return require_finite(self._baseline)

    @cached_property
    def _baseline(self) -> StageResult:
        return self.baseline_at(self.chosen)

    @cached_property
    def embed(self) -> StageResult | None:
        """The embeddings; None when the recipe names no embedder."""
        return embed_stage(self.context, self.embedding_model)

    @property
    def embedding_model(self) -> StageResult | None:
        """The baseline, where its checkpoint is the embedder."""
        return self.baseline if self._method.recipe.pairing.embedder == "checkpoint" else None

    @cached_property
    def pairs(self) -> StageResult:
        """The pair tables."""
        return pairs_stage(self.context, self.embed)

    @cached_property
    def true_synthesizers(self) -> list[StageResult]:
        """Tuned on true pairs, one for each learning rate."""
        return self.tuned("true")

    def tuned(self, kind: str, rates: Sequence[float] | None = None) -> list[StageResult]:
        """The synthesizers of kind "true", "continuation" or "second" at some rates; None for all."""
        match kind:
            case "second":
                context, pairs, start = self.context, self.pairs, self.arm("sbp").trained
            case "continuation":
                context, pairs, start = self.continuation_context, self.continuation_pairs, self.baseline
            case _:
                context, pairs, start = self.context, self.pairs, self.baseline
        return tuned_synthesizers(context, pairs, start, f"synthesizer-{kind}", rates)

    @cached_property
    def random_synthesizer(self) -> StageResult:
        """Tuned on random pairs."""
        return random_synthesizer(self.context, self.pairs, self.baseline, self.synthesizer("true"))

    @cached_property
    def continuation_context(self) -> Context:
        """What the continuation synthesizer is tuned on."""
        return continuation_context(self.context, self._method.continuation_corpus)

    @cached_property
    def continuation_pairs(self) -> StageResult:
        """Pair tables of beginnings of documents and what follows them."""
        return pairs_stage(self.continuation_context, None, "pairs-continuation")

    @cached_property
    def continuation_synthesizers(self) -> list[StageResult]:
        """Tuned on these, one for each learning rate."""
        return self.tuned("continuation")

    @cached_property
    def second_synthesizers(self) -> list[StageResult]:
        """Tuned on true pairs from the model of SBP, one for each learning rate."""
        return self.tuned("second")

    def synthesizers(self, kind: str) -> list[StageResult]:
        """Those of kind "true", "continuation" or "second", one for each learning rate."""
        match kind:
            case "second":
                return self.second_synthesizers
            case "continuation":
                return self.continuation_synthesizers
            case _:
                return self.true_synthesizers

    def synthesizer(self, kind: str) -> StageResult:
        """The one that writes: the best of `synthesizers`, or the one of kind "random".

        Raises:
            DivergedStage: its tuning diverged, at every learning rate.
        """
        return self.random_synthesizer if kind == "random" else best_synthesizer(self.synthesizers(kind))

    def writer(self, kind: Writer) -> StageResult:
        """Whose checkpoint writes: a synthesizer, or the untuned baseline."""
        return self.baseline if kind == "untuned" else self.synthesizer(kind)

    @cached_property
    def pair_value(self) -> StageResult:
        """What a pair is worth."""
        true, random = self.synthesizer("true"), self.synthesizer("random")
        return pair_value_stage(self.context, self.pairs, self.baseline, true, random)

    @cached_property
    def gates(self) -> StageResult:
        """Whether arms with synthetic text are worth training."""
        quality = {"real": self.real_quality}
        for arm in first_written_arms(self._method.recipe.budget.arms):
            quality[arm] = self.arm(arm).quality_of_text
        return gates_stage(self.context, self.baseline, self.pair_value, quality)

    @cached_property
    def round_gate(self) -> StageResult:
        """Whether a second round is worth training an arm on."""
        synthesizers = {"first": self.synthesizer("true"), "second": self.synthesizer("second")}
        synthesis = {}
        for name, arm in (("first", "sbp"), ("second", "second_round")):
            stage = self.arm(arm).synthesis
            assert stage is not None
            synthesis[name] = stage
        return round_gate_stage(self.context, synthesizers, synthesis)

    def found_gates(self) -> list[Gate]:
        """Every gate of this seed."""
        second = "second_round" in self._method.recipe.budget.arms
        return gates_of(self.gates) + (gates_of(self.round_gate) if second else [])

    @cached_property
    def measures(self) -> TextMeasures:
        """What is measured on the synthetic text beside its quality."""
        return TextMeasures(self, self._method.recipe)

    def pass_gates(self) -> None:
        """Ends the run at a closed gate, where the recipe says so.

        Raises:
            ClosedGate: it does.
        """
        require_open(gates_of(self.gates), self._method.recipe.gates, self.context.name("gates"))

    def pass_round_gate(self) -> StageResult:
        """As `pass_gates`, before the arm of the second round; returns the quality of its text.

        Raises:
            ClosedGate: it does.
        """
        quality = self.arm("second_round").quality_of_text
        gates = gates_of(self.round_gate)
        require_open(gates, self._method.recipe.gates, self.context.name("gate-second_round"))
        return quality

    @cached_property
    def real_quality(self) -> StageResult:
        """Quality of real text, to compare with."""
        return quality_stage(self.context, "real", None)

    @cached_property
    def triples(self) -> StageResult | None:
        """Triples to read, of the first seed; None where there is no SBP, or the recipe asks for none."""
        recipe = self._method.recipe
        if self._seed != recipe.seeds[0] or "sbp" not in recipe.budget.arms or not recipe.evaluation.triples:
            return None
        synthesis = self.arm("sbp").synthesis
        assert synthesis is not None
        return triples_stage(self.context, self.pairs, synthesis, self.synthesizer("true"))

    def arm(self, arm: str) -> ArmStages:
        """The stages of one arm."""
        if arm not in self._arms:
            self._arms[arm] = ArmStages(self, arm)
        return self._arms[arm]

    def require_finite(self) -> None:
        """Says that nothing is to be measured on the models of this seed.

        Raises:
            DivergedStage: the training of one of its arms diverged, or that of a model that an arm needs.
        """
        for arm in trained_arms(self._method.recipe):
            _ = self.arm(arm).trained

    def diverged(self) -> list[DivergedStage]:
        """Its trainings that diverged, at the chosen settings; what is not made yet is passed over."""
        trainings: list[Callable[[], StageResult]] = [lambda: self.baseline]
        trainings += [partial(self.synthesizer, kind) for kind in (*self._tuned_kinds, "random")]
        trainings += [partial(_trained, self.arm(arm)) for arm in trained_arms(self._method.recipe)]
        found: dict[str, DivergedStage] = {}
        for training in trainings:
            try:
                training()
            except DivergedStage as diverged:
                found.setdefault(diverged.stage, diverged)
            except (MissingStage, ClosedGate):
                continue
        return list(found.values())

    @property
    def _tuned_kinds(self) -> list[str]:
        """Kinds of synthesizers that are tuned at several learning rates."""
        arms = self._method.recipe.budget.arms
        further = {"continuation": "continuation", "second": "second_round"}
        return ["true", *(kind for kind, arm in further.items() if arm in arms)]

    def results(self) -> SeedResults:
        """Every stage of this seed; the trials are those of the first one."""
        trials = {kind: self.synthesizers(kind) for kind in self._tuned_kinds}
        results = SeedResults(
            self.context,
            self.chosen,
            self.first.trials,
            self.embed,
            self.pairs,
            {kind: self.synthesizer(kind) for kind in (*trials, "random")},
            trials,
            self.pair_value,
            self.found_gates(),
        )
        results.quality["real"], results.domains = self.real_quality, self._method.domains
        results.triples = self.triples
        if self is self.first:
            # The report shows those of one seed.
            results.measures = self.measures.all()
        for arm in trained_arms(self._method.recipe):
            stages = self.arm(arm)
            if stages.synthesis is not None and stages.quality is not None:
                results.synthesis[arm], results.quality[arm] = stages.synthesis, stages.quality
            if stages.packed is not None:
                results.packed[arm] = stages.packed
            results.trained[arm], results.losses[arm] = stages.trained, stages.losses
            results.best_losses[arm] = stages.best_losses
            if self._method.recipe.evaluation.downstream.tasks:
                results.downstream[arm] = stages.downstream
            results.plans[arm], results.ledgers[arm] = stages.plan, stages.ledger
            if tried := self.first.arm(arm).trials:
                results.arm_trials[arm] = tried
        return results


def _trained(stages: ArmStages) -> StageResult:
    return stages.trained
