"""What the results of one seed are assembled from."""

from dataclasses import dataclass, field
from typing import Any

from megasbp.experiment.arm_stages import Chosen
from megasbp.experiment.budget import ArmPlan
from megasbp.experiment.context import Context
from megasbp.experiment.gates import Gate
from megasbp.experiment.stages import StageResult


@dataclass
class SeedResults:
    """The finished stages of one seed that the results are assembled from, with the first one's trials."""

    context: Context
    chosen: Chosen
    trials: list[StageResult]
    embed: StageResult | None
    pairs: StageResult
    synthesizers: dict[str, StageResult]
    synthesizer_trials: dict[str, list[StageResult]]
    pair_value: StageResult
    gates: list[Gate]
    synthesis: dict[str, StageResult] = field(default_factory=dict)
    trained: dict[str, StageResult] = field(default_factory=dict)
    losses: dict[str, StageResult] = field(default_factory=dict)
    best_losses: dict[str, StageResult] = field(default_factory=dict)
    plans: dict[str, ArmPlan] = field(default_factory=dict)
    ledgers: dict[str, dict[str, Any]] = field(default_factory=dict)
    quality: dict[str, StageResult] = field(default_factory=dict)
    packed: dict[str, StageResult] = field(default_factory=dict)
    triples: StageResult | None = None
    arm_trials: dict[str, list[StageResult]] = field(default_factory=dict)
    measures: dict[str, StageResult] = field(default_factory=dict)
    downstream: dict[str, StageResult] = field(default_factory=dict)
    domains: StageResult | None = None
