"""A decode step as a CUDA graph: its kernels are launched by one call of the host instead of hundreds.

A graph repeats what was launched, on the memory that was used then. So a step must take everything that
changes from static buffers or from memory that is changed in place (the cache, its table of pages), and the
host must not look at a number of the device.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from megasbp.errors import InputError
from megasbp.kernels.route import route

Graphs = Literal["auto", "on", "off"]
# Of static buffers to a static result.
Step = Callable[..., torch.Tensor]
# Prepares a call: gives what repeats it, and its result, which every repetition overwrites.
Capture = Callable[[Callable[[], torch.Tensor]], tuple[Callable[[], None], torch.Tensor]]

# Calls before the capture: kernels are compiled and libraries take their memory, which a capture cannot.
_WARM_UPS = 3


class GraphedStep:
    """A step that is captured at its first call, and repeated from then on.

    Args:
        step: takes tensors, returns one. Called with zeros while it is captured, which must change nothing
            that is used later.
        capture: `capture_cuda_graph`, or what a test puts there.
    """

    def __init__(self, step: Step, capture: Capture) -> None:
        self._step, self._capture = step, capture
        self._buffers: tuple[torch.Tensor, ...] = ()
        self._replay: Callable[[], None] | None = None
        self._result = torch.empty(0)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The step's result, valid until the next call; inputs have the shapes and types of the first call's.

        Raises:
            ValueError: they have not.
        """
        if self._replay is None:
            self._buffers = tuple(torch.zeros_like(given) for given in inputs)
            self._replay, self._result = self._capture(lambda: self._step(*self._buffers))
        _require_same(inputs, self._buffers)
        for buffer, given in zip(self._buffers, inputs, strict=True):
            buffer.copy_(given)
        self._replay()
        return self._result


def capture_cuda_graph(call: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
    """Captures a call on the current GPU; see `Capture`."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph.replay, result


def uses_graphs(graphs: Graphs, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether decoding is captured: asked for, on a GPU whose kernels are in Triton.

    PyTorch's references of kernels ask the device for sizes, which a graph cannot.

    Raises:
        InputError: "on", and it cannot be.
    """
    possible = route(torch.empty(0, dtype=dtype, device=device)) == "triton"
    if graphs == "on" and not possible:
        raise InputError(
            f"synthesis.cuda_graphs is on, and {device} runs {dtype} without Triton's kernels; a CUDA graph "
            'needs a GPU with triton; set it to "auto" or "off"'
        )
    return graphs != "off" and possible


def _require_same(inputs: Sequence[torch.Tensor], buffers: Sequence[torch.Tensor]) -> None:
    for given, buffer in zip(inputs, buffers, strict=True):
        if given.shape != buffer.shape or given.dtype != buffer.dtype:
            raise ValueError(
                f"an input is {given.dtype} {tuple(given.shape)}; the captured step takes {buffer.dtype} "
                f"{tuple(buffer.shape)}"
            )
