"""Programs of tools/: each ends as the command line does, under its own name.

tools/benchmark.py, which loads what it measures, is in tests/benchmarks.
"""

import numpy as np
import pytest
from tool_modules import load_tool

from megasbp.data.indexed_dataset import IndexedDatasetWriter

TOOLS = (
    "convert_checkpoint",
    "cut_heads",
    "fetch_demo_corpus",
    "find_duplicates",
    "inspect_dataset",
    "merge_datasets",
    "preprocess_corpus",
    "synthesize",
)


class Interrupts:
    """Options that are asked for when the user interrupts."""

    def __getattr__(self, name: str) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", TOOLS)
def test_an_interrupt_is_one_line(name, monkeypatch, capsys):
    tool = load_tool(name)
    monkeypatch.setattr(tool, "parse", lambda arguments: Interrupts())
    assert tool.main([]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: interrupted")


def refused(capsys: pytest.CaptureFixture[str], name: str, *arguments: object) -> str:
    """Runs a tool, which must fail with one line; returns that line without the name."""
    assert load_tool(name).main([str(argument) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: ")
    return line.removeprefix(f"{name}: ")


@pytest.mark.parametrize("name", ["preprocess_corpus", "find_duplicates"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "auto"], '--address is \'auto\' and --engine is "local"; set engine = "ray"'),
        (["--workers", "0"], "--workers: Input should be greater than or equal to 1, not 0"),
    ],
)
def test_impossible_workers_are_refused_before_anything_is_read(name, options, message, tmp_path, capsys):
    needed = ["--tokenizer", tmp_path / "missing.json"] if name == "preprocess_corpus" else []
    line = refused(capsys, name, tmp_path / "out", tmp_path / "missing", *needed, *options)
    assert line.startswith(message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "local", "--workers", "0"], "--workers: Input should be greater than or equal to 1"),
        (["--engine", "local", "--gpus", "1.5"], "--gpus is 1.5; allowed: 0, a part of one GPU"),
        (["--engine", "local", "--gpus", "-1"], "--gpus: Input should be greater than or equal to 0"),
        (["--engine", "local", "--address", "auto"], "--address is 'auto' and --engine is \"local\""),
        (["--workers", "2"], '--workers is 2 and --engine is "inline"'),
        (["--recipe", "missing.toml"], "missing.toml: no such recipe"),
    ],
)
def test_impossible_options_of_synthesis_are_refused_before_anything_is_read(
    options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    named = ["--checkpoint", "missing", "--tokenizer", "missing", "--seeds", "missing", "--tokens", "10"]
    assert refused(capsys, "synthesize", "out", *named, *options).startswith(message)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("convert_checkpoint", ["import", "{0}/file/theirs", "{0}/out"]),
        ("find_duplicates", ["{0}/file/out", "{0}/dataset"]),
        ("inspect_dataset", ["{0}/dataset", "--tokenizer", "{0}/file/tokenizer.json"]),
        ("merge_datasets", ["{0}/file/out", "{0}/dataset"]),
        ("preprocess_corpus", ["{0}/out", "{0}", "--tokenizer", "{0}/file/tokenizer.json"]),
    ],
)
def test_a_file_where_a_folder_is_wanted_is_named(name, arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with IndexedDatasetWriter(tmp_path / "dataset", np.uint16) as writer:
        writer.add_document(np.array([1, 5, 2]))
    line = refused(capsys, name, *(argument.format(tmp_path) for argument in arguments))
    assert line.startswith(f"{tmp_path}/file") and ("Not a directory" in line or "File exists" in line)


@pytest.mark.parametrize("option", ["nan", "inf"])
def test_a_size_that_is_none_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        load_tool("find_duplicates").main(["out", "data", "--memory", option])
    assert f"argument --memory: {option} is no size" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["nan", "inf", "0.5", "0"])
def test_a_number_of_tokens_that_is_none_is_refused(option, capsys):
    named = ["--checkpoint", "c", "--tokenizer", "t", "--seeds", "s"]
    with pytest.raises(SystemExit):
        load_tool("synthesize").main(["out", *named, "--tokens", option])
    assert f"argument --tokens: {option} is not a whole number" in capsys.readouterr().err


def test_a_context_that_holds_no_document_is_refused(capsys):
    named = ["--checkpoint", "c", "--tokenizer", "t", "--seeds", "s", "--tokens", "1"]
    with pytest.raises(SystemExit):
        load_tool("synthesize").main(["out", *named, "--context", "0"])
    assert "--context is 0; set it to at least 16" in capsys.readouterr().err
