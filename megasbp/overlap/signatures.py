"""MinHash signatures of dataset shards on disk, from tokens.

A signature has 128 slots (after Fast Similarity Sketching, csrc/signatures.cpp). Each slot of two documents
agrees with a probability equal to their Jaccard similarity, and the share of slots that agree spreads no more
than 128 independent draws would; tests/overlap measures both. Two arrays are kept:

- keys.npy, uint64 [bands, documents]: a hash of a band's rows, each taken at its full 64 bits, so that
  documents meet in a band by similarity and not by a short hash. Band after band, for one band is read alone.
  2**64 - 1 marks a document without tokens.
- slots.npy, uint8 [documents, 128]: each slot cut to 8 bits, which is enough to estimate a similarity: slots
  that should differ agree with a chance of 1/256 (b-bit MinHash, Li and König 2010), which is taken into
  account. Document after document, for estimates read single documents.

At threshold 0.7 that is 25 * 8 + 128 = 328 bytes a document, where 128 slots of 32 bits would be 512.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.native import named_errors, native_errors
from megasbp.errors import InputError
from megasbp.overlap.clusters import SIGNATURE_SLOTS, rows_per_band
from megasbp.overlap.shingles import checked_width
from megasbp.storage import publish_json, read_json

_KEYS, _SLOTS, _SETTINGS = "keys.npy", "slots.npy", "signatures.json"
# Written at once: about 22 MB.
_DOCUMENTS_AT_ONCE = 1 << 16


def bands_at(threshold: float) -> int:
    """Number of bands of the signatures for a threshold.

    Raises:
        InputError: the threshold is not in (0, 1], or too low.
    """
    return SIGNATURE_SLOTS // rows_per_band(threshold)


def write_signatures(
    shard: int, folder: Path, *, datasets: Sequence[Path], width: int, threshold: float, seed: int
) -> dict[str, Any]:
    """Stage function: the signatures of one dataset shard, into an existing folder.

    On as many threads as OMP_NUM_THREADS says, by which an engine bounds a task, else on every processor; the
    bytes do not depend on it. Memory: 25 MB and 12 bytes per token of the longest document a thread.

    Args:
        shard: number of the dataset.
        datasets: paths without suffix. The documents' bos and eos are left out.
        width: shingle width in tokens; for documents shorter than it see `megasbp.overlap.shingles`.
        threshold: the Jaccard similarity that the bands are made for, in (0, 1].
        seed: of the hash functions.

    Returns:
        {"documents": their number, "empty": how many have no tokens}.

    Raises:
        InputError: the dataset or a setting.
        OSError: a failed write, with errno and the file's name.
    """
    rows, bands = rows_per_band(threshold), bands_at(threshold)
    checked_width(width)
    dataset = IndexedDataset(Path(datasets[shard]))
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    special = [dataset.metadata.get(name, -1) for name in ("bos", "eos")]
    key = derive_key(seed, "minhash signature")
    empty = 0
    keys_path, slots_path = Path(folder) / _KEYS, Path(folder) / _SLOTS
    with (
        named_errors(keys_path),
        open(keys_path, "wb") as keys_file,
        named_errors(slots_path),
        open(slots_path, "wb") as slots_file,
    ):
        keys_start = _write_header(keys_file, np.dtype("<u8"), (bands, len(dataset)))
        _write_header(slots_file, np.dtype("u1"), (len(dataset), SIGNATURE_SLOTS))
        for start in range(0, len(dataset), _DOCUMENTS_AT_ONCE):
            stop = min(start + _DOCUMENTS_AT_ONCE, len(dataset))
            with native_errors(str(dataset.prefix)):
                keys, slots = core.dataset_signatures(
                    dataset.native, start, stop, *special, width, rows, key, threads
                )
            empty += int((keys[0] == core.EMPTY_DOCUMENT).sum())
            with named_errors(keys_path):
                for band in range(bands):
                    keys_file.seek(keys_start + 8 * (band * len(dataset) + start))
                    keys_file.write(keys[band].data)
            slots_file.write(slots.data)
    settings = {"width": width, "threshold": threshold, "seed": seed, "documents": len(dataset)}
    publish_json(Path(folder) / _SETTINGS, settings)
    return {"documents": len(dataset), "empty": empty}


@dataclass(frozen=True)
class Signatures:
    """What `write_signatures` wrote, memory-mapped.

    Attributes:
        keys: uint64 [bands, documents].
        slots: uint8 [documents, 128].
        settings: {"width", "threshold", "seed"} that they were made with.
    """

    keys: np.ndarray
    slots: np.ndarray
    settings: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Signatures":
        """Opens a shard's signatures.

        Raises:
            InputError: a file is missing, damaged or not of the announced size; the message names it.
        """
        settings_path = Path(folder) / _SETTINGS
        settings = read_json(settings_path)
        if not isinstance(settings, dict) or settings.keys() != {"width", "threshold", "seed", "documents"}:
            raise InputError(f"{settings_path}: describes no signatures; make the shard's signatures again")
        documents = settings.pop("documents")
        keys = _open_array(
            Path(folder) / _KEYS, np.dtype("<u8"), (bands_at(settings["threshold"]), documents)
        )
        slots = _open_array(Path(folder) / _SLOTS, np.dtype("u1"), (documents, SIGNATURE_SLOTS))
        return cls(keys, slots, settings)


def open_all(folders: Sequence[Path]) -> list[Signatures]:
    """The signatures of all shards, which must have been made alike.

    Raises:
        InputError: no folder, a damaged one, or one made with other settings than the first.
    """
    if not folders:
        raise InputError("no signatures; name the folder of at least one shard")
    shards = [Signatures.open(folder) for folder in folders]
    for folder, shard in zip(folders, shards, strict=True):
        if shard.settings != shards[0].settings:
            raise InputError(
                f"{folder}: made with {shard.settings}, those of {folders[0]} with {shards[0].settings}; "
                "make all signatures with the same settings"
            )
    return shards


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Writes a .npy header; returns where the data start."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _open_array(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    mend = "make the shard's signatures again"
    try:
        # An empty file cannot be mapped; it has nothing to read either.
        array = np.load(path, mmap_mode="r" if 0 not in shape else None, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {mend}") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: damaged ({error}); {mend}") from None
    if array.dtype != dtype or array.shape != shape:
        raise InputError(
            f"{path}: {array.dtype} {list(array.shape)} where {dtype} {list(shape)} was written; {mend}"
        )
    return array
