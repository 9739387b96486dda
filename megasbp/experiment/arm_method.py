"""The method, one arm of one seed: which of its stages is made from which."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from megasbp.experiment.arm_stages import (
    Chosen,
    arm_tokens,
    best_losses_stage,
    best_setting,
    losses_stage,
    setting_of,
    synthesis_stage,
    train_stage,
    trial_grid,
)
from megasbp.experiment.arms import share_of, writer_of
from megasbp.experiment.budget import EQUAL_FLOPS_ARMS, ArmPlan, plan_arm
from megasbp.experiment.divergence import require_finite
from megasbp.experiment.downstream_stages import downstream_stage
from megasbp.experiment.ledger import equal_steps, ledger
from megasbp.experiment.packing_stages import packed_neighbours, packed_with_seeds
from megasbp.experiment.stages import StageResult
from megasbp.experiment.text_stages import quality_stage
from megasbp.experiment.work import arm_work

if TYPE_CHECKING:
    # It makes these.
    from megasbp.experiment.method import SeedStages


class ArmStages:
    """The stages of one arm of one seed."""

    def __init__(self, seed: "SeedStages", arm: str) -> None:
        self._seed, self._arm = seed, arm

    @cached_property
    def synthesis(self) -> StageResult | None:
        """Its synthetic corpus; None for an arm of real text."""
        kind = writer_of(self._arm)
        if kind is None:
            return None
        return synthesis_stage(self._seed.context, self._arm, self._seed.writer(kind))

    @cached_property
    def quality(self) -> StageResult | None:
        """Quality of its synthetic corpus, where it has one."""
        return (
            None if self.synthesis is None else quality_stage(self._seed.context, self._arm, self.synthesis)
        )

    @property
    def quality_of_text(self) -> StageResult:
        """`quality` of an arm for which text is written."""
        assert self.quality is not None
        return self.quality

    @cached_property
    def packed(self) -> StageResult | None:
        """Its rows of documents that belong together, where it has such rows."""
        match share_of(self._arm):
            case "neighbours":
                return packed_neighbours(self._seed.context, self._seed.pairs)
            case "seeded":
                synthesis = self._seed.arm("sbp").synthesis
                assert synthesis is not None
                return packed_with_seeds(self._seed.context, synthesis)
            case _:
                return None

    @cached_property
    def shared(self) -> StageResult | None:
        """What fills its share; None for one without."""
        return self.packed if self.synthesis is None else self.synthesis

    @cached_property
    def plan(self) -> ArmPlan:
        """What it is trained on."""
        context = self._seed.context
        tokens = arm_tokens(context.corpus, self._arm, self.shared)
        return plan_arm(self._arm, context.recipe, tokens, self._steps, self.chosen.budget_share)

    @cached_property
    def ledger(self) -> dict[str, Any]:
        """Both of its ledgers."""
        recipe = self._seed.context.recipe
        work = arm_work(recipe, self._seed, self._arm)
        # Tried were the settings of this arm, and of the baseline where these are used or that model is.
        swept = _swept(self._seed.first.arm(self._arm).trials, self.chosen) if self._is_tuned else 0
        if not self._is_tuned or work.pretraining_tokens:
            swept += _swept(self._seed.first.trials, self._seed.chosen)
        return ledger(recipe, self.plan, work, swept)

    @cached_property
    def _steps(self) -> int | None:
        """Steps of a baseline at SBP's operations; None for an arm on the budget."""
        if self._arm not in EQUAL_FLOPS_ARMS:
            return None
        return equal_steps(
            self._seed.context.recipe, self._seed.arm("sbp").ledger, EQUAL_FLOPS_ARMS[self._arm]
        )

    @property
    def _is_tuned(self) -> bool:
        """Whether it has trials of its own."""
        each = self._seed.context.recipe.tuning.arms == "each"
        return each and self._arm != "baseline" and self._arm not in EQUAL_FLOPS_ARMS

    @cached_property
    def trials(self) -> list[StageResult]:
        """Its trainings at all settings of the grid, where it has trials of its own; of the first seed."""
        if not self._is_tuned or self._seed is not self._seed.first:
            return []
        return [self.trained_at(trial) for trial in trial_grid(self._seed.context.recipe)]

    @cached_property
    def chosen(self) -> Chosen:
        """The best of its trials, or the baseline's settings."""
        if not self._is_tuned:
            return self._seed.chosen
        grid = trial_grid(self._seed.context.recipe)
        return grid[0] if len(grid) == 1 else best_setting(grid, self._seed.first.arm(self._arm).trials)

    @property
    def trained(self) -> StageResult:
        """Its model; with synthetic text only past the gates.

        Raises:
            DivergedStage: its training diverged, or that of a model that writes its text.
        """
        return require_finite(self._trained)

    @cached_property
    def _trained(self) -> StageResult:
        return self.trained_at(self.chosen)

    def trained_at(self, chosen: Chosen) -> StageResult:
        """Its training at some settings, which may have diverged; only past the gates, as `trained`."""
        if share_of(self._arm) in {"synthetic", "seeded"}:
            self._seed.pass_gates()
        if writer_of(self._arm) == "second":
            self._seed.pass_round_gate()
        return train_stage(self._seed.context, self._arm, chosen, self.shared, self._steps)

    @cached_property
    def losses(self) -> StageResult:
        """Its model's losses on the test split."""
        return losses_stage(self._seed.context, self._arm, self.trained)

    @cached_property
    def best_losses(self) -> StageResult:
        """The losses of its weights with the lowest validation loss."""
        return best_losses_stage(self._seed.context, self._arm, self.trained, self.losses)

    @cached_property
    def downstream(self) -> StageResult:
        """Its model's scores on the recipe's tasks."""
        return downstream_stage(self._seed.context, self._arm, self.trained)


def _swept(trials: list[StageResult], chosen: Chosen) -> int:
    """Input tokens of the trials whose model is not used."""
    unused = {trial.folder: trial.facts["input_tokens"] for trial in trials if setting_of(trial) != chosen}
    return sum(unused.values())
