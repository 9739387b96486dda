import time
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_world import read_metrics

from megasbp.training.metrics import MetricsLog


def write_steps(folder: Path, after: int, until: int, loss: float) -> None:
    log = MetricsLog(folder, after)
    log.write([{"step": step, "loss": loss + step} for step in range(after + 1, until + 1)])
    log.sync()
    log.close()


def test_opening_at_a_step_drops_the_later_rows(tmp_path: Path) -> None:
    write_steps(tmp_path, 0, 9, loss=0.0)
    write_steps(tmp_path, 4, 6, loss=0.5)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0, 2.0, 3.0, 4.0, 5.5, 6.5]


def test_a_torn_last_row_is_dropped(tmp_path: Path) -> None:
    write_steps(tmp_path, 0, 3, loss=0.0)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    write_steps(tmp_path, 3, 4, loss=0.0)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_rows_before_the_step_keep_their_bytes(tmp_path: Path) -> None:
    write_steps(tmp_path, 0, 9, loss=0.0)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    write_steps(tmp_path, 9, 12, loss=0.0)
    assert (tmp_path / "metrics.jsonl").read_bytes().startswith(before)


def test_tensorboard_shows_each_step_once_with_its_last_value(tmp_path: Path) -> None:
    write_steps(tmp_path, 0, 9, loss=0.0)
    # Names of event files begin with the second, and end with a number that does not sort: 9 comes behind 10.
    time.sleep(1.1)
    write_steps(tmp_path, 4, 11, loss=0.5)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = {point.step: point.value for point in events.Scalars("loss")}
    assert len(shown) == len(events.Scalars("loss"))
    assert shown == {step: step + (0.5 if step > 4 else 0.0) for step in range(1, 12)}


def test_values_that_are_missing_or_not_finite_are_no_points(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    log.write([{"step": 1, "loss": None, "gradient_norm": 1.0}])
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["gradient_norm"]
