import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_world import counting_positions, export_model, import_model, random_tokens, small_model
from safetensors.torch import load_file, save_file

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.model.transformer import Transformer

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")

CASES = [
    {"qk_norm": True, "tied": True},
    {"qk_norm": True, "tied": False, "rope_theta": 500_000.0},
    {"qk_norm": False, "tied": True, "kv_heads": 6},
    {"qk_norm": False, "tied": False, "norm_epsilon": 1e-3},
]
MUP_CASES = [{"qk_norm": True, "tied": tied, "mup_base_width": 20} for tied in (True, False)]


@pytest.fixture
def tokenizer_file(tmp_path) -> Path:
    path = tmp_path / "tokenizer" / "tokenizer.json"
    Tokenizer.train(iter(["some words, and some more words"] * 3), 270).save(path)
    return path


@pytest.mark.parametrize("changes", [*CASES, *MUP_CASES])
def test_transformers_computes_the_same_logits(tmp_path, changes):
    model = small_model(**changes)
    export_model(model, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert type(theirs).__name__ == ("Qwen3ForCausalLM" if changes["qk_norm"] else "LlamaForCausalLM")
    assert_same_logits(model, theirs)


def assert_same_logits(ours: Transformer, theirs: torch.nn.Module) -> None:
    """In fp64; what is left is their angles, in fp32 always: up to 3e-6 at position 50, 5e-5 of a logit."""
    tokens = random_tokens(2, 50)
    ours.compute_dtype = torch.float64
    with torch.no_grad():
        found, expected = ours.double()(tokens, counting_positions(2, 50)), theirs.double()(tokens).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("changes", CASES)
def test_a_model_saved_by_transformers_comes_in(tmp_path, changes):
    export_model(small_model(**changes), tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    model = import_model(tmp_path / "theirs")
    assert_same_logits(model, theirs)


@pytest.mark.parametrize("changes", CASES)
def test_out_and_in_again_changes_nothing(tmp_path, changes):
    model = small_model(**changes)
    export_model(model, tmp_path / "model")
    again = import_model(tmp_path / "model")
    assert again.config == model.config
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_the_tokenizer_and_its_special_tokens_go_along(tmp_path, tokenizer_file):
    export_model(small_model(vocabulary_size=280), tmp_path / "model", tokenizer_file)
    tokenizer = Tokenizer.load(tokenizer_file)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos, tokenizer.eos)
    text = "more words"
    assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode_batch([text])[0].tolist()
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "model")
    assert (generation.bos_token_id, generation.eos_token_id) == (tokenizer.bos, tokenizer.eos)
    assert Tokenizer.load(tmp_path / "model").hash == tokenizer.hash


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path, tokenizer_file):
    with pytest.raises(InputError, match="vocabulary_size is 97"):
        export_model(small_model(), tmp_path / "model", tokenizer_file)
    assert not (tmp_path / "model").exists()


def test_an_export_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    export_model(small_model(seed=1), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fails(*_args, **_keywords):
        raise OSError("disk full")

    monkeypatch.setattr("megasbp.model.hugging_face.write_safetensors", fails)
    with pytest.raises(OSError, match="disk full"):
        export_model(small_model(seed=2), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_equal_models_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        export_model(small_model(), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; allowed: llama, qwen3"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type is 'yarn'"),
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "partial_rotary_factor is 0.5",
        ),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is .*sliding_attention"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"architectures": ["Qwen3ForTokenClassification"]}, "architectures is .*TokenClassification"),
        ({"intermediate_size": 65}, r"has shape \(.*\), config.json asks for \(.*65.*\)"),
        ({"num_hidden_layers": 4}, "model.layers.3.input_layernorm.weight is missing; 11 tensors"),
        ({"num_hidden_layers": 2}, "model.layers.2"),
        ({"num_attention_heads": 5}, "nearest legal value"),
    ],
)
def test_what_we_do_not_compute_is_refused(tmp_path, change, message):
    export_model(small_model(), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        import_model(tmp_path / "model")


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(InputError, match="config.json: no such file"):
        import_model(tmp_path)
    export_model(small_model(), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        import_model(tmp_path / "model")
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        import_model(tmp_path / "model")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_come_in_as_fp32(tmp_path, dtype):
    folder = tmp_path / "model"
    export_model(small_model(), folder)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    model = import_model(folder)
    assert torch.equal(model.embedding.weight, tensors["model.embed_tokens.weight"].float())
    assert model.embedding.weight.dtype == torch.float32


def edited_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "model.norm.weight is missing; 1 tensors in all"),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "holds extra, which 3 blocks of this model"),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(47)}),
            r"model.norm.weight has shape \(47,\), config.json asks for \(48,\)",
        ),
        (
            lambda tensors: tensors.update({"model.norm.weight": torch.ones(48, dtype=torch.int8)}),
            "model.norm.weight is I8; allowed: BF16, F16, F32",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, edit, message):
    export_model(small_model(), tmp_path / "model")
    edited_weights(tmp_path / "model", edit)
    with pytest.raises(InputError, match=message):
        import_model(tmp_path / "model")


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path):
    export_model(small_model(), tmp_path / "model")
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"names '\.\./model.safetensors', which is no file of the folder"):
        import_model(tmp_path / "model")


def test_shards_hold_the_model_once_and_none_is_too_large(tmp_path):
    model = small_model(tied=False)
    largest = 40_000
    export_model(model, tmp_path / "model", None, largest)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 2
    found = {}
    for path in files:
        tensors = load_file(path)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= largest
        assert {index["weight_map"][name] for name in tensors} == {path.name}
        found |= tensors
    assert found.keys() == index["weight_map"].keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in model.state_dict().values())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert all(torch.equal(found[name], tensor) for name, tensor in theirs.state_dict().items())
