"""vLLM behind the shards: what it is asked, what is published, and that a kill writes no shard twice.

vLLM is a stub that takes vLLM's arguments and no others; nothing here ran on a GPU.
"""

import os
import signal

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import vllm_stub
from pydantic import ValidationError
from safetensors import torch as safetensors
from synthesis_driver import in_child, was_killed
from synthesis_world import (
    BOS,
    CHECKPOINT,
    CONFIG,
    CONTEXT,
    EOS,
    SEP,
    Marks,
    file_hashes,
    open_seeds,
    tiny_model,
)
from synthesis_world import run as run_own

from megasbp.errors import InputError
from megasbp.parallel.runtime import Runtime
from megasbp.shards.config import INLINE
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.regenerate import regenerate
from megasbp.synthesis.vllm_writer import VllmWriter
from megasbp.synthesis.workers import WorkersWriter
from megasbp.synthesis.writers import shard_writer
from megasbp.training.checkpoint import checkpoint_tensors, save_checkpoint

BY_VLLM = SynthesisConfig(**(CONFIG.model_dump() | {"backend": "vllm"}))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return open_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("checkpoint") / "step-00000001", tiny_model()
    state = {"model": model.config.model_dump(mode="json")}
    save_checkpoint(folder, checkpoint_tensors(model), state, Runtime.start())
    return folder


@pytest.fixture
def asked(monkeypatch):
    return vllm_stub.install(monkeypatch)


def run(folder, checkpoint, seeds, **changed):
    writer = VllmWriter(checkpoint)
    return run_own(folder, None, seeds, **({"writer": writer, "config": BY_VLLM} | changed))


def test_marks_and_seed_documents_reach_vllm_as_token_numbers(tmp_path, checkpoint, seeds, asked):
    run(tmp_path, checkpoint, seeds)
    prompts = [prompt["prompt_token_ids"] for call in asked.calls for prompt in call[0]]
    rows = pq.read_table(tmp_path / "provenance.parquet").to_pylist()
    for prompt, row in zip(prompts, rows, strict=True):
        seed_document = seeds.document(row["seed_doc"])[1:-1]
        assert prompt == [BOS, *seed_document[: CONTEXT // 2 - 2].tolist(), SEP]


def test_sampler_limits_and_seeds_are_those_of_the_recipe(tmp_path, checkpoint, seeds, asked):
    run(tmp_path, checkpoint, seeds)
    for prompts, parameters in asked.calls:
        for prompt, one in zip(prompts, parameters, strict=True):
            assert (one.temperature, one.top_p, one.stop_token_ids) == (0.6, 0.9, [EOS])
            assert one.max_tokens == min(24, CONTEXT - len(prompt["prompt_token_ids"]))
            assert one.logprobs is None
    of_requests = [one.seed for call in asked.calls for one in call[1]]
    assert len(set(of_requests)) == len(of_requests)
    (model,) = asked.models
    assert (model["dtype"], model["max_model_len"], model["max_num_seqs"]) == ("bfloat16", CONTEXT, 8)


def test_vllm_gets_the_checkpoints_weights_and_the_export_is_removed(tmp_path, checkpoint, seeds, asked):
    run(tmp_path, checkpoint, seeds)
    exported = safetensors.load(asked.models[0]["weights"])
    assert torch.equal(exported["model.norm.weight"], tiny_model().norm.weight)
    assert torch.equal(exported["model.embed_tokens.weight"], tiny_model().embedding.weight)
    assert not list(tmp_path.glob("hugging_face*"))


def test_rows_name_vllm_its_version_and_its_settings(tmp_path, checkpoint, seeds, asked):
    result = run(tmp_path, checkpoint, seeds)
    rows = pq.read_table(result.provenance_path).to_pylist()
    (backend,) = {row["backend"] for row in rows}
    assert backend.startswith("vllm 0.33.0 {") and '"max_num_seqs": 8' in backend
    assert {(row["slots"], row["prefill_slots"], row["prefill_chunk"]) for row in rows} == {(8, 0, 0)}


def test_filters_judge_vllms_documents_too(tmp_path, checkpoint, seeds, asked):
    result = run(tmp_path, checkpoint, seeds)
    assert result.documents + sum(result.drops.values()) == result.requests
    assert result.drops["no_end"] > 0 and result.drops["held_out_copy"] > 0


def test_what_its_cache_of_prompts_saved_is_not_counted_as_computed(tmp_path, checkpoint, seeds, asked):
    result = run(tmp_path, checkpoint, seeds)
    lengths = [len(prompt["prompt_token_ids"]) for call in asked.calls for prompt in call[0]]
    assert result.shared_tokens == sum(length // 2 for length in lengths)
    assert result.prefill_tokens == sum(lengths) - result.shared_tokens


def test_a_killed_run_goes_on_behind_its_published_shards(tmp_path, checkpoint, seeds, monkeypatch):
    asked = vllm_stub.install(monkeypatch)
    whole = run(tmp_path / "whole", checkpoint, seeds, need_tokens=700)
    assert whole.shards >= 3

    def killed_in_the_third_shard():
        import vllm

        generate = vllm.LLM.generate

        def deadly(self, *arguments, **named):
            if len(asked.calls) == whole.shards + 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return generate(self, *arguments, **named)

        vllm.LLM.generate = deadly
        run(tmp_path / "killed", checkpoint, seeds, need_tokens=700)

    assert was_killed(in_child(killed_in_the_third_shard))
    calls = len(asked.calls)
    run(tmp_path / "killed", checkpoint, seeds, need_tokens=700)
    assert len(asked.calls) - calls == whole.shards - 2
    assert file_hashes(tmp_path / "killed") == file_hashes(tmp_path / "whole")


def test_workers_write_the_same_shards(tmp_path, checkpoint, seeds, asked):
    run(tmp_path / "own", checkpoint, seeds)
    writer = WorkersWriter(INLINE, checkpoint, announce=None)
    run(tmp_path / "workers", checkpoint, seeds, writer=writer)
    assert file_hashes(tmp_path / "own").items() <= file_hashes(tmp_path / "workers").items()


def test_its_documents_are_not_written_again(tmp_path, checkpoint, seeds, asked):
    row = pq.read_table(run(tmp_path, checkpoint, seeds).provenance_path).to_pylist()[0]
    with pytest.raises(InputError, match=r"backend was vllm 0.33.0 .*, here it is own"):
        regenerate(
            [row], model=tiny_model(), tokenizer=Marks(), seed_dataset=seeds, checkpoint_hash=CHECKPOINT
        )


def test_an_answer_to_another_prompt_is_refused(tmp_path, checkpoint, seeds, asked):
    asked.altered = True
    with pytest.raises(RuntimeError, match="read another prompt"):
        run(tmp_path, checkpoint, seeds)


def test_an_aborted_document_is_refused(tmp_path, checkpoint, seeds, asked):
    asked.finish = "abort"
    with pytest.raises(RuntimeError, match="'abort', not stop or length"):
        run(tmp_path, checkpoint, seeds)


def test_without_vllm_the_extra_is_named_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match=r"pip install '\.\[vllm\]'"):
        shard_writer(BY_VLLM, tmp_path / "missing", "cpu", INLINE)


@pytest.mark.parametrize("temperature", [0.005, 2.5])
def test_temperatures_that_vllm_would_change_are_refused(temperature):
    with pytest.raises(ValidationError, match="allowed there: 0, and 0.01 to 2.0"):
        SynthesisConfig(backend="vllm", temperature=temperature)


def test_the_setting_renames_no_stage_of_our_own_engine():
    content = SynthesisConfig().content()
    assert "backend" not in content and "vllm" not in content
    assert SynthesisConfig(**content) == SynthesisConfig()
    assert SynthesisConfig(backend="vllm").content()["backend"] == "vllm"


def test_rows_from_before_the_backend_was_recorded_are_read(tmp_path, seeds):
    result = run_own(tmp_path, tiny_model(), seeds)
    expected = pq.read_table(result.provenance_path)
    for path in (tmp_path / "shards").glob("*/provenance.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["backend", "shared_tokens"]), path)
    (tmp_path / "synthesis.json").unlink()
    joined = run_own(tmp_path, tiny_model(), seeds)
    assert pq.read_table(joined.provenance_path).equals(expected)
    assert set(np.unique(expected["backend"])) == {"own"}


def test_without_seed_documents_vllm_is_given_bos_alone(tmp_path, checkpoint, seeds, asked):
    run(tmp_path, checkpoint, seeds, seed_dataset=None, config=BY_VLLM.without_seeds(), need_tokens=200)
    prompts = {tuple(prompt["prompt_token_ids"]) for call in asked.calls for prompt in call[0]}
    parameters = [one for call in asked.calls for one in call[1]]
    assert prompts == {(BOS,)}
    assert {(one.temperature, one.top_p) for one in parameters} == {(1.0, 0.9)}
    assert len({one.seed for one in parameters}) == len(parameters)
