"""torch.compile, block by block: all blocks run one program, which is compiled once."""

import torch

from megasbp.model.transformer import Transformer


def compile_blocks(model: Transformer) -> None:
    """Has the blocks of a model compiled at their first call, in place.

    Names of parameters do not change, and FSDP2's gathering stays outside of what is compiled. Collectives of
    tensor and context parallelism divide a block into several programs. Sums are made in another order than
    without it.
    """
    for block in model.blocks.values():
        block.forward = torch.compile(block.forward)
