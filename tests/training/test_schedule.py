import math

import pytest
from training_world import training_config

from megasbp.training.schedule import (
    best_step,
    evenly_spaced,
    learning_rate,
    patience_is_over,
    retained_steps,
)


def test_warmup_is_linear_and_reaches_the_peak_at_its_last_step() -> None:
    config = training_config(learning_rate=2.0, warmup_share=0.1)
    rates = [learning_rate(config, step, 100) for step in range(1, 11)]
    assert rates == pytest.approx([0.2 * step for step in range(1, 11)], rel=1e-12)


def test_cosine_is_halfway_at_half_time_and_ends_at_the_minimum() -> None:
    config = training_config(learning_rate=2.0, warmup_share=0.0, minimum_learning_rate_ratio=0.25)
    assert learning_rate(config, 50, 100) == pytest.approx(1.25, rel=1e-12)
    assert learning_rate(config, 25, 100) == pytest.approx(0.5 + 1.5 * (1 + math.sqrt(0.5)) / 2, rel=1e-12)
    assert learning_rate(config, 100, 100) == pytest.approx(0.5, rel=1e-12)


def test_constant_stays_at_the_peak_to_the_end() -> None:
    config = training_config(learning_rate=2.0, warmup_share=0.1, schedule="constant")
    assert {learning_rate(config, step, 100) for step in range(10, 101)} == {2.0}


def test_wsd_falls_by_the_root_of_the_way_in_the_last_steps() -> None:
    config = training_config(
        learning_rate=2.0, warmup_share=0.1, schedule="wsd", decay_share=0.4, minimum_learning_rate_ratio=0.25
    )
    assert {learning_rate(config, step, 100) for step in range(10, 61)} == {2.0}
    assert learning_rate(config, 70, 100) == pytest.approx(0.5 + 1.5 * 0.5, rel=1e-12)
    assert learning_rate(config, 100, 100) == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_short_runs_have_rates_between_zero_and_the_peak(steps: int, share: float, schedule: str) -> None:
    config = training_config(learning_rate=1.0, warmup_share=share, schedule=schedule)
    rates = [learning_rate(config, step, steps) for step in range(1, steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)


def test_evenly_spaced_steps_end_with_the_last_one() -> None:
    assert evenly_spaced(100, 4) == [25, 50, 75, 100]
    assert evenly_spaced(10, 4) == [3, 5, 8, 10]
    assert evenly_spaced(3, 10) == [1, 2, 3]
    assert evenly_spaced(3, 0) == []


def history(*losses: float) -> list[dict]:
    return [{"step": 10 * number, "validation_loss": loss} for number, loss in enumerate(losses, start=1)]


def test_the_best_step_is_the_first_of_equals() -> None:
    assert best_step(history(3.0, 2.0, 2.0, 2.5)) == 20
    assert best_step(history(3.0, 2.0, 1.0), until=20) == 20
    assert best_step([]) is None


def test_patience_counts_validations_since_the_best() -> None:
    assert not patience_is_over(history(3.0, 2.0, 2.5), 2)
    assert patience_is_over(history(3.0, 2.0, 2.5, 2.0), 2)
    assert not patience_is_over(history(3.0, 2.0, 2.5, 2.0), None)
    assert not patience_is_over([], 1)


def test_kept_are_the_newest_the_best_and_while_running_the_best_as_of_each_kept_one() -> None:
    losses = history(3.0, 2.0, 2.5, 1.0)
    assert retained_steps([20, 30, 40], 40, 2, losses, finished=True) == {30, 40}
    assert retained_steps([20, 30, 40], 40, 2, losses, finished=False) == {20, 30, 40}
    assert retained_steps([20, 30, 40], 30, 1, losses[:3], finished=True) == {20, 30}


def test_a_checkpoint_off_the_schedule_is_kept_until_the_next_one() -> None:
    assert retained_steps([20, 40], 33, 1, [], finished=False) == {33}
    assert retained_steps([20, 40], 40, 1, [], finished=False) == {40}
