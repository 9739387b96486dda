import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from synthesis_world import (
    CHECKPOINT,
    CONFIG,
    EOS,
    HELD_OUT,
    WIDTH,
    Marks,
    file_hashes,
    open_seeds,
    run,
    tiny_model,
)

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.synthesis import streaming as module
from megasbp.synthesis.filters import FILTERS
from megasbp.synthesis.provenance import PROVENANCE_SCHEMA, text_hash
from megasbp.synthesis.regenerate import regenerate


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return open_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def finished(model, seeds, tmp_path_factory):
    """A finished corpus: (folder, result)."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder, model, seeds)


@pytest.fixture
def corpus(finished, tmp_path):
    """A copy of the finished corpus that a test may spoil."""
    return shutil.copytree(finished[0], tmp_path / "corpus")


@pytest.fixture
def no_generation(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("an engine was started")

    monkeypatch.setattr(module, "engine_of", refuse)


def test_the_corpus_holds_the_accepted_documents_in_order_of_request(finished):
    _, result = finished
    dataset = IndexedDataset(result.dataset_prefix)
    table = pq.read_table(result.provenance_path)
    accepted = table.filter(table["accepted"])
    assert accepted["document"].to_pylist() == list(range(len(dataset)))
    stored = [dataset.document(document) for document in range(len(dataset))]
    assert [text_hash(tokens[1:-1]) for tokens in stored] == accepted["text_hash"].to_pylist()
    assert all((tokens[0], tokens[-1]) == (Marks.bos, EOS) for tokens in stored)


def test_the_corpus_reaches_the_need_with_its_last_shard_only(finished):
    _, result = finished
    table = pq.read_table(result.provenance_path)
    tokens = np.where(table["accepted"], np.array(table["length"]) + 2, 0)
    assert tokens.sum() == result.tokens == IndexedDataset(result.dataset_prefix).tokens
    assert tokens[: -CONFIG.shard_documents].sum() < 400 <= result.tokens


def test_every_request_has_a_row_and_drops_add_up(finished):
    _, result = finished
    table = pq.read_table(result.provenance_path)
    assert table.schema.names == PROVENANCE_SCHEMA.names
    assert table["request"].to_pylist() == list(range(result.shards * CONFIG.shard_documents))
    assert result.requests == len(table) == result.documents + sum(result.drops.values())
    for name in FILTERS:
        assert result.drops[name] == table["dropped_by"].to_pylist().count(name)


def test_fewer_seeds_are_asked_for_more_draws_of_the_same_bytes(finished, model, seeds, tmp_path):
    config = CONFIG.model_copy(update={"seed_documents": 4})
    few = run(tmp_path, model, seeds, config=config)
    columns = ("seed_doc", "draw", "text_hash")
    found, whole = (
        list(zip(*(pq.read_table(one.provenance_path)[name].to_pylist() for name in columns), strict=True))
        for one in (few, finished[1])
    )
    assert len({seed for seed, _, _ in found}) == 4
    # A draw of a seed is what it is in a run on all seeds.
    texts = {(seed, draw): text for seed, draw, text in whole}
    shared = [(seed, draw, text) for seed, draw, text in found if (seed, draw) in texts]
    assert len(shared) >= 4 and all(texts[seed, draw] == text for seed, draw, text in shared)
    assert max(draw for _, draw, _ in found) > max(draw for _, draw, _ in whole)


def test_several_filters_drop_in_this_corpus(finished):
    assert sum(count > 0 for count in finished[1].drops.values()) >= 5


def test_recorded_verdicts_follow_from_recorded_measurements(finished):
    table = pq.read_table(finished[1].provenance_path)
    assert table["drop_seed_copy"].to_pylist() == [
        share > CONFIG.maximum_seed_copy for share in table["seed_copy"].to_pylist()
    ]


def test_accepted_text_shares_nothing_with_held_out_text(finished):
    dataset = IndexedDataset(finished[1].dataset_prefix)
    held_out = NgramIndex.build([HELD_OUT], WIDTH)
    assert not any(held_out.contains(dataset.document(row)[1:-1]).any() for row in range(len(dataset)))


def test_the_datasets_metadata_name_tokenizer_and_marks(finished):
    metadata = IndexedDataset(finished[1].dataset_prefix).metadata
    assert (metadata["tokenizer"], metadata["bos"], metadata["eos"]) == (Marks().hash, Marks.bos, Marks.eos)


@pytest.mark.parametrize("accepted", [True, False])
def test_documents_are_written_again_from_their_provenance(finished, model, seeds, accepted):
    table = pq.read_table(finished[1].provenance_path)
    rows = [row for row in table.to_pylist() if row["accepted"] == accepted][:6]
    written = regenerate(rows, model=model, tokenizer=Marks(), seed_dataset=seeds, checkpoint_hash=CHECKPOINT)
    for row, again in zip(rows, written, strict=True):
        assert (text_hash(again.tokens), again.finish_reason) == (row["text_hash"], row["finish_reason"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"checkpoint": "other"}, "checkpoint was other, here it is checkpoint of the tiny model"),
        ({"threads": 99}, "threads was 99"),
        ({"torch": "1.0"}, "torch was 1.0"),
        ({"dtype": "bfloat16"}, "dtype was bfloat16, here it is float32"),
    ],
)
def test_a_document_is_not_written_again_where_its_bytes_are_not_promised(
    finished, model, seeds, row, message
):
    recorded = pq.read_table(finished[1].provenance_path).to_pylist()[0]
    with pytest.raises(InputError, match=message):
        regenerate(
            [recorded | row], model=model, tokenizer=Marks(), seed_dataset=seeds, checkpoint_hash=CHECKPOINT
        )


def test_a_finished_corpus_is_returned_at_once(corpus, finished, model, seeds, no_generation):
    result = run(corpus, model, seeds)
    assert (result.tokens, result.drops) == (finished[1].tokens, finished[1].drops)


def test_a_corpus_without_its_last_note_is_joined_again_from_its_shards(
    corpus, finished, model, seeds, no_generation
):
    (corpus / "synthesis.json").unlink()
    (corpus / "synthetic.json").unlink()
    run(corpus, model, seeds)
    assert file_hashes(corpus) == file_hashes(finished[0])


def test_a_lost_shard_is_written_again_with_the_same_bytes(corpus, finished, model, seeds):
    (corpus / "synthesis.json").unlink()
    (corpus / "shards" / "shard-000001" / "documents.bin").write_bytes(b"cut")
    run(corpus, model, seeds)
    assert file_hashes(corpus) == file_hashes(finished[0])


def test_a_greater_need_keeps_the_shards_that_are_there(corpus, finished, model, seeds):
    more = run(corpus, model, seeds, need_tokens=600)
    shards = {name: value for name, value in file_hashes(finished[0]).items() if name.startswith("shards")}
    assert more.tokens >= 600 and more.shards > finished[1].shards
    assert shards.items() <= file_hashes(corpus).items()


def test_a_smaller_need_generates_nothing(corpus, finished, model, seeds, no_generation):
    less = run(corpus, model, seeds, need_tokens=1)
    assert less.shards < finished[1].shards
    assert IndexedDataset(less.dataset_prefix).tokens == less.tokens


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 6}, "written with seed 5, now 6"),
        ({"checkpoint_hash": "other"}, "written with checkpoint_hash .*, now other"),
        ({"config": CONFIG.model_copy(update={"top_p": 0.5})}, "written with top_p 0.9, now 0.5"),
        ({"held_out_index": NgramIndex.build([np.arange(9)], 3)}, "written with held_out_index"),
    ],
)
def test_shards_of_another_run_are_refused(corpus, model, seeds, changed, message):
    with pytest.raises(InputError, match=f"{message}.*; use another folder, or remove"):
        run(corpus, model, seeds, **changed)


def test_a_run_that_drops_nearly_everything_stops(tmp_path, model, seeds):
    config = CONFIG.model_copy(update={"minimum_tokens": 23, "shard_documents": 128})
    with pytest.raises(
        InputError, match="of 256 documents accepted .* lower synthesis.minimum_tokens|no_end"
    ):
        run(tmp_path, model, seeds, config=config, need_tokens=10**6)


def test_indexes_of_different_widths_are_refused(tmp_path, model, seeds):
    with pytest.raises(InputError, match="corpus index of 3-grams and held-out index of 4-grams"):
        run(tmp_path, model, seeds, held_out_index=NgramIndex.build([np.arange(9)], 4))


def test_progress_is_reported_for_every_shard(tmp_path, model, seeds):
    seen = []
    result = run(tmp_path, model, seeds, need_tokens=150, progress=seen.append)
    assert [state.requests for state in seen] == [25 * shard for shard in range(1, result.shards + 1)]
    assert (seen[-1].tokens, seen[-1].seconds_left) == (result.tokens, 0.0)
