"""The parts of one seed, each after those that it needs."""

from collections.abc import Callable, Sequence
from functools import partial

from megasbp.experiment.arm_stages import Chosen, trial_grid
from megasbp.experiment.arms import first_written_arms, share_of, writer_of
from megasbp.experiment.budget import EQUAL_FLOPS_ARMS, trained_arms
from megasbp.experiment.method import SeedStages
from megasbp.experiment.part import Part, below, seed_part
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.text_measures import measuring_parts
from megasbp.launch.config import Kind

# The part from whose stages an arm's rows are packed.
_PACKED_FROM = {"in_context": "pairs", "seed_packing": "synthesis-sbp"}
# The part that makes the checkpoint from which an arm's text is written.
_WRITERS = {
    "true": "synthesizer-true",
    "random": "synthesizer-random",
    "continuation": "synthesizer-continuation",
    "second": "synthesizer-second",
    "untuned": "train-baseline",
}
_SECOND = "second_round"
Pieces = Sequence[Callable[[SeedStages], object]]


class SeedParts:
    """Lists them."""

    def __init__(self, recipe: Recipe, seed: int) -> None:
        self._recipe, self._seed = recipe, seed
        self._first = recipe.seeds[0]
        self._arms = trained_arms(recipe)
        self._written = first_written_arms(self._arms)
        # What the first seed's baseline was tuned to is the setting of all others, and of every arm.
        self._tuned = f"seed-{self._first}/train-baseline"
        self._embed = self._embed_part()

    def listed(self) -> list[Part]:
        """All of them."""
        embed = None if self._embed is None else self._embed.name
        return [
            *self._pairs_and_synthesizers(),
            *self._text(),
            *self._gates(),
            *self._trainings(),
            *(measuring_parts(self._recipe, self._seed, embed) if self._seed == self._first else ()),
            *self._evaluations(),
        ]

    def _part(
        self,
        name: str,
        kind: Kind,
        needs: tuple[str, ...],
        make: Callable[[SeedStages], object],
        *stages: str,
        pieces: Pieces = (),
    ) -> Part:
        return seed_part(self._seed, name, kind, needs, make, *stages, pieces=pieces)

    def _own(self, *names: str) -> tuple[str, ...]:
        return below(self._seed, *names)

    def _embed_part(self) -> Part | None:
        """Only the project's own checkpoint differs between seeds; outside embedders are shared by all."""
        if self._recipe.pairing.embedder == "none":
            return None
        if self._recipe.pairing.embedder == "checkpoint":
            return self._part("embed", "inference", self._own("train-baseline"), lambda stages: stages.embed)
        seed = self._seed
        return Part("embed", "inference", ("corpus",), ("embed",), lambda method: method.seed(seed).embed)

    def _pairs_and_synthesizers(self) -> list[Part]:
        before = ("corpus",) if self._seed == self._first else ("corpus", self._tuned)
        listed = [
            self._part(
                "train-baseline",
                "training",
                before,
                lambda stages: (stages.trials, stages.baseline),
                pieces=self._trials("baseline"),
            )
        ]
        if self._embed is not None and (self._seed == self._first or self._embed.name != "embed"):
            listed.append(self._embed)
        needs = ("corpus",) if self._embed is None else (self._embed.name,)
        listed += [
            self._part("pairs", "data", needs, lambda stages: stages.pairs),
            self._part(
                "synthesizer-true",
                "tuning",
                self._own("train-baseline", "pairs"),
                lambda stages: stages.true_synthesizers,
                pieces=self._tunings("true"),
            ),
            self._part(
                "synthesizer-random",
                "tuning",
                self._own("synthesizer-true"),
                lambda stages: stages.random_synthesizer,
            ),
            self._part(
                "pair-value",
                "evaluation",
                self._own("synthesizer-random"),
                lambda stages: stages.pair_value,
            ),
        ]
        if "continuation" in self._arms:
            listed += [
                self._part(
                    "pairs-continuation",
                    "data",
                    ("units-continuation",),
                    lambda stages: stages.continuation_pairs,
                ),
                self._part(
                    "synthesizer-continuation",
                    "tuning",
                    self._own("train-baseline", "pairs-continuation"),
                    lambda stages: stages.continuation_synthesizers,
                    pieces=self._tunings("continuation"),
                ),
            ]
        return listed

    def _text(self) -> list[Part]:
        listed = [self._synthesis(arm) for arm in self._written]
        if self._seed == self._first and "sbp" in self._arms and self._recipe.evaluation.triples:
            needs = self._own("synthesis-sbp")
            listed.append(self._part("triples", "inference", needs, lambda stages: stages.triples))
        for arm in (arm for arm in self._arms if arm in _PACKED_FROM):
            needs = self._own(_PACKED_FROM[arm])
            listed.append(self._part(f"packed-{arm}", "data", needs, partial(_packed, arm)))
        return listed

    def _synthesis(self, arm: str) -> Part:
        needs = self._own(_WRITERS[str(writer_of(arm))])
        return self._part(f"synthesis-{arm}", "inference", needs, partial(_synthesis, arm))

    def _gates(self) -> list[Part]:
        written = self._written
        return [
            self._part(
                "quality",
                "data",
                self._own(*(f"synthesis-{arm}" for arm in written)) or ("corpus",),
                lambda stages: (stages.real_quality, [stages.arm(arm).quality for arm in written]),
                *(f"quality-{arm}" for arm in ("real", *written)),
                pieces=[lambda stages: stages.real_quality, *_each(_quality, written)],
            ),
            self._part(
                "gates", "data", self._own("pair-value", "quality"), lambda stages: stages.pass_gates()
            ),
        ]

    def _trainings(self) -> list[Part]:
        # The second round waits for the model of SBP.
        arms = [arm for arm in self._arms if arm not in {"baseline", _SECOND}]
        listed = [self._training(arm) for arm in arms]
        return [*listed, *self._second_round()] if _SECOND in self._arms else listed

    def _training(self, arm: str) -> Part:
        match share_of(arm):
            case "synthetic":
                gate = f"gate-{_SECOND}" if arm == _SECOND else "gates"
                needs = self._own(gate, f"synthesis-{arm}")
            case "seeded":
                needs = self._own("gates", f"packed-{arm}")
            case "neighbours":
                needs = self._own(f"packed-{arm}")
            case _:
                needs = self._own("synthesis-sbp") if arm in EQUAL_FLOPS_ARMS else (self._tuned,)
        each = self._recipe.tuning.arms == "each" and arm not in EQUAL_FLOPS_ARMS
        if each and self._seed != self._first:
            needs += below(self._first, f"train-{arm}")
        pieces = self._trials(arm) if each else ()
        return self._part(f"train-{arm}", "training", needs, partial(_trained, arm), pieces=pieces)

    def _trials(self, arm: str) -> Pieces:
        """An arm at each setting that is tried, which is done on the first seed."""
        if self._seed != self._first:
            return ()
        return _several(
            [partial(_tried, arm, setting) for setting in dict.fromkeys(trial_grid(self._recipe))]
        )

    def _tunings(self, kind: str) -> Pieces:
        """The synthesizers of a kind, at each learning rate."""
        rates = dict.fromkeys(self._recipe.synthesizer.learning_rates)
        return _several([partial(_tuned, kind, rate) for rate in rates])

    def _second_round(self) -> list[Part]:
        return [
            self._part(
                "synthesizer-second",
                "tuning",
                self._own("train-sbp", "pairs"),
                lambda stages: stages.second_synthesizers,
                pieces=self._tunings("second"),
            ),
            self._synthesis(_SECOND),
            self._part(
                f"gate-{_SECOND}",
                "data",
                self._own(f"synthesis-{_SECOND}", "quality"),
                lambda stages: stages.pass_round_gate(),
                f"quality-{_SECOND}",
                f"gate-{_SECOND}",
            ),
            self._training(_SECOND),
        ]

    def _evaluations(self) -> list[Part]:
        arms = self._arms
        trained = self._own(*(f"train-{arm}" for arm in arms))
        listed = [
            self._part(
                "losses",
                "evaluation",
                trained,
                lambda stages: [_losses(arm, stages) for arm in arms],
                *(f"{losses}-{arm}" for arm in arms for losses in ("losses", "losses-best")),
                pieces=_each(_losses, arms),
            )
        ]
        if self._recipe.evaluation.downstream.tasks:
            made = [f"downstream-{arm}" for arm in arms]
            listed.append(
                self._part(
                    "downstream",
                    "inference",
                    trained,
                    lambda stages: [_downstream(arm, stages) for arm in arms],
                    *made,
                    pieces=_each(_downstream, arms),
                )
            )
        return listed


def _synthesis(arm: str, stages: SeedStages) -> object:
    return stages.arm(arm).synthesis


def _packed(arm: str, stages: SeedStages) -> object:
    return stages.arm(arm).packed


def _trained(arm: str, stages: SeedStages) -> object:
    return stages.arm(arm).trained


def _quality(arm: str, stages: SeedStages) -> object:
    return stages.arm(arm).quality


def _losses(arm: str, stages: SeedStages) -> object:
    stages.require_finite()
    return stages.arm(arm).losses, stages.arm(arm).best_losses


def _downstream(arm: str, stages: SeedStages) -> object:
    stages.require_finite()
    return stages.arm(arm).downstream


def _each(make: Callable[[str, SeedStages], object], arms: Sequence[str]) -> Pieces:
    """A piece for each arm."""
    return [partial(make, arm) for arm in arms]


def _several(pieces: Pieces) -> Pieces:
    """One piece is the whole part."""
    return pieces if len(pieces) > 1 else ()


def _tried(arm: str, setting: Chosen, stages: SeedStages) -> object:
    return stages.baseline_at(setting) if arm == "baseline" else stages.arm(arm).trained_at(setting)


def _tuned(kind: str, rate: float, stages: SeedStages) -> object:
    return stages.tuned(kind, [rate])
