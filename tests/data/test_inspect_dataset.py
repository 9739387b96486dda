"""tools/inspect_dataset.py: what it shows, what it refuses."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from data_reference import index_bytes

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter

TOOL = Path(__file__).resolve().parents[2] / "tools" / "inspect_dataset.py"
TEXTS = ["The first document.", "Ünïcode, and a\nsecond line.", "A third <eos> that is text."]


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("inspect_dataset", TOOL)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(iter(TEXTS * 3), 300)


@pytest.fixture
def documents(tokenizer):
    return [np.array([tokenizer.bos, *tokens, tokenizer.eos]) for tokens in tokenizer.encode_batch(TEXTS)]


@pytest.fixture
def folder(tmp_path, tokenizer, documents):
    """A tokenizer, a dataset `ours`, and the same files without a description, `foreign`."""
    tokenizer.save(tmp_path / "tokenizer.json")
    metadata = {
        "tokenizer": tokenizer.hash,
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "source": {"name": "test"},
    }
    with IndexedDatasetWriter(tmp_path / "ours", np.uint16, metadata=metadata) as writer:
        for document in documents:
            writer.add_document(document)
    (tmp_path / "foreign.idx").write_bytes(index_bytes([len(document) for document in documents], "uint16"))
    (tmp_path / "foreign.bin").write_bytes(np.concatenate(documents).astype("<u2").tobytes())
    return tmp_path


def test_counts_and_metadata_are_shown(tool, folder, documents, capsys):
    assert tool.main([str(folder / "ours")]) == 0
    shown = capsys.readouterr().out
    dataset = IndexedDataset(folder / "ours")
    for fact in (
        "documents    3",
        "header       MMIDIDX version 1, dtype code 8, 3 sequences, 4 document bounds",
        f"tokens       {dataset.tokens:,} of uint16",
        dataset.fingerprint,
        '"name": "test"',
    ):
        assert fact in shown


def test_histogram_counts_every_document_by_powers_of_two(tool):
    lines = list(tool.histogram(np.array([0, 1, 2, 3, 4, 7, 8, 1000], dtype=np.int32)))
    assert lines[0] == "tokens per document: 0 to 1,000, mean 128.1"
    spans = [line[2:25].strip() for line in lines[2:]]
    numbers = [int(line[27:40].replace(",", "")) for line in lines[2:]]
    assert spans[:5] == ["0", "1", "2 to 3", "4 to 7", "8 to 15"]
    assert numbers == [1, 1, 2, 2, 1, 0, 0, 0, 0, 0, 1]


def test_documents_are_shown_as_text_with_marks(tool, folder, capsys):
    arguments = [
        str(folder / "ours"),
        "--tokenizer",
        str(folder / "tokenizer.json"),
        "--documents",
        "1",
        "-1",
    ]
    assert tool.main(arguments) == 0
    shown = capsys.readouterr().out
    assert f"<bos>{TEXTS[1]}<eos>" in shown
    assert f"<bos>{TEXTS[2]}<eos>" in shown
    assert TEXTS[0] not in shown


def test_documents_without_a_tokenizer_are_numbers(tool, folder, documents, capsys):
    tool.main([str(folder / "ours"), "--documents", "0"])
    assert " ".join(map(str, documents[0])) in capsys.readouterr().out


def test_long_documents_are_cut(tool, folder, capsys):
    arguments = [str(folder / "ours"), "--tokenizer", str(folder), "--documents", "0", "--characters", "9"]
    tool.main(arguments)
    assert f"<bos>{TEXTS[0][:4]} [... {len(TEXTS[0]) + 1} more characters]" in capsys.readouterr().out


def test_verify_passes_on_intact_and_fails_on_changed_files(tool, folder, capsys):
    arguments = [str(folder / "ours"), "--verify", "--tokenizer", str(folder)]
    assert tool.main(arguments) == 0
    content = bytearray((folder / "ours.bin").read_bytes())
    content[4] ^= 1
    (folder / "ours.bin").write_bytes(content)
    assert tool.main(arguments) == 2
    assert "ours.bin: SHA-256 differs" in capsys.readouterr().err


def test_describe_takes_over_foreign_files_once(tool, folder, tokenizer, capsys):
    arguments = [str(folder / "foreign"), "--describe", "--tokenizer", str(folder), "--source", "elsewhere"]
    assert tool.main(arguments) == 0
    assert IndexedDataset(folder / "foreign").metadata == {
        "tokenizer": tokenizer.hash,
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "sep": tokenizer.sep,
        "source": {"name": "elsewhere"},
    }
    assert tool.main(arguments) == 2
    assert "foreign.json: exists" in capsys.readouterr().err


def test_a_tokenizer_without_well_known_names_is_given_them(tool, folder, tokenizer, capsys):
    content = (folder / "tokenizer.json").read_text()
    for role, name in tokenizer.roles.items():
        content = content.replace(name, f"[[{role}]]")
    (folder / "odd").mkdir()
    (folder / "odd" / "tokenizer.json").write_text(content)
    arguments = [str(folder / "foreign"), "--describe", "--tokenizer", str(folder / "odd")]
    assert tool.main(arguments) == 2
    assert "in tools with --bos" in capsys.readouterr().err
    names = (argument for role in ("bos", "eos", "sep") for argument in (f"--{role}", f"[[{role}]]"))
    assert tool.main([*arguments, *names]) == 0
    assert IndexedDataset(folder / "foreign").metadata["sep"] == tokenizer.sep


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nothing", [], "nothing.json: no such file"),
        ("ours", ["--documents", "3"], "no document 3, there are 3"),
        ("ours", ["--documents", "-4"], "no document -4, there are 3"),
    ],
)
def test_mistakes_end_with_status_two_and_one_line(tool, folder, capsys, name, arguments, message):
    assert tool.main([str(folder / name), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_another_tokenizer_is_refused(tool, folder, tmp_path, capsys):
    other = tmp_path / "other" / "tokenizer.json"
    other.parent.mkdir()
    Tokenizer.train(iter(["other text " * 9]), 280).save(other)
    assert tool.main([str(folder / "ours"), "--tokenizer", str(other)]) == 2
    assert "written with tokenizer" in capsys.readouterr().err


def test_help_explains_the_files(tool, capsys):
    with pytest.raises(SystemExit):
        tool.main(["--help"])
    assert "NAME.idx" in capsys.readouterr().out
