"""Text that is written without a seed document: the model's own distribution."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from synthesis_world import (
    BOS,
    CHECKPOINT,
    CONFIG,
    CONTEXT,
    EOS,
    Marks,
    file_hashes,
    open_seeds,
    run,
    tiny_model,
)

from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.parallel.runtime import Runtime
from megasbp.shards.config import INLINE
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.provenance import text_hash
from megasbp.synthesis.regenerate import regenerate
from megasbp.synthesis.requests import NO_SEED, Prompts
from megasbp.synthesis.workers import WorkersWriter
from megasbp.training.checkpoint import checkpoint_tensors, save_checkpoint

OWN = CONFIG.without_seeds()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_seeds(tmp_path_factory.mktemp("corpus"))


def write(folder, model, corpus, **changed):
    """Without a seed dataset; the corpus is only where copies are looked for."""
    return run(folder, model, corpus, **({"seed_dataset": None, "config": OWN, "need_tokens": 300} | changed))


@pytest.fixture(scope="module")
def finished(model, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, write(folder, model, corpus)


def rows(finished):
    return pq.read_table(finished[1].provenance_path).to_pylist()


def test_the_prompt_is_bos_alone_and_each_request_a_draw_of_its_own():
    prompts = Prompts(None, Marks(), CONTEXT)
    documents, draws = prompts.locate(np.arange(7), seed=5)
    assert documents.tolist() == [NO_SEED] * 7 and draws.tolist() == list(range(7))
    assert [prompts.request(NO_SEED, draw).prompt.tolist() for draw in range(7)] == [[BOS]] * 7


def test_the_temperature_is_one_and_the_cut_that_of_the_other_arms(finished):
    assert (CONFIG.temperature, CONFIG.top_p) == (0.6, 0.9)
    assert {(row["temperature"], row["top_p"]) for row in rows(finished)} == {(1.0, 0.9)}
    # Everything else that decides which documents are kept stays as it is.
    changed = {name for name, value in CONFIG if getattr(OWN, name) != value}
    assert changed == {"temperature", "prefill_slots", "prefill_chunk"}
    assert SynthesisConfig(**OWN.model_dump()) == OWN


def test_documents_are_what_an_engine_writes_from_bos_at_temperature_one(finished, model):
    recorded = rows(finished)
    engine = Engine(
        model,
        slots=8,
        capacity=CONTEXT,
        prefill_chunk=CONTEXT,
        stop_token=EOS,
        temperature=1.0,
        top_p=CONFIG.top_p,
        key=recorded[0]["noise_key"],
    )
    requests = [Prompts(None, Marks(), CONTEXT).request(NO_SEED, draw) for draw in range(len(recorded))]
    written = engine.generate(requests, OWN.maximum_tokens)
    assert [text_hash(one.tokens) for one in written] == [row["text_hash"] for row in recorded]


def test_first_tokens_follow_the_models_probabilities(finished, model):
    """Chi-squared of 11 degrees of freedom reaches 35 once in 4,000 runs; at temperature 0.6 it is 290."""
    with torch.inference_mode():
        logits = model(torch.tensor([[BOS]]), torch.tensor([[0]]))
    expected = torch.softmax(logits[0, -1].double(), -1).numpy()
    engine = Engine(
        model, slots=64, capacity=8, prefill_chunk=8, stop_token=EOS, temperature=1.0, top_p=1.0, key=3
    )
    prompts, count = Prompts(None, Marks(), 8), 2000
    written = engine.generate([prompts.request(NO_SEED, draw) for draw in range(count)], 1)
    first = np.array([one.tokens[0] if len(one.tokens) else EOS for one in written])
    seen = np.bincount(first, minlength=len(expected))
    assert ((seen - count * expected) ** 2 / (count * expected)).sum() < 35


def test_provenance_names_no_seed(finished):
    assert {(row["seed_doc"], row["seed_dataset"], row["prompt_tokens"]) for row in rows(finished)} == {
        (NO_SEED, "", 1)
    }
    assert {row["seed_copy"] for row in rows(finished)} == {0.0}
    assert len({row["draw"] for row in rows(finished)}) == finished[1].requests


def test_the_other_filters_judge_as_ever(finished):
    recorded = rows(finished)
    assert all(row["drop_too_short"] == (row["length"] < CONFIG.minimum_tokens) for row in recorded)
    assert all(
        row["drop_corpus_copy"] == (row["corpus_copy"] > CONFIG.maximum_corpus_copy) for row in recorded
    )
    assert sum(row["accepted"] for row in recorded) == len(IndexedDataset(finished[1].dataset_prefix))


def test_documents_are_written_again_from_their_provenance(finished, model, corpus):
    some = rows(finished)[:6]
    arguments = {"model": model, "tokenizer": Marks(), "checkpoint_hash": CHECKPOINT}
    for row, again in zip(some, regenerate(some, seed_dataset=None, **arguments), strict=True):
        assert (text_hash(again.tokens), again.finish_reason) == (row["text_hash"], row["finish_reason"])
    with pytest.raises(InputError, match="seed_dataset was , here it is"):
        regenerate(some, seed_dataset=corpus, **arguments)


def test_a_killed_run_goes_on_with_the_same_bytes(finished, model, corpus, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "corpus")
    (folder / "synthesis.json").unlink()
    shutil.rmtree(folder / "shards" / "shard-000001")
    write(folder, model, corpus)
    assert file_hashes(folder) == file_hashes(finished[0])


def test_workers_write_the_same_bytes(finished, model, corpus, tmp_path):
    checkpoint = tmp_path / "step-00000001"
    state = {"model": model.config.model_dump(mode="json")}
    save_checkpoint(checkpoint, checkpoint_tensors(model), state, Runtime.start())
    write(tmp_path / "corpus", model, corpus, writer=WorkersWriter(INLINE, checkpoint, announce=None))
    assert file_hashes(finished[0]).items() <= file_hashes(tmp_path / "corpus").items()


def test_shards_written_without_seeds_are_no_shards_of_a_seeded_run(finished, model, corpus, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "corpus")
    with pytest.raises(InputError, match="use another folder, or remove"):
        run(folder, model, corpus, config=OWN)
