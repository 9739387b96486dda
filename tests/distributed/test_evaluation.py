from pathlib import Path

from launch import launch


def test_ranks_that_share_the_rows_find_the_bytes_of_one_process(tmp_path: Path) -> None:
    launch("evaluation_cases.py", tmp_path, seconds=120)
