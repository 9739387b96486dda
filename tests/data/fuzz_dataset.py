"""Damages datasets at random and reads them; anything but a ValueError or right tokens ends it.

    python fuzz_dataset.py FOLDER SECONDS SEED [FIRST_CASE]

Case n is a pure function of (SEED, n), so a failure is repeated by its number. FOLDER/case holds the number
of the case at work, also after a crash.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from damaged_data import read_documents, read_everything, read_native
from data_reference import METADATA, random_documents, write_dataset

from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter, dataset_files

INTERESTING = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**61,
    2**62,
    2**63 - 1,
]
INTERESTING += [-value for value in INTERESTING if value]
PLAN = ("row_bounds.npy", "row_pairs.npy", "seed_documents.npy", "target_documents.npy")


def originals(folder: Path) -> list[Path]:
    """Prefixes of undamaged datasets, each with a plan beside it where it can have one."""
    random = np.random.default_rng(0)
    prefixes = []
    for dtype in ("uint8", "uint16", "int32", "int64", "float32", "float64"):
        documents = random_documents(random.integers(0, 12, 40).tolist())
        documents = [[min(token, 250) for token in document] for document in documents]
        prefixes.append(write_dataset(folder / dtype, documents, dtype).prefix)
    with IndexedDatasetWriter(folder / "parts", np.uint16, metadata=METADATA) as writer:
        for _ in range(20):
            lengths = random.integers(0, 5, random.integers(0, 4))
            writer.add_document(np.full(lengths.sum(), 9), lengths.astype(np.int64))
    with IndexedDatasetWriter(folder / "empty", np.uint16, metadata=METADATA):
        pass
    for prefix in prefixes:
        read_everything(prefix, prefix.with_name(prefix.name + ".plan"))
    return [*prefixes, folder / "parts", folder / "empty"]


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """One to three small damages: bits, numbers as tables have them, missing, doubled, exchanged bytes."""
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        size = len(changed)
        place = int(random.integers(0, size + 1))
        kind = int(random.integers(0, 6))
        if kind == 0 and place < size:
            changed[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            value = INTERESTING[int(random.integers(0, len(INTERESTING)))] + int(random.integers(-2, 3))
            width = int(random.choice([1, 4, 8]))
            # Half of the time where the index has its counts.
            start = int(random.choice([9, 17, 18, 26, 34])) if random.random() < 0.5 else place
            number = (value % 2 ** (8 * width)).to_bytes(width, "little")
            changed[start : start + width] = number
        elif kind == 2:
            del changed[place:]
        elif kind == 3:
            del changed[place : place + int(random.integers(1, 20))]
        elif kind == 4:
            end = place + int(random.integers(1, 40))
            changed[place:place] = changed[place:end]
        else:
            other, width = int(random.integers(0, size + 1)), int(random.choice([1, 4, 8]))
            first, second = bytes(changed[place : place + width]), bytes(changed[other : other + width])
            if len(first) == len(second):
                changed[place : place + width], changed[other : other + width] = second, first
    return bytes(changed)


def accept(prefix: Path) -> None:
    """Makes NAME.json announce the damaged files' sizes, so that what comes after this check is reached."""
    path = dataset_files(prefix)[2]
    description = json.loads(path.read_text())
    for file in dataset_files(prefix)[:2]:
        description["files"][file.suffix]["bytes"] = file.stat().st_size
    path.write_text(json.dumps(description))


def run_case(seed: int, number: int, prefixes: list[Path], folder: Path) -> bool:
    """Damages one or two files of one dataset and reads it in every way; True when something was refused."""
    random = np.random.default_rng([seed, number])
    original = prefixes[int(random.integers(0, len(prefixes)))]
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    prefix = work / "x"
    targets = []
    for source, target in zip(dataset_files(original), dataset_files(prefix), strict=True):
        shutil.copyfile(source, target)
        targets += [target] * (3 if target.suffix == ".idx" else 1)
    plan = original.with_name(original.name + ".plan")
    if plan.is_dir():
        shutil.copytree(plan, work / "plan")
        targets += [work / "plan" / name for name in PLAN]
    damaged = [targets[i] for i in random.integers(0, len(targets), random.integers(1, 3))]
    for target in damaged:
        target.write_bytes(mutate(target.read_bytes(), random))
    if random.random() < 0.5 and prefix.with_suffix(".json") not in damaged:
        accept(prefix)
    refused = 0
    try:
        read_everything(prefix, work / "plan" if plan.is_dir() else None)
    except ValueError:
        refused += 1
    try:
        read_documents(IndexedDataset(prefix))
    except ValueError:
        refused += 1
    try:
        refused += read_native(prefix, random)
    except ValueError:
        refused += 1
    return refused > 0


def main(folder: Path, seconds: float, seed: int, first: int) -> None:
    prefixes = originals(folder)
    end = time.monotonic() + seconds
    number, refused = first, 0
    while time.monotonic() < end:
        (folder / "case").write_text(str(number))
        refused += run_case(seed, number, prefixes, folder)
        number += 1
    print(json.dumps({"cases": number - first, "refused": refused}))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else 0
    )
