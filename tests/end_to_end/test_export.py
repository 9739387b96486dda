"""A trained synthesizer, exported, is the same model in transformers."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import environment

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.exchange import Request
from megasbp.synthesis.requests import build_prompt
from megasbp.training.checkpoint import load_model
from megasbp.training.checkpoint_files import newest_checkpoint

ROOT = Path(__file__).resolve().parents[2]
NEW_TOKENS = 40


def test_greedy_tokens_of_an_export_are_those_of_the_engine(finished_run: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers (pip install .[dev])")
    run = finished_run / "runs" / "small"
    tokenizer_file = next(run.glob("tokenizer-*")) / "tokenizer.json"
    checkpoint = newest_checkpoint(next((run / "seed-0").glob("synthesizer-true-*")) / "checkpoints")
    command = [
        sys.executable,
        str(ROOT / "tools" / "convert_checkpoint.py"),
        "export",
        str(checkpoint),
        str(tmp_path / "export"),
    ]
    subprocess.run(
        [*command, "--tokenizer", str(tokenizer_file)], env=environment(), check=True, capture_output=True
    )

    tokenizer = Tokenizer.load(tokenizer_file)
    documents = IndexedDataset(next(run.glob("datasets-*")) / "unique")
    prompts = [build_prompt(documents.document(number)[1:-1], tokenizer, 256) for number in range(8)]
    engine = Engine(
        load_model(checkpoint),
        slots=4,
        capacity=256,
        prefill_chunk=32,
        stop_token=tokenizer.eos,
        temperature=0.0,
        top_p=1.0,
        key=0,
    )
    ours = engine.generate([Request(number, 0, prompt) for number, prompt in enumerate(prompts)], NEW_TOKENS)

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    lengths = []
    for prompt, completion in zip(prompts, ours, strict=True):
        ids = torch.from_numpy(np.asarray(prompt, dtype=np.int64))[None]
        output = theirs.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.eos)
        expected = output[0, ids.shape[1] :].tolist()
        if expected[-1] == tokenizer.eos:
            expected = expected[: expected.index(tokenizer.eos)]
        assert completion.tokens.tolist() == expected
        lengths.append(len(expected))
    assert max(lengths) > 10, "documents this short would prove little"
