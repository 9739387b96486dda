"""Who this process is among the ranks, and the few collectives that the trainer calls itself."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from megasbp.errors import InputError
from megasbp.parallel.config import DATA_ONLY, ParallelConfig, rank_problem

PIPELINE, REPLICATE, SHARD, CONTEXT, TENSOR = "pp", "dp_replicate", "dp_shard", "cp", "tp"
# Of the parameters: those who share rows share them too.
PARAMETERS = "dp_shard_cp"


@dataclass(frozen=True)
class Runtime:
    """One process of a run.

    Attributes:
        rank: 0 <= rank < world_size.
        world_size: processes of the run.
        device: where this process computes.
        mesh: the ranks by PIPELINE, REPLICATE, PARAMETERS and TENSOR, None for one process; those of the last
            axis are neighbours.
        pipeline: the ranks that hold the other stages of the model for the same rows, one axis;
        context: the ranks that share this one's rows and stage, one axis; and
        data: those of this stage that read different rows, one axis. All None for one process.
        parallel: the layout that was asked for. One process alone ignores it; whoever trains checks it.
        group: carries the collectives over all ranks; None for torch's default group.
        spare_group: all ranks once more, for `in_background`; None for one process.
    """

    rank: int
    world_size: int
    device: torch.device
    mesh: DeviceMesh | None = None
    pipeline: DeviceMesh | None = None
    context: DeviceMesh | None = None
    data: DeviceMesh | None = None
    parallel: ParallelConfig = DATA_ONLY
    group: dist.ProcessGroup | None = None
    spare_group: dist.ProcessGroup | None = None

    @classmethod
    def start(cls, parallel: ParallelConfig = DATA_ONLY) -> Self:
        """Joins torchrun's process group, or is one plain process when torchrun did not start this one.

        Collectives of CPU tensors go through gloo on every machine, so that agreeing on counts and on
        stopping never waits for an accelerator; those of CUDA tensors go through NCCL.

        Raises:
            InputError: more processes on this host than it has GPUs, a number that no layout takes, or some
                ranks see a GPU and others none.
        """
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        problem = rank_problem(parallel, world_size)
        if problem and world_size > 1:
            raise InputError(problem)
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        device = torch.device("cpu")
        if torch.cuda.is_available():
            if local_rank >= torch.cuda.device_count():
                raise InputError(
                    f"torchrun --nproc-per-node: {local_rank + 1} or more processes for "
                    f"{torch.cuda.device_count()} GPUs; set it to at most {torch.cuda.device_count()}"
                )
            device = torch.device("cuda", local_rank)
            torch.cuda.set_device(device)
        if world_size == 1:
            return cls(0, 1, device, parallel=parallel)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        spare = dist.new_group(backend="gloo")
        with_gpu = torch.tensor(int(device.type == "cuda"))
        dist.all_reduce(with_gpu, group=spare)
        if 0 < with_gpu < world_size:
            sees = (
                "sees one" if device.type == "cuda" else "sees none; mend its driver, or CUDA_VISIBLE_DEVICES"
            )
            raise InputError(
                f"{int(with_gpu)} of {world_size} ranks see a GPU; rank {dist.get_rank()} on "
                f"{socket.gethostname()} {sees}"
            )
        return cls(dist.get_rank(), world_size, device, spare_group=spare).laid_out(parallel)

    def laid_out(self, parallel: ParallelConfig) -> Self:
        """The same ranks in another layout; they are a multiple of what it takes."""
        pipeline, replicate = parallel.pipeline, parallel.replicate
        context, tensor = parallel.context, parallel.tensor
        shard = self.world_size // parallel.unit
        # Two views of the same ranks: one that shards parameters, one that says who reads what.
        mesh = init_device_mesh(
            self.device.type,
            (pipeline, replicate, shard * context, tensor),
            mesh_dim_names=(PIPELINE, REPLICATE, PARAMETERS, TENSOR),
        )
        rows = init_device_mesh(
            self.device.type,
            (pipeline, replicate, shard, context, tensor),
            mesh_dim_names=(PIPELINE, REPLICATE, SHARD, CONTEXT, TENSOR),
        )
        data = rows[REPLICATE, SHARD]._flatten("dp")
        return replace(
            self, mesh=mesh, pipeline=mesh[PIPELINE], context=rows[CONTEXT], data=data, parallel=parallel
        )

    def in_background(self) -> Self:
        """For one other thread: its collectives over all ranks do not meet those of the main thread."""
        return replace(self, group=self.spare_group)

    @property
    def described(self) -> str:
        """How many processes compute, and on what."""
        place = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return f"{self.world_size} ranks on {place}" if self.world_size > 1 else f"one process on {place}"

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which slice of each global batch this rank reads, in [0, data_ranks)."""
        return 0 if self.data is None else self.data.get_local_rank()

    @property
    def data_ranks(self) -> int:
        """Number of slices that a global batch is cut into."""
        return 1 if self.data is None else self.data.size()

    @property
    def tensor_ranks(self) -> int:
        """Ranks that share each matrix."""
        return 1 if self.mesh is None else self.mesh[TENSOR].size()

    def sum_over_data(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sums `tensor` over the ranks that read different rows, in place; returns it."""
        if self.data is not None:
            dist.all_reduce(tensor, group=self.data.get_group())
        return tensor

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sums `tensor` over all ranks, in place; returns it."""
        if self.world_size > 1:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def broadcast(self, text: str) -> str:
        """The main rank's `text`, on every rank. As bytes: nothing is pickled."""
        if self.world_size == 1:
            return text
        data = text.encode()
        length = int(self.sum(torch.tensor(len(data) if self.is_main else 0)))
        buffer = torch.tensor(list(data if self.is_main else bytes(length)), dtype=torch.uint8)
        dist.broadcast(buffer, src=0, group=self.group)
        return bytes(buffer.tolist()).decode()

    def barrier(self) -> None:
        """Returns when every rank has called it."""
        self.sum(torch.zeros(1))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main rank runs the block before all others: it writes files there, and they find them."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def close(self) -> None:
        """Leaves the process group."""
        if self.world_size > 1:
            dist.destroy_process_group()


ALONE = Runtime(0, 1, torch.device("cpu"))


def computes_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 in hardware: GPUs since Ampere, and CPUs with AVX512-BF16.

    Other CPUs emulate it. That is slow, and a row's last bits were then seen to depend on its company.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
