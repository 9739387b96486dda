"""tools/preprocess_corpus.py: the same bytes for any number of workers, after kills, and what stops it."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard

import megasbp.data.preprocess
from megasbp.corpus.fast_tokenizer import HuggingFaceEncoder
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.data.preprocess import _first_of
from megasbp.shards.config import ShardsConfig
from megasbp.shards.lock import folder_lock
from megasbp.shards.publication import shard_folder
from megasbp.storage import Manifest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "preprocess_corpus.py"
TEXTS = [
    f"Text number {number}, with words to be counted: {'again ' * (number % 7)}." for number in range(60)
]


@pytest.fixture(scope="module")
def tool():
    # Workers import it by name.
    sys.path.insert(0, str(TOOL.parent))
    yield importlib.import_module("preprocess_corpus")
    sys.path.remove(str(TOOL.parent))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(iter(TEXTS), 300)


@pytest.fixture
def corpus(tmp_path, tokenizer):
    """A tokenizer and three files, one with a bad line among 61."""
    tokenizer.save(tmp_path / "tokenizer.json")
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [json.dumps({"id": f"d{number}", "text": text}) for number, text in enumerate(TEXTS)]
    lines.insert(25, '{"text": "cut')
    (folder / "a.jsonl").write_text("\n".join(lines[:40]))
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress("\n".join(lines[40:]).encode()))
    (folder / "c.txt").write_text("A text file.")
    return folder


def arguments(corpus, output, *more):
    return [
        str(output),
        str(corpus),
        "--tokenizer",
        str(corpus.parent / "tokenizer.json"),
        "--shard-bytes",
        "500",
        "--maximum-bad-share",
        "0.5",
        "--encoder",
        "huggingface",
        *more,
    ]


def contents(output: Path) -> dict[str, bytes]:
    """Every file, manifests included."""
    files = (path for path in sorted(output.rglob("*")) if path.is_file())
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def run_tool(tool, corpus, output, *more) -> int:
    return tool.main(arguments(corpus, output, *more))


class Wrong:
    """An encoder that encodes one document otherwise than Hugging Face does."""

    def __init__(self, tokenizer, wanted, change):
        self.inner, self.wanted, self.change = HuggingFaceEncoder(tokenizer), wanted, change

    def encode(self, texts):
        encoded = self.inner.encode(texts)
        for number in range(len(texts)):
            if self.wanted in texts.text(number):
                self.change(encoded.tokens, encoded.bounds[number])
        return encoded


def in_this_process(work, shards, folder, *, settings, inputs, paths, finished, **_):
    """Stands in for the engine, whose workers are processes that no patch reaches."""
    manifests = []
    for shard in shards:
        shard_folder(folder, shard).mkdir()
        facts = work(shard, shard_folder(folder, shard), **settings, **paths)
        manifests.append(Manifest("work", inputs, settings, facts=facts))
        finished(shard, manifests[-1], True)
    return manifests


@pytest.fixture
def wrong_encoder(tool, monkeypatch):
    """Makes the fast encoder one that is right on the check texts and wrong on "number 47"."""

    def install(change):
        monkeypatch.setattr(
            megasbp.data.preprocess,
            "open_encoder",
            lambda _, tokenizer: Wrong(tokenizer, "number 47", change),
        )
        monkeypatch.setattr(tool, "chosen_encoder", lambda _, tokenizer: "gigatoken")
        monkeypatch.setattr(tool, "run_shards", in_this_process)

    return install


def swap(tokens, start):
    tokens[start + 3] += 1


def test_shards_hold_every_document_in_order(tool, corpus, tmp_path, tokenizer, capsys):
    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1") == 0

    shards = sorted((tmp_path / "out").glob("shard-*"))
    datasets = [IndexedDataset(shard / "documents") for shard in shards]
    stored = [dataset.document(i).tolist() for dataset in datasets for i in range(len(dataset))]
    texts = [*TEXTS, "A text file."]
    assert len(shards) > 5
    assert stored == [[tokenizer.bos, *tokens, tokenizer.eos] for tokens in tokenizer.encode_batch(texts)]
    for dataset in datasets:
        dataset.verify(tokenizer.vocabulary_size)
    tables = [pq.read_table(shard / "documents.parquet") for shard in shards]
    ids = [name for table in tables for name in table["id"].to_pylist()]
    assert ids == [*(f"d{number}" for number in range(60)), str(corpus / "c.txt")]
    sizes = [size for table in tables for size in table["bytes"].to_pylist()]
    assert sizes == [len(text.encode()) for text in texts]
    (bad,) = map(json.loads, (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines())
    assert (bad["file"], bad["reason"]) == (str(corpus / "a.jsonl"), "invalid_json")
    assert (corpus / "a.jsonl").read_bytes()[bad["offset"] :].startswith(b'{"text": "cut\n')
    summary = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert (summary["documents"], summary["rejected"]) == (61, 1)
    assert "MB/s" in capsys.readouterr().out


def test_any_number_of_workers_gives_the_same_bytes(tool, corpus, tmp_path):
    for workers in (1, 2, 3):
        (tmp_path / str(workers)).mkdir()
        assert run_tool(tool, corpus, tmp_path / str(workers) / "out", "--workers", str(workers)) == 0

    one, two, three = (contents(tmp_path / str(workers) / "out") for workers in (1, 2, 3))
    assert len(one) > 20
    assert one == two == three


def test_a_single_shard_made_in_this_process_has_the_bytes_of_a_workers(tool, corpus, tmp_path, monkeypatch):
    one_shard = ("--shard-bytes", "1000000")
    with monkeypatch.context() as patch:
        patch.setattr(tool, "INLINE", ShardsConfig(engine="local", workers=1))
        assert run_tool(tool, corpus, tmp_path / "worker", *one_shard) == 0
    with monkeypatch.context() as patch:
        patch.delattr("megasbp.shards.engine.LocalPool")
        assert run_tool(tool, corpus, tmp_path / "here", *one_shard) == 0

    assert len(list((tmp_path / "here").glob("shard-*"))) == 1
    assert contents(tmp_path / "here") == contents(tmp_path / "worker")


def test_a_killed_run_goes_on_where_it_was(tool, corpus, tmp_path):
    assert run_tool(tool, corpus, tmp_path / "whole", "--workers", "1") == 0
    output = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, str(TOOL), *arguments(corpus, output, "--workers", "1")], stdout=subprocess.PIPE
    )
    while not (output / "shard-000001" / "manifest.json").exists():
        assert child.poll() is None, "the child ended before it could be killed"
        time.sleep(0.001)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    kept = (output / "shard-000000" / "manifest.json").stat().st_mtime_ns
    killed_with = len(list(output.glob("shard-??????")))

    assert run_tool(tool, corpus, output, "--workers", "1") == 0

    assert killed_with < len(list(output.glob("shard-??????")))
    assert (output / "shard-000000" / "manifest.json").stat().st_mtime_ns == kept
    assert contents(output) == contents(tmp_path / "whole")


def test_a_finished_run_makes_nothing_again(tool, corpus, tmp_path, capsys):
    run_tool(tool, corpus, tmp_path / "out", "--workers", "1")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*/*")}
    capsys.readouterr()

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1") == 0

    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*/*")}
    assert "MB/s" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    ((("--shard-bytes", "600"), "with another shard size"), (("--text-field", "id"), "made with text_field")),
)
def test_a_folder_of_another_run_is_refused(tool, corpus, tmp_path, capsys, more, message):
    run_tool(tool, corpus, tmp_path / "out", "--workers", "1")
    capsys.readouterr()

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1", *more) == 2
    assert message in capsys.readouterr().err


def test_another_tokenizer_is_refused_while_no_shard_is_finished(tool, corpus, tmp_path, tokenizer, capsys):
    # As a stop within the first shard leaves the folder.
    run_tool(tool, corpus, tmp_path / "out", "--workers", "1")
    for folder in (tmp_path / "out").glob("shard-*"):
        shutil.rmtree(folder)
    Tokenizer.train(iter(TEXTS), 290).save(corpus.parent / "tokenizer.json")
    capsys.readouterr()

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1") == 2
    assert "another tokenizer than the one given" in capsys.readouterr().err
    assert Tokenizer.load(tmp_path / "out" / "tokenizer.json").hash == tokenizer.hash


def test_a_second_run_leaves_the_work_of_the_first_alone(tool, corpus, tmp_path, capsys):
    begun = tmp_path / "out" / "shard-00000000.partial-7"
    begun.mkdir(parents=True)
    with folder_lock(tmp_path / "out"):
        assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1") == 2
    assert "in use by" in capsys.readouterr().err
    assert begun.is_dir()


def test_a_cluster_is_given_whole_paths(tool, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    more = ("--engine", "ray", "--address", "auto")
    assert tool.main(["out", "corpus", "--tokenizer", "tokenizer.json", *more]) == 2
    assert "corpus: a path from this folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_that_changed_between_two_runs_is_noticed(tool, corpus, tmp_path, capsys):
    run_tool(tool, corpus, tmp_path / "out", "--workers", "1")
    capsys.readouterr()
    # Of the same size as before.
    (corpus / "c.txt").write_text("A text FILE.")

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1") == 2
    assert "files that have changed" in capsys.readouterr().err


def test_the_share_of_bad_documents_is_that_of_the_whole_run(tool, corpus, tmp_path, capsys):
    # One of 62: alone in its shard of about ten it is far above the share.
    assert run_tool(tool, corpus, tmp_path / "in", "--workers", "1", "--maximum-bad-share", "0.017") == 0
    capsys.readouterr()

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1", "--maximum-bad-share", "0.015") == 2
    assert "1 of 62 documents are bad (1 invalid_json)" in capsys.readouterr().err


def test_a_wrong_text_field_is_named(tool, corpus, tmp_path, capsys):
    more = ("--workers", "1", "--text-field", "body", "--maximum-bad-share", "1")
    (corpus / "c.txt").unlink()

    assert run_tool(tool, corpus, tmp_path / "out", *more) == 2
    assert "no usable document" in capsys.readouterr().err


def test_a_difference_stops_the_run_and_is_shown(tool, corpus, tmp_path, wrong_encoder, capsys):
    wrong_encoder(swap)

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1") == 2

    error = capsys.readouterr().err
    assert "b.jsonl.zst, offset " in error
    assert "token 3: [" in error and "Hugging Face gives [" in error


def test_a_difference_falls_back_to_hugging_face(tool, corpus, tmp_path, wrong_encoder, capsys):
    run_tool(tool, corpus, tmp_path / "right", "--workers", "1")
    wrong_encoder(swap)

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1", "--on-difference", "fallback") == 0

    summary = json.loads((tmp_path / "out" / "corpus.json").read_text())
    assert len(summary["fallbacks"]) == 1
    assert "1 shards done again" in capsys.readouterr().out
    tokens = [
        {path.parent.name: path.read_bytes() for path in (tmp_path / name).glob("shard-*/documents.*")}
        for name in ("right", "out")
    ]
    assert tokens[0] == tokens[1]


def test_a_special_token_out_of_text_is_found_without_the_sample(
    tool, corpus, tmp_path, tokenizer, wrong_encoder, capsys
):
    def special(tokens, start):
        tokens[start + 2] = tokenizer.sep

    wrong_encoder(special)

    assert run_tool(tool, corpus, tmp_path / "out", "--workers", "1", "--sample", "1") == 2
    assert f"text became the special token {tokenizer.sep} at token 2" in capsys.readouterr().err


def test_framed_documents_are_those_added_one_by_one(tmp_path):
    from megasbp.data.indexed_dataset import IndexedDatasetWriter

    # The writer gathers 2048 tokens: one document ends at that border, one at the next, one passes over two.
    documents = [[5, 6], [], [65535], [7], [8] * 2038, [9] * 2046, [10] * 5000, [], [11]]
    tokens = np.array([token for document in documents for token in document], np.uint32)
    bounds = np.cumsum([0, *map(len, documents)])
    with IndexedDatasetWriter(tmp_path / "at_once", np.uint16) as writer:
        writer.add_framed_documents(tokens[:2], bounds[:2], 1, 2)
        writer.add_framed_documents(tokens, bounds[1:], 1, 2)
    with IndexedDatasetWriter(tmp_path / "one_by_one", np.uint16) as writer:
        for document in documents:
            writer.add_document(np.array([1, *document, 2]))

    for suffix in (".bin", ".idx", ".json"):
        assert (tmp_path / f"at_once{suffix}").read_bytes() == (tmp_path / f"one_by_one{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("tokens", "bounds", "first", "message"),
    (
        ([65536], [0, 1], 1, "token 1: 65536 is not in 0..65535"),
        ([5], [0, 1], -1, "token 0: -1 is not in 0..65535"),
        ([5], [0, 2], 1, "bound 1 is 2"),
        ([5], [1, 0], 1, "bound 1 is 0"),
        ([5], [-1, 0], 1, "bound 0 is -1"),
    ),
)
def test_framed_documents_that_do_not_fit_are_refused(tmp_path, tokens, bounds, first, message):
    from megasbp.data.indexed_dataset import IndexedDatasetWriter
    from megasbp.errors import InputError

    with pytest.raises(InputError, match=message), IndexedDatasetWriter(tmp_path / "a", np.uint16) as writer:
        writer.add_framed_documents(np.array(tokens, np.uint32), np.array(bounds), first, 2)
    assert not (tmp_path / "a.bin").exists()


def test_help_explains_the_output(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--help"])
    assert "quarantine.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize("wanted", [(7, 8, 9), (0, 65_000, 3), (4_000_000_000, 4_000_000_001, 4_000_000_001)])
def test_the_first_special_token_is_found_in_any_block(wanted: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    for count in (0, 1, 1 << 16, (1 << 16) + 1, 200_000):
        tokens = generator.integers(10, 60_000, count).astype(np.uint32)
        assert _first_of(tokens, wanted) is None
        for place in {0, count // 2, count - 1} if count else ():
            marked = tokens.copy()
            marked[[place, count - 1]] = wanted[-1]
            assert _first_of(marked, wanted) == place
