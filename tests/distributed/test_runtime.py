"""Ranks agree on what they compute on before they lay themselves out."""

import socket
from pathlib import Path

from launch import launch


def test_ranks_with_and_without_a_gpu_end_and_say_who_they_are(tmp_path: Path) -> None:
    launch("mixed_devices.py", tmp_path, seconds=120)
    said = [(tmp_path / str(rank)).read_text() for rank in range(3)]
    for rank in (0, 1):
        assert said[rank] == (
            f"1 of 3 ranks see a GPU; rank {rank} on {socket.gethostname()} sees none; mend its driver, or "
            "CUDA_VISIBLE_DEVICES"
        )
    assert said[2] == f"1 of 3 ranks see a GPU; rank 2 on {socket.gethostname()} sees one"
