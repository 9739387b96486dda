from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from megasbp.errors import InputError
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.exchange import Completion
from megasbp.synthesis.filters import Measurements, verdicts
from megasbp.synthesis.ledger import Ledger
from megasbp.synthesis.progress import SynthesisProgress
from megasbp.synthesis.provenance import PROVENANCE_SCHEMA, Origin, shard_columns, shard_table, text_hash

CONFIG = SynthesisConfig(minimum_tokens=2, minimum_acceptance=0.1)
ORIGIN = Origin("c", "t", "s", 2**64 - 1, 1.0, 0.9, 24, 64, 8, 3, 8, "cpu", "float32", 1, "2")
CLEAN = Measurements(0.0, 0.0, 0.0, 0.0)


def shard(*documents: list[int], reason: str = "eos", config: SynthesisConfig = CONFIG) -> pa.Table:
    completions = [Completion(np.array(tokens, np.int64), reason) for tokens in documents]
    rows = np.arange(len(documents))
    columns = shard_columns(rows, rows, rows, [5] * len(rows), completions, [CLEAN] * len(rows))
    return shard_table(columns, verdicts(columns, config), ORIGIN)


def test_a_duplicate_of_an_earlier_shard_is_dropped():
    ledger = Ledger(CONFIG)
    ledger.add(shard([4, 5, 6], [7, 8]))
    table = ledger.add(shard([7, 8], [9, 9]))
    assert table["dropped_by"].to_pylist() == ["duplicate", ""]
    assert table["document"].to_pylist() == [-1, 2]


def test_duplicates_are_kept_where_the_recipe_says_so():
    ledger = Ledger(SynthesisConfig(minimum_tokens=2, drop_duplicates=False))
    assert ledger.add(shard([7, 8], [7, 8]))["accepted"].to_pylist() == [True, True]


def test_a_document_that_another_filter_drops_makes_no_later_one_a_duplicate():
    ledger = Ledger(CONFIG)
    ledger.add(shard([7, 8], reason="length"))
    assert ledger.add(shard([7, 8]))["accepted"].to_pylist() == [True]


def test_tokens_are_counted_as_they_are_stored_and_drawn():
    ledger = Ledger(CONFIG)
    ledger.add(shard([4, 5, 6], [7]))  # the second is too short
    ledger.add(shard([7, 8], reason="length"))
    assert (ledger.requests, ledger.documents) == (3, 1)
    assert ledger.tokens == 3 + 2  # bos and eos around it
    assert ledger.prompt_tokens == 15
    assert ledger.generated_tokens == (3 + 1) + (1 + 1) + 2  # the stop token is drawn too
    assert {name: count for name, count in ledger.drops.items() if count} == {"too_short": 1, "no_end": 1}


def test_a_run_that_drops_nearly_everything_stops_and_names_the_filter():
    ledger = Ledger(CONFIG)
    ledger.add(shard(*[[4] for _ in range(240)], *[[4, row] for row in range(20)]))
    message = r"20 of 260 .* too_short dropped 240 \(92.3%\): lower synthesis.minimum_tokens"
    with pytest.raises(InputError, match=message):
        ledger.require_acceptance()


def test_few_requests_are_not_judged():
    ledger = Ledger(CONFIG)
    ledger.add(shard(*[[4] for _ in range(255)]))
    ledger.require_acceptance()


def test_a_run_that_accepts_nothing_stops_even_without_a_minimum():
    ledger = Ledger(SynthesisConfig(minimum_acceptance=0.0))
    ledger.add(shard(*[[4] for _ in range(256)]))
    with pytest.raises(InputError, match="0 of 256"):
        ledger.require_acceptance()


def test_rows_follow_the_published_schema(tmp_path: Path):
    table = Ledger(CONFIG).add(shard([4, 5]))
    assert table.schema == PROVENANCE_SCHEMA
    assert table["noise_key"].to_pylist() == [2**64 - 1]


def test_the_text_hash_does_not_depend_on_the_integer_type():
    assert text_hash(np.array([1, 2], np.uint16)) == text_hash(np.array([1, 2], np.int64))
    assert text_hash(np.array([1, 2])) != text_hash(np.array([2, 1]))


def test_the_progress_line_says_speed_share_and_time_left():
    line = str(SynthesisProgress(100, 60, 9_000, 36_000, 4_100.0, {"no_end": 30, "too_short": 10}, 3_725.0))
    assert line == (
        "synthesis: 9,000/36,000 tokens accepted, 60/100 documents, dropped no_end 30.0%, too_short 10.0%, "
        "4,100 tokens/s, 1:02:05 left"
    )
