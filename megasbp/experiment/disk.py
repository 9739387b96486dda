"""What a run will write, before it starts."""

from dataclasses import dataclass

from megasbp.experiment.arm_stages import trial_grid
from megasbp.experiment.arms import share_of, written_arms
from megasbp.experiment.budget import synthetic_need, trained_arms
from megasbp.experiment.recipe import Recipe
from megasbp.model.flops import parameter_count
from megasbp.training.job import CHECKPOINT_BYTES_PER_PARAMETER

# Beyond the tokens: document tables, provenance, filters' shards that are merged afterwards.
_DATASET_OVERHEAD = 2.5


@dataclass(frozen=True)
class DiskEstimate:
    """Bytes by kind, for all seeds of the recipe."""

    datasets: int
    embeddings: int
    checkpoints: int
    synthetic: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.datasets + self.embeddings + self.checkpoints + self.synthetic


def estimate_disk(recipe: Recipe) -> DiskEstimate:
    """An upper estimate by arithmetic: nothing is read."""
    corpus, budget = recipe.corpus, recipe.budget
    seeds = len(recipe.seeds)
    token_bytes = 2 if recipe.model.vocabulary_size <= 2**16 else 4
    multiples = sum(budget.multiples) * corpus.unique
    documents = corpus.unique + corpus.oracle + corpus.validation + corpus.test + multiples
    per_document = budget.expected_tokens_per_document * token_bytes
    kept = recipe.training.keep_checkpoints + 1
    trials = 1 + sum(arm in budget.arms for arm in ("continuation", "second_round"))
    tuned_arms = len(trained_arms(recipe)) if recipe.tuning.arms == "each" else 1
    trained = tuned_arms * len(trial_grid(recipe)) + seeds * (
        len(trained_arms(recipe)) + 1 + trials * len(recipe.synthesizer.learning_rates)
    )
    writers = len(written_arms(budget.arms))
    # A row of these arms holds as much of a real document again.
    packed = sum(share_of(arm) in {"neighbours", "seeded"} for arm in budget.arms)
    shares = writers + 2 * packed
    return DiskEstimate(
        datasets=round(documents * per_document * _DATASET_OVERHEAD),
        embeddings=(corpus.unique + corpus.validation + corpus.test) * 1024 * 4,
        checkpoints=trained * kept * parameter_count(recipe.model) * CHECKPOINT_BYTES_PER_PARAMETER,
        synthetic=round(seeds * shares * synthetic_need(recipe) * token_bytes * _DATASET_OVERHEAD),
    )
