from benchmarks.published_memory import predicted, rows


def test_every_published_run_has_an_estimate_of_its_order() -> None:
    found = rows()
    assert [row["assumed"] for row in found] == [""] * 14 + ["micro_batch"] * 4
    assert all(row["source"].startswith("torchtitan ") for row in found)
    # What is reached stands in benchmarks/results; far outside it, arithmetic broke.
    assert all(-0.3 < row["error"] < 0.4 for row in found)


def test_more_gpus_need_less_and_longer_rows_more() -> None:
    first, *_, pipelined = rows()
    assert predicted(pipelined) < predicted({**pipelined, "micro_batch": "4"})
    assert predicted({**first, "gpus": "128"}) < predicted(first) < predicted({**first, "micro_batch": "4"})
