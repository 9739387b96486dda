"""Small arrays between the host and a device, without either waiting for the other."""

import numpy as np
import torch


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy on the device. A GPU takes it behind what it was given before, as the array is now."""
    if device.type != "cuda":
        return torch.tensor(array, device=device)
    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)


class HostCopy:
    """A tensor's numbers on the host, as they are when the device has come to this.

    Args:
        tensor: may be written over afterwards.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._numbers = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._numbers.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._numbers = tensor.clone()

    def wait(self) -> np.ndarray:
        """The numbers; waits for the device."""
        if self._event is not None:
            self._event.synchronize()
        return self._numbers.numpy()
