"""Pipeline parallelism: the ranks of a group hold different blocks and hand micro-batches on to each other.

The order of their passes is a schedule of torch.distributed.pipelining (Huang et al., arXiv 1811.06965;
Narayanan et al., arXiv 2104.04473; Qi et al., arXiv 2401.10241; DeepSeek-AI, arXiv 2412.19437). All ranks of
the group read the same rows. Gradients are sums over the micro-batches; nothing is scaled by their number.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import pipelining
from torch.distributed.fsdp import FSDPModule

from megasbp.data.batch import Batch
from megasbp.model.config import ModelConfig
from megasbp.parallel.config import ParallelConfig
from megasbp.parallel.stage import AccumulatingStage, Stage
from megasbp.parallel.stages import stages_of_rank
from megasbp.parallel.tied import TiedTable

_OF_ONE_STAGE = {"gpipe": pipelining.ScheduleGPipe, "1f1b": pipelining.Schedule1F1B}
_OF_STAGES = {
    "interleaved_1f1b": pipelining.ScheduleInterleaved1F1B,
    "interleaved_zero_bubble": pipelining.ScheduleInterleavedZeroBubble,
    "zbv_zero_bubble": pipelining.ScheduleZBVZeroBubble,
    "dualpipe_v": pipelining.ScheduleDualPipeV,
}


class Pipeline(nn.Module):
    """This rank's stages of a model.

    Attributes:
        stages: by number, as text, rising.
        config: of the whole model.
        tied: the table that first and last stage share; None where embedding and output layer differ.
    """

    def __init__(
        self,
        stages: Mapping[int, Stage],
        config: ModelConfig,
        parallel: ParallelConfig,
        group: dist.ProcessGroup,
        device: torch.device,
    ) -> None:
        """Takes the stages of this rank, whose parameters are in place.

        Args:
            group: the ranks of the pipeline.
            device: where this rank computes.
        """
        super().__init__()
        self.config = config
        self.stages = nn.ModuleDict({str(number): stage for number, stage in sorted(stages.items())})
        self._parallel, self._group, self._device = parallel, group, device
        self._rank_of = {
            number: rank for rank in range(parallel.pipeline) for number in stages_of_rank(parallel, rank)
        }
        self._schedule: Any = None
        self._shape: tuple[int, ...] = ()
        # Of the step under way: its divisor, and the loss of its micro-batches.
        self._valid_tokens = 1
        self._nats = torch.zeros((), dtype=torch.float64, device=device)
        self.tied = self._tied_table() if config.tied else None

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Those of this rank by their names in the whole model; a tied table's copy is not among them."""
        for stage in self._own.values():
            for name, parameter in stage.own_parameters():
                yield prefix + name, parameter

    def accumulate_gradients(self, batch: Batch, micro_batch: int, valid_tokens: int) -> torch.Tensor:
        """Adds the gradient of the summed loss / valid_tokens over this rank's rows.

        Args:
            batch: of the same shape at every call; its rows are a multiple of `micro_batch`.

        Returns:
            The summed loss of the rows in nats, float64 scalar on the device; 0 without the last stage.
        """
        self._prepare(batch, micro_batch)
        self._valid_tokens = valid_tokens
        self._nats = torch.zeros_like(self._nats)
        batch = batch.to(self._device)
        self._schedule.step(
            *((batch.tokens,) if "0" in self.stages else ()),
            target=batch.labels,
            return_outputs=False,
            positions=batch.positions,
            segments=batch.segments,
            labels=batch.labels,
        )
        if self.tied is not None:
            self.tied.add_gradients()
        return self._nats

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, segments: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The summed loss of rows in nats, scalar, without gradients; 0 on ranks without the last stage.

        Args:
            tokens, positions, segments, labels: as of `Transformer.forward`; the same on all ranks.
        """
        nats = torch.zeros((), device=self._device)
        handed = tokens
        for number, stage in self._own.items():
            before, after = self._rank_of.get(number - 1), self._rank_of.get(number + 1)
            if before is not None and str(number - 1) not in self.stages:
                handed = self._hidden(*tokens.shape, device=self._device)
                dist.recv(handed, group=self._group, group_src=before)
            handed = stage(handed, positions, segments, labels)
            if after is None:
                nats = handed
            elif str(number + 1) not in self.stages:
                dist.send(handed.contiguous(), group=self._group, group_dst=after)
        return nats

    @property
    def _own(self) -> dict[int, Stage]:
        own = {}
        for number, stage in self.stages.items():
            assert isinstance(stage, Stage)
            own[int(number)] = stage
        return own

    def _tied_table(self) -> TiedTable:
        table = copy = None
        for stage in self._own.values():
            table = stage.part.embedding.weight if stage.first else table
            copy = stage.table_copy if stage.table_copy is not None else copy
        return TiedTable(self._group, self._rank_of[0], self._rank_of[self._parallel.stages - 1], table, copy)

    def _hidden(self, rows: int, length: int, **options: Any) -> torch.Tensor:
        """Of the shape and type of what stages hand on."""
        part = next(iter(self._own.values())).part
        # Between the blocks the tokens of a row are divided.
        tokens = length // (self._parallel.context * self._parallel.tensor)
        return torch.empty(rows, tokens, self.config.width, dtype=part.compute_dtype, **options)

    def _prepare(self, batch: Batch, micro_batch: int) -> None:
        """Makes the schedule, at the first call."""
        shape = (*batch.tokens.shape, micro_batch)
        if shape == self._shape:
            return
        assert not self._shape, "every step has the same shape"
        self._shape = shape
        rows, length = batch.tokens.shape
        hidden = self._hidden(micro_batch, length, device="meta", requires_grad=True)
        tokens = torch.empty(micro_batch, length, dtype=batch.tokens.dtype, device="meta")
        loss_type = torch.promote_types(hidden.dtype, torch.float32)
        stages: list[Any] = []
        for number, stage in self._own.items():
            if isinstance(stage, FSDPModule):
                # Parameters stay the same between the micro-batches of a step.
                stage.set_reshard_after_forward(False)
            stages.append(
                AccumulatingStage(
                    stage,
                    number,
                    self._parallel.stages,
                    self._device,
                    input_args=tokens if stage.first else hidden,
                    output_args=torch.empty((), dtype=loss_type, device="meta", requires_grad=True)
                    if stage.last
                    else hidden,
                    group=self._group,
                )
            )
        options: dict[str, Any] = {
            "n_microbatches": rows // micro_batch,
            "loss_fn": self._mean_loss,
            "scale_grads": False,
        }
        name = self._parallel.schedule
        if name in _OF_ONE_STAGE:
            self._schedule = _OF_ONE_STAGE[name](stages[0], **options)
        else:
            self._schedule = _OF_STAGES[name](stages, **options)

    def _mean_loss(self, nats: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self._nats += nats.detach()
        return nats / self._valid_tokens
