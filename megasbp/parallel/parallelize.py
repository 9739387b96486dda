"""Spreads a model over the ranks: context and tensor parallelism, pipeline stages, then FSDP2."""

from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from megasbp.kernels.attention import Segments, attention
from megasbp.kernels.attention_backend import Backend, choose
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Block, Transformer
from megasbp.parallel.compiled import compile_blocks
from megasbp.parallel.context import attend_in_context, take_context_part
from megasbp.parallel.fp8 import Scaling, multiply_in_fp8
from megasbp.parallel.pipeline import Pipeline
from megasbp.parallel.recompute import Mode, checkpoint_activations
from megasbp.parallel.runtime import PARAMETERS, REPLICATE, TENSOR, Runtime
from megasbp.parallel.stage import Stage
from megasbp.parallel.stages import stage_layers, stages_of_rank
from megasbp.parallel.tensor import apply_tensor_parallel, sum_norms_in_fp32

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class BlockOptions:
    """How blocks compute.

    Attributes:
        checkpointing: of activations; see `checkpoint_activations`.
        compiled: see `compile_blocks`.
        fp8: see `multiply_in_fp8`.
        attention: see `attention_backend.choose`.
    """

    checkpointing: Mode = "none"
    compiled: bool = False
    fp8: Scaling | None = None
    attention: Backend = "auto"


PLAIN = BlockOptions()


def parallel_model(
    config: ModelConfig,
    runtime: Runtime,
    compute_dtype: torch.dtype,
    options: BlockOptions = PLAIN,
    sequence_length: int = 1,
    z_loss: float = 0.0,
) -> Transformer | Pipeline:
    """This rank's part of a model, on its device; weights are unset. No rank ever holds the whole.

    Parameters have torch's default type (fp32) and, with several ranks, are DTensors: divided by
    `apply_tensor_parallel`, where the layout has tensor parallelism, and then sharded along dimension 0 over
    the ranks that hold the same stage. A rank's loss is that of its rows' tokens, or of its part of them, so
    gradients are summed, not averaged, and in fp32 at least.

    Args:
        compute_dtype: torch.float32, or torch.bfloat16, in which the parameters are then gathered too.
        options: how its blocks compute.
        sequence_length: for which a pipeline's stages are made equal in work.
        z_loss: see `Transformer`.
    """
    if runtime.pipeline is None or runtime.parallel.pipeline == 1:
        model = _whole(config, runtime, compute_dtype, options, z_loss)
        if runtime.context is not None and runtime.parallel.context > 1:
            take_context_part(model, runtime.context, ("tokens", "positions", "labels"))
        return _sharded(model, runtime)
    parallel = runtime.parallel
    layers = stage_layers(config, sequence_length, parallel.stages)
    stages = {}
    for number in stages_of_rank(parallel, runtime.pipeline.get_local_rank()):
        whole = _whole(config, runtime, compute_dtype, options, z_loss)
        stage = Stage(whole, layers[number], number == 0, number == parallel.stages - 1)
        if runtime.context is not None and parallel.context > 1:
            names = ("received",) if stage.first else ()
            take_context_part(stage, runtime.context, (*names, "positions", "labels"))
        stages[number] = _sharded(stage, runtime)
    return Pipeline(stages, config, parallel, runtime.pipeline.get_group(), runtime.device)


def _whole(
    config: ModelConfig,
    runtime: Runtime,
    compute_dtype: torch.dtype,
    options: BlockOptions,
    z_loss: float,
) -> Transformer:
    """The model on no device, its blocks changed as the layout asks for."""
    with torch.device("meta"):
        model = Transformer(config)
    model.compute_dtype, model.z_loss = compute_dtype, z_loss
    if options.fp8 is not None:
        multiply_in_fp8(model, options.fp8)
    in_context = runtime.context is not None and runtime.parallel.context > 1
    backend = of_whole_rows = options.attention
    if backend == "auto" and options.compiled and runtime.device.type == "cuda":
        # Asked here, once: torch.compile cannot trace how a GPU and what is installed are looked up.
        q = torch.empty(0, 1, 1, config.head_dim, dtype=compute_dtype, device=runtime.device)
        backend = choose("auto", q, q, q, segmented=True, placed=in_context).backend
        of_whole_rows = choose("auto", q, q, q, segmented=False).backend
    if in_context:
        assert runtime.context is not None
        attend_in_context(model, runtime.context, backend)
    elif backend != "auto":
        for block in model.blocks.values():
            assert isinstance(block, Block)
            block.attention.attend = partial(_attend, backend, of_whole_rows)
    if runtime.mesh is not None and runtime.tensor_ranks > 1:
        apply_tensor_parallel(model, runtime.mesh[TENSOR], runtime.parallel.asynchronous_tensor)
    checkpoint_activations(model, options.checkpointing)
    if options.compiled:
        compile_blocks(model)
    return model


def _attend(
    backend: Backend,
    of_whole_rows: Backend,
    q_BSHE: torch.Tensor,
    k_BSKE: torch.Tensor,
    v_BSKE: torch.Tensor,
    segments: Segments | None,
) -> torch.Tensor:
    """`attention` by one backend where rows have segments, and another where they are whole."""
    chosen = of_whole_rows if segments is None else backend
    return attention(q_BSHE, k_BSKE, v_BSKE, segments, chosen)


def _sharded(model: M, runtime: Runtime) -> M:
    """Applies FSDP2 to each block and to the rest, and gives the parameters memory."""
    if runtime.mesh is not None:
        # With one copy there is no second axis, whose all-reduces would be idle.
        data = runtime.mesh[PARAMETERS]
        if runtime.parallel.replicate > 1:
            data = runtime.mesh[REPLICATE, PARAMETERS]
        whole = model.part if isinstance(model, Stage) else model
        assert isinstance(whole, Transformer)
        compute_dtype = whole.compute_dtype
        policy = MixedPrecisionPolicy(
            param_dtype=compute_dtype if compute_dtype == torch.bfloat16 else None,
            reduce_dtype=torch.promote_types(compute_dtype, torch.float32),
            # The model casts activations itself; casting fp32 inputs (rotary tables) would lose precision.
            cast_forward_inputs=False,
        )
        modules: list[nn.Module] = [*whole.blocks.values(), model]
        for module in modules:
            fully_shard(module, mesh=data, mp_policy=policy)
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)
            # A divide factor becomes a pre-multiplied sum, which gloo lacks, unless the plain sum is forced.
            module.set_force_sum_reduction_for_comms(True)
            if runtime.tensor_ranks > 1:
                sum_norms_in_fp32(module)
    return model.to_empty(device=runtime.device)


def begin_micro_batch(model: nn.Module, index: int, count: int) -> None:
    """Call before the forward pass of micro-batch `index` of `count` of one optimiser step.

    Parameters do not change between the micro-batches of a step: each is gathered once, kept, and given up
    in the last backward pass, which alone reduces the gradients. The whole gradients are held meanwhile
    anyway, so keeping the parameters does not change the order of memory. A single micro-batch keeps FSDP2's
    own order, in which a block's parameters live only while it runs.
    """
    if count == 1 or not isinstance(model, FSDPModule):
        return
    last = index == count - 1
    model.set_reshard_after_forward(False)
    model.set_reshard_after_backward(last)
    model.set_requires_gradient_sync(last)


def release_parameters(model: nn.Module) -> None:
    """Gives gathered parameters up after forward passes that no backward pass followed."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
