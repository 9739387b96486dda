"""What is measured on one seed's synthetic text: which stage is made from which."""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from megasbp.experiment.arms import is_seeded, written_arms
from megasbp.experiment.duplicate_stages import duplicates_stage
from megasbp.experiment.judge_stages import REAL, judge_facts, judge_stage
from megasbp.experiment.part import Part, below, seed_part
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.relation_stages import embed_text_stage, relation_stage
from megasbp.experiment.sharing_stages import sharing_stage
from megasbp.experiment.stages import StageResult
from megasbp.experiment.topic_stages import topics_stage

if TYPE_CHECKING:
    from megasbp.experiment.method import SeedStages

# Begins the names of the judge's stages in `TextMeasures.all`.
JUDGE = "judge/"


def measuring_parts(recipe: Recipe, seed: int, embed: str | None) -> list[Part]:
    """The parts that make what `TextMeasures` has.

    Args:
        embed: the part that embeds the corpus; None when the recipe names no embedder.
    """
    written = written_arms(recipe.budget.arms)
    seeded = [arm for arm in written if is_seeded(arm)]

    def own(stage: str, arms: list[str]) -> tuple[str, ...]:
        return below(seed, *(f"{stage}-{arm}" for arm in arms))

    listed = []
    if embed is not None:
        for arm in written:
            needs = (embed, *own("synthesis", [arm]))
            listed.append(seed_part(seed, f"embed-{arm}", "inference", needs, partial(_embedded, arm)))
        if seeded:
            needs = (*below(seed, "pairs"), *own("embed", seeded))
            listed.append(seed_part(seed, "relation", "data", needs, lambda stages: stages.measures.relation))
        if written:
            needs = own("embed", written)
            listed.append(seed_part(seed, "topics", "data", needs, lambda stages: stages.measures.topics))
    if written:
        needs = own("synthesis", written)
        listed += [
            seed_part(seed, "duplicates", "data", needs, lambda stages: stages.measures.duplicates),
            seed_part(seed, "sharing", "data", needs, lambda stages: stages.measures.sharing),
        ]
        if recipe.quality.judge is not None:
            needs, stages = (*below(seed, "pairs"), *needs), (f"judge-{name}" for name in (*REAL, *written))
            listed.append(
                seed_part(seed, "judge", "inference", needs, lambda seed: seed.measures.judged, *stages)
            )
    return listed


def _embedded(arm: str, stages: "SeedStages") -> object:
    return stages.measures.embedded(arm)


def measured(recipe: Recipe, seed: int, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """What the results say of these stages, from `TextMeasures.all` of a seed."""
    found = {}
    if "relation" in stages:
        facts = stages["relation"].facts
        found["relation"] = {"embedder": facts["embedder"], **facts["relation"]}
    if "topics" in stages:
        found["topics"] = stages["topics"].facts["topics"]
    if "sharing" in stages:
        facts = stages["sharing"].facts
        found["contamination"] = {"tests": facts["contamination"], "before_filters": facts["before_filters"]}
        if "measured" in facts:
            found["contamination"]["measured"] = facts["measured"]
    judged = {name.removeprefix(JUDGE): one for name, one in stages.items() if name.startswith(JUDGE)}
    if recipe.quality.judge is not None and judged:
        found["judge"] = judge_facts(recipe.quality.judge, seed, judged)
    return found


def with_measures(quality: dict[str, Any], stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """Figures of quality by name of the text, with those that these stages add to them."""
    if not stages.keys() >= {"duplicates", "sharing"}:
        return quality
    shares, density = stages["duplicates"].facts["near_duplicates_at"], stages["sharing"].facts["density"]
    found = {}
    for name, one in quality.items():
        found[name] = {**one, "near_duplicates_at": shares[name]}
        for source in ("seed", "corpus"):
            copied = one[f"{source}_copy"]
            if copied is not None:
                found[name][f"{source}_copy"] = {**copied, "density": density[name][source]}
    return found


class TextMeasures:
    """Stages that no training waits for."""

    def __init__(self, seed: "SeedStages", recipe: Recipe) -> None:
        self._seed, self._recipe = seed, recipe
        self._written = written_arms(recipe.budget.arms)
        self._embedded: dict[str, StageResult] = {}

    def embedded(self, arm: str) -> StageResult:
        """Vectors of an arm's text; only where the recipe names an embedder."""
        if arm not in self._embedded:
            embed = self._seed.embed
            assert embed is not None
            self._embedded[arm] = embed_text_stage(
                self._seed.context, arm, self._synthesis(arm), embed, self._seed.embedding_model
            )
        return self._embedded[arm]

    @cached_property
    def relation(self) -> StageResult | None:
        """Whether texts show their seeds; None without an embedder, or an arm whose writer reads seeds."""
        arms = [arm for arm in self._written if is_seeded(arm)]
        if self._seed.embed is None or not arms:
            return None
        return relation_stage(
            self._seed.context,
            self._seed.pairs,
            self._seed.embed,
            {arm: self._synthesis(arm) for arm in arms},
            {arm: self.embedded(arm) for arm in arms},
        )

    @cached_property
    def topics(self) -> StageResult | None:
        """The shift of topics; None without an embedder or synthetic text."""
        if self._seed.embed is None or not self._written:
            return None
        embedded = {arm: self.embedded(arm) for arm in self._written}
        return topics_stage(self._seed.context, self._seed.embed, embedded)

    @cached_property
    def duplicates(self) -> StageResult | None:
        """Near-duplicates among the first N documents; None where no arm has synthetic text."""
        if not self._written:
            return None
        return duplicates_stage(self._seed.context, {arm: self._synthesis(arm) for arm in self._written})

    @cached_property
    def sharing(self) -> StageResult | None:
        """What it shares with the corpus and with tests; None where no arm has synthetic text."""
        if not self._written:
            return None
        return sharing_stage(self._seed.context, {arm: self._synthesis(arm) for arm in self._written})

    @cached_property
    def judged(self) -> dict[str, StageResult]:
        """What the recipe's judge says of real text and of each arm's; empty without a judge."""
        if self._recipe.quality.judge is None or not self._written:
            return {}
        context, sources = self._seed.context, dict.fromkeys(REAL, self._seed.pairs)
        sources |= {arm: self._synthesis(arm) for arm in self._written}
        return {name: judge_stage(context, name, source) for name, source in sources.items()}

    def all(self) -> dict[str, StageResult]:
        """The stages that the results are assembled from, by name."""
        stages = {
            "relation": self.relation,
            "topics": self.topics,
            "duplicates": self.duplicates,
            "sharing": self.sharing,
        }
        made = {name: stage for name, stage in stages.items() if stage is not None}
        return made | {f"{JUDGE}{name}": stage for name, stage in self.judged.items()}

    def _synthesis(self, arm: str) -> StageResult:
        stage = self._seed.arm(arm).synthesis
        assert stage is not None
        return stage
