"""One stage of a pipeline: some consecutive blocks of the model, and what stands before or behind them."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage

from megasbp.model.transformer import Transformer


class Stage(nn.Module):
    """A whole model, from which the blocks of other stages are taken away.

    The first stage has the embedding; the last one the final norm, the output layer and the loss. Where
    embedding and output layer are one table, the last stage has a copy of it (see `TiedTable`).

    Attributes:
        part: the model; what lies on other stages is deleted, all else is called as ever.
        first, last: whether it is the first or the last stage of the model.
    """

    def __init__(self, whole: Transformer, layers: range, first: bool, last: bool) -> None:
        super().__init__()
        self.part, self.first, self.last = whole, first, last
        whole.blocks = nn.ModuleDict({str(layer): whole.blocks[str(layer)] for layer in layers})
        if not first and not (last and whole.output is None):
            del whole.embedding
        if not last:
            del whole.norm
            whole.output = None

    @property
    def table_copy(self) -> nn.Parameter | None:
        """The output layer of a tied model on its last stage; the first stage has the embedding itself."""
        return self.part.embedding.weight if self.last and self.part.output is None else None

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Those that no other stage has, by their names in the whole model."""
        copy = self.table_copy
        for name, parameter in self.part.named_parameters():
            if parameter is not copy:
                yield name, parameter

    def forward(
        self,
        received: torch.Tensor,
        positions: torch.Tensor,
        segments: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One micro-batch through this stage.

        Args:
            received: tokens, int [B, S], for the first stage; for others what the stage before gave.
            positions, segments, labels: of the whole rows; as of `Transformer.forward`.

        Returns:
            The residual stream, `compute_dtype` [B, S of this rank, D]; of the last stage the summed loss of
            the labelled tokens in nats, scalar.
        """
        part = self.part
        x_BSD = part.embedding(received, part.compute_dtype) if self.first else received
        x_BSD = part.through_blocks(x_BSD, positions, segments)
        if not self.last:
            return x_BSD
        assert labels is not None
        return part.nats(part.finish(x_BSD), labels, "sum")


class AccumulatingStage(PipelineStage):
    """torch's stage; deferred gradients of weights are added up in the type in which they are reduced.

    torch adds those of one micro-batch to those of another in the type of the gathered parameters, bfloat16.
    """

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        """The gradients of the weights that `backward_one_chunk` has left out."""
        super().backward_weight_one_chunk(bwd_chunk_id, last_backward)
        for module in self.submod.modules():
            if isinstance(module, FSDPModule):
                group = module._get_fsdp_state()._fsdp_param_group
                for parameter in group.fsdp_params if group is not None else ():
                    parameter.accumulate_unsharded_grad_if_needed()
                    parameter.to_accumulated_grad_if_needed()
