"""In batch-invariant mode a document has the same bytes at any number of slots and any chunk."""

import zlib

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from synthesis_world import CONFIG, VOCABULARY, Marks, make_engine, open_seeds, run

from megasbp.errors import InputError
from megasbp.model.batch_invariant import make_batch_invariant
from megasbp.model.config import ModelConfig
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import computes_bfloat16
from megasbp.synthesis import engine as engine_module
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.exchange import Request
from megasbp.synthesis.regenerate import regenerate

CONTEXT = 512
# Slots, prompts read together, tokens of each.
SHAPES = [(1, 1, 16), (3, 2, 64), (8, 8, 16), (8, 1, 512), (64, 8, 64), (64, 3, 512)]
# The reference of attention in pages takes a copy of them for every query.
PAGED_SHAPES = [(1, 1, 16), (3, 1, 64), (8, 1, 512), (64, 2, 16)]


def wide_model() -> Transformer:
    """Products so large that a CPU's library multiplies few rows in another way than many."""
    config = ModelConfig(
        vocabulary_size=VOCABULARY,
        layers=2,
        width=192,
        heads=6,
        kv_heads=2,
        head_dim=32,
        feed_forward=512,
        rope_theta=10_000.0,
        norm_epsilon=1e-5,
        qk_norm=True,
        tied=False,
        maximum_positions=CONTEXT,
    )
    model, generator = Transformer(config), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0, 0.07, generator=generator)
    return model.eval()


@pytest.fixture
def bits_as_tokens(monkeypatch):
    """Any differing bit of the logits sends a document another way."""

    def drawn(logits, *rest):
        return torch.tensor([zlib.crc32(row.numpy().tobytes()) % VOCABULARY for row in logits])

    monkeypatch.setattr(engine_module, "sample", drawn)


def requests() -> list[Request]:
    """Prompts of no chunk, of one and of several, of every size."""
    generator = np.random.default_rng(1)
    lengths = (1, 2, 15, 17, 64, 66, 150)
    return [Request(i, 0, generator.integers(3, VOCABULARY, length)) for i, length in enumerate(lengths)]


def documents(model: Transformer, shape: tuple[int, int, int], paged: bool) -> list[bytes]:
    slots, prefill_slots, chunk = shape
    sizes = {"slots": slots, "prefill_slots": prefill_slots, "prefill_chunk": chunk}
    engine = make_engine(model, capacity=CONTEXT, paged=paged, stop_token=-1, **sizes)
    return [one.tokens.tobytes() for one in engine.generate(requests(), 6)]


needs_bfloat16 = pytest.mark.skipif(
    not computes_bfloat16("cpu"), reason="this CPU emulates bfloat16 (needed: AVX512-BF16), which is refused"
)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
@pytest.mark.parametrize("paged", [False, True])
def test_not_one_bit_depends_on_slots_and_chunks(paged, dtype, bits_as_tokens):
    model = wide_model()
    model.compute_dtype = dtype
    make_batch_invariant(model)
    first, *others = PAGED_SHAPES if paged else SHAPES
    expected = documents(model, first, paged)
    assert len(set(expected)) == len(expected)
    for shape in others:
        assert documents(model, shape, paged) == expected, shape


def test_without_the_mode_bits_do_depend_on_them(bits_as_tokens):
    model = wide_model()
    found = {tuple(documents(model, shape, paged=False)) for shape in SHAPES}
    assert len(found) > 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpus_documents_do_not_depend_on_them_either(dtype):
    model = wide_model().cuda()
    model.compute_dtype = dtype
    make_batch_invariant(model)
    expected = documents(model, SHAPES[0], paged=True)
    for shape in SHAPES[1:]:
        assert documents(model, shape, paged=True) == expected, shape


def test_other_slots_than_multiples_of_eight_are_allowed_then():
    SynthesisConfig(batch_invariant=True, slots=3, prefill_slots=1, prefill_chunk=1)
    with pytest.raises(ValidationError, match="multiples of 8"):
        SynthesisConfig(slots=3, prefill_slots=1)


def test_fewer_slots_than_eight_write_without_seeds_too(tmp_path):
    shape = {"batch_invariant": True, "slots": 4, "prefill_slots": 4}
    given = SynthesisConfig(**(CONFIG.model_dump() | shape | {"minimum_acceptance": 0.0}))
    config = given.without_seeds()
    assert SynthesisConfig(**config.model_dump()) == config
    seeds, model = open_seeds(tmp_path), wide_model()
    make_batch_invariant(model)
    result = run(tmp_path / "own", model, seeds, seed_dataset=None, config=config, need_tokens=1)
    assert result.requests > 0


def test_vllm_has_a_mode_of_its_own():
    with pytest.raises(ValidationError, match="leave one of them out"):
        SynthesisConfig(batch_invariant=True, backend="vllm")


def test_the_setting_renames_no_stage_while_it_is_off():
    assert "batch_invariant" not in SynthesisConfig().content()
    assert SynthesisConfig(batch_invariant=True).content()["batch_invariant"] is True


def test_rows_say_so_and_ask_for_it(tmp_path):
    import pyarrow.parquet as pq

    seeds, model = open_seeds(tmp_path), wide_model()
    make_batch_invariant(model)
    config = CONFIG.model_copy(update={"batch_invariant": True, "minimum_acceptance": 0.0})
    result = run(tmp_path / "corpus", model, seeds, config=config, need_tokens=1, checkpoint_hash="wide")
    row = pq.read_table(result.provenance_path).to_pylist()[0]
    assert row["batch_invariant"] is True
    named = {"tokenizer": Marks(), "seed_dataset": seeds, "checkpoint_hash": "wide"}
    # Another compute shape gives the document too.
    shape = {"slots": 1, "prefill_slots": 1, "prefill_chunk": 16}
    (again,) = regenerate([row | shape], model=model, **named)
    assert len(again.tokens) == row["length"]
    with pytest.raises(InputError, match="batch_invariant was True, here it is False"):
        regenerate([row], model=wide_model(), **named)
