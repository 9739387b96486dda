"""Safetensors files written one tensor after the other: no second copy in memory, equal tensors equal bytes.

The format (github.com/huggingface/safetensors): eight bytes, the length of a JSON header; the header: type,
shape and place of each tensor; the tensors, without gaps. The library's own writer builds the whole file in
memory and orders the metadata anew each time.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

_TYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_safetensors(
    path: Path,
    shapes: Mapping[str, torch.Tensor],
    read: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str],
) -> str:
    """Writes a file and forces it to disk.

    Args:
        shapes: name -> a tensor of the shape and floating type to be written; it may be on the "meta" device.
        read: name -> its values, on the host; called once a tensor, in the order of the file.

    Returns:
        The file's SHA-256, hexadecimal.

    Raises:
        OSError: the disk is full.
    """
    # Types of the largest alignment come first, so that every tensor is aligned.
    names = sorted(shapes, key=lambda name: (-shapes[name].itemsize, name))
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for data in _parts(names, shapes, read, metadata):
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _parts(
    names: Sequence[str],
    shapes: Mapping[str, torch.Tensor],
    read: Callable[[str], torch.Tensor],
    metadata: Mapping[str, str],
) -> Iterator[bytes | memoryview]:
    yield _header(names, shapes, metadata)
    for name in names:
        tensor, wanted = read(name), shapes[name]
        assert (tensor.shape, tensor.dtype) == (wanted.shape, wanted.dtype), name
        yield tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _header(names: Sequence[str], shapes: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        begin, end = end, end + shapes[name].nbytes
        kind = _TYPES[shapes[name].dtype]
        entries[name] = {"dtype": kind, "shape": list(shapes[name].shape), "data_offsets": [begin, end]}
    encoded = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded
