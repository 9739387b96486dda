"""The jobs of these tests are those of tests/training, their pairs of documents those of tests/data."""

import sys
from pathlib import Path

for room in ("training", "data"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / room))
