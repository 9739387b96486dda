import json

import pytest

from megasbp.corpus.quarantine import Position, Quarantine
from megasbp.corpus.readers import read_documents
from megasbp.errors import InputError


def corpus_file(path, good: int, bad: int):
    lines = ['{"text": "good"}'] * good + ["bad"] * bad
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_small_share_of_bad_documents_does_not_stop_the_run(tmp_path):
    quarantine = Quarantine(tmp_path, 0.01)

    documents = list(read_documents([corpus_file(tmp_path / "a.jsonl", 99, 1)], quarantine=quarantine))

    assert len(documents) == 99
    assert quarantine.summary() == {"accepted": 99, "rejected": 1, "reasons": {"invalid_json": 1}}


def test_too_large_a_share_names_counts_file_and_mend(tmp_path):
    quarantine = Quarantine(tmp_path / "out", 0.01)
    reading = read_documents([corpus_file(tmp_path / "a.jsonl", 98, 2)], quarantine=quarantine)

    with pytest.raises(InputError) as caught:
        list(reading)

    message = str(caught.value)
    assert "2 of 100 documents are bad (2 invalid_json), above corpus.maximum_bad_share 0.01" in message
    assert f"{quarantine.path} lists them" in message
    assert len(quarantine.path.read_text().splitlines()) == 2


def test_the_share_is_not_judged_before_a_hundred_documents(tmp_path):
    quarantine = Quarantine(tmp_path, 0.5)
    for number in range(99):
        quarantine.reject(Position("a.jsonl", line=number + 1), "invalid_json")

    with pytest.raises(InputError, match="100 of 100"):
        quarantine.reject(Position("a.jsonl", line=100), "invalid_json")


def test_a_short_corpus_is_judged_at_its_end(tmp_path):
    reading = read_documents([corpus_file(tmp_path / "a.jsonl", 3, 1)], quarantine=Quarantine(tmp_path, 0.2))

    documents = [next(reading) for _ in range(3)]

    assert len(documents) == 3
    with pytest.raises(InputError, match="1 of 4"):
        next(reading)


def test_a_clean_reading_publishes_an_empty_file(tmp_path):
    quarantine = Quarantine(tmp_path / "out", 0.0)

    list(read_documents([corpus_file(tmp_path / "a.jsonl", 3, 0)], quarantine=quarantine))
    quarantine.close()

    assert quarantine.path.read_bytes() == b""


def test_a_reading_that_ends_early_publishes_nothing(tmp_path):
    quarantine = Quarantine(tmp_path / "out", 1.0)
    file = tmp_path / "a.jsonl"
    file.write_text('bad\n{"text": "good"}\n' * 3)
    reading = read_documents([file], quarantine=quarantine)
    next(reading)

    reading.close()

    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_reading_needs_its_own_quarantine(tmp_path):
    quarantine = Quarantine(tmp_path, 1.0)
    quarantine.close()

    with pytest.raises(ValueError, match="make one for each reading"):
        quarantine.reject(Position("a.jsonl"), "invalid_json")


def test_records_survive_text_that_is_no_unicode(tmp_path):
    quarantine = Quarantine(tmp_path, 1.0)

    quarantine.reject(Position("a.jsonl", line=1, offset=0), "invalid_json", "\ud800" + "x" * 1000)
    quarantine.close()

    record = json.loads(quarantine.path.read_text())
    assert record["detail"] == "\ud800" + "x" * 199
