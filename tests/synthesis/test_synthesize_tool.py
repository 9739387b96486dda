"""tools/synthesize.py: what it writes, that it goes on, and what it refuses."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from synthesis_world import tiny_model
from tool_modules import load_tool

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.model.config import ModelConfig
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.training.checkpoint import checkpoint_tensors, save_checkpoint

SETTINGS = ("slots=8", "prefill_slots=2", "prefill_chunk=16", "maximum_tokens=40", "minimum_tokens=1")


@pytest.fixture(scope="module")
def tool():
    return load_tool("synthesize")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tokenizer, seed documents and an untrained synthesizer."""
    folder = tmp_path_factory.mktemp("world")
    texts = [f"the {word} of {other}" for word in ("sea", "sky", "sun") for other in ("may", "june", "july")]
    tokenizer = Tokenizer.train(iter(texts), 300)
    tokenizer.save(folder / "tokenizer.json")
    metadata = {"tokenizer": tokenizer.hash, "bos": tokenizer.bos, "eos": tokenizer.eos, "source": "test"}
    with IndexedDatasetWriter(folder / "seeds", np.uint16, metadata=metadata) as writer:
        for tokens in tokenizer.encode_batch(texts):
            writer.add_document(np.r_[tokenizer.bos, tokens, tokenizer.eos])
    values = tiny_model().config.model_dump() | {"vocabulary_size": tokenizer.vocabulary_size}
    model = Transformer(ModelConfig(**values))
    initialize(model, seed=0)
    state = {"model": model.config.model_dump(mode="json")}
    save_checkpoint(folder / "step-00000001", checkpoint_tensors(model), state, Runtime.start())
    return folder


def arguments(world: Path, output: Path, *more: str, tokens: str = "60") -> list[str]:
    return [
        str(output),
        *SETTINGS,
        "shard_documents=16",
        "minimum_acceptance=0",
        *("--checkpoint", str(world / "step-00000001")),
        *("--tokenizer", str(world / "tokenizer.json")),
        *("--seeds", str(world / "seeds"), "--tokens", tokens),
        *more,
    ]


def test_it_writes_the_corpus_and_goes_on_when_more_is_wanted(tool, world, tmp_path, capsys):
    assert tool.main(arguments(world, tmp_path / "out")) == 0
    output = capsys.readouterr().out
    assert "tokens/s" in output
    assert "nothing keeps passages of held-out text out" in output
    first = IndexedDataset(tmp_path / "out" / "synthetic")
    documents = [first.document(number).copy() for number in range(len(first))]
    assert sum(map(len, documents)) >= 60
    assert tool.main(arguments(world, tmp_path / "out", tokens="1.2e2")) == 0
    more = IndexedDataset(tmp_path / "out" / "synthetic")
    assert len(more) > len(documents)
    assert all(np.array_equal(more.document(n), document) for n, document in enumerate(documents))
    rows = pq.read_table(tmp_path / "out" / "provenance.parquet").to_pylist()
    assert sum(row["accepted"] for row in rows) == len(more)
    assert {row["capacity"] for row in rows} == {64}


def test_a_recipe_gives_sampler_and_context(tool, world, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("[synthesis]\ntemperature = 0.7\n[synthesizer]\ncontext = 32\n")
    assert tool.main(arguments(world, tmp_path / "out", "--recipe", str(recipe))) == 0
    row = pq.read_table(tmp_path / "out" / "provenance.parquet").to_pylist()[0]
    assert (row["temperature"], row["capacity"]) == (0.7, 32)


def test_held_out_passages_are_kept_out(tool, world, tmp_path):
    seeds = IndexedDataset(world / "seeds")
    known = sorted({int(token) for number in range(len(seeds)) for token in seeds.document(number)[1:-1]})
    shared = known[:1]
    with IndexedDatasetWriter(tmp_path / "corpus", seeds.dtype, metadata=seeds.metadata) as writer:
        writer.add_document(np.array([seeds.document(0)[0], *shared, seeds.document(0)[-1]], seeds.dtype))
    # Of one token each: no token of the held-out text may come out again, but for what the corpus has too.
    more = ("--held-out", str(world / "seeds"), "--corpus", str(tmp_path / "corpus"))
    more += ("--shingle-width", "1", "maximum_corpus_copy=1", "maximum_seed_copy=1")
    assert tool.main(arguments(world, tmp_path / "out", *more, tokens="20")) == 0
    written = IndexedDataset(tmp_path / "out" / "synthetic")
    found = {int(token) for number in range(len(written)) for token in written.document(number)[1:-1]}
    assert len(written) > 0
    assert not set(known[1:]) & found


def test_what_the_corpus_says_too_is_not_held_out(tool, world, tmp_path):
    more = ("--held-out", str(world / "seeds"), "--shingle-width", "1", "maximum_corpus_copy=1")
    assert tool.main(arguments(world, tmp_path / "out", *more, "maximum_seed_copy=1")) == 0
    column = pq.read_table(tmp_path / "out" / "provenance.parquet", columns=["held_out_copy"])
    assert set(column["held_out_copy"].to_pylist()) == {0.0}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("top_q=1",), "top_q: unknown setting; did you mean 'top_p'?"),
        (("nonsense=1",), "nonsense: unknown setting; known here: backend"),
        (("top_p=2",), "top_p: Input should be less than or equal to 1, not 2"),
        (("top_p=0.5", "top_p.x=1"), "'top_p.x=1': top_p is a value, not a section"),
        (("top_p",), "'top_p' is not a setting; write key=value"),
        (("--checkpoint", "missing"), "missing"),
        (("--seeds", "missing"), "missing"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(tool, world, tmp_path, capsys, more, message):
    assert tool.main(arguments(world, tmp_path / "out", *more)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_datasets_of_another_tokenizer_are_refused(tool, world, tmp_path, capsys):
    other = tmp_path / "tokenizer.json"
    Tokenizer.train(iter(["other words altogether"] * 3), 270).save(other)
    assert tool.main(arguments(world, tmp_path / "out", "--tokenizer", str(other))) == 2
    assert "made by tokenizer" in capsys.readouterr().err
