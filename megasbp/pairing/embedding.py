"""What the embedders share: batches of alike length, unit rows, hashes of weights."""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

# (documents done, documents in all)
Progress = Callable[[int, int], None]


def length_batches(lengths: Sequence[int], budget: int) -> list[np.ndarray]:
    """Batches of documents of alike length, longest first, so that little is padded.

    Args:
        lengths: tokens of each document.
        budget: tokens of a padded batch at most (a longer document is a batch of its own).

    Returns:
        int64 arrays that hold every index once. The longest come first: what does not fit in memory fails at
        once, and the remaining time is never underestimated.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        longest = max(1, lengths[order[start]])
        size = max(1, budget // longest)
        batches.append(order[start : start + size])
        start += size
    return batches


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """float32 [n, d] rows of length 1, computed in float64; a row of zeros stays one."""
    wide = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(norms > 0, norms, 1)).astype(np.float32)


def hash_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def count_parameters(model: torch.nn.Module) -> int:
    """Elements of all parameters except those of embedding tables, which are looked up and not multiplied."""
    tables = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in tables)


def hash_texts(texts: Iterable[str]) -> str:
    """SHA-256 over texts in order, hexadecimal."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
