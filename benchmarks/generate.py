"""Generation of documents by a recipe's model: tokens/s, beside transformers on the same weights and prompts.

python tools/benchmark.py generate configs/demo.toml --checkpoint FOLDER/checkpoints/step-N

All sides draw documents at temperature 1 from the whole vocabulary until the end-of-document token or the
limit, 64 at a time; ours takes the next request when a document ends, transformers' `generate` waits for the
longest of a batch. Further sides are ours in batch-invariant mode (what that costs) and, on a GPU, without
CUDA graphs. Each of our sides has a cache of its own: where they do not fit, name fewer (--sides). Tokens
that were kept count, not padding. Without --checkpoint weights are random, and every document has the limit's
length. On a GPU the serial roofline is printed: to read weights and cache, then to multiply.
"""

import argparse
import copy
import functools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.decoding import Roofline, decoding
from benchmarks.measuring import OURS, Measure, Side, interleave, not_installed
from megasbp.errors import InputError
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.model.batch_invariant import make_batch_invariant
from megasbp.model.hugging_face import export_hugging_face
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import ALONE, computes_bfloat16
from megasbp.synthesis.decode_graph import Graphs
from megasbp.synthesis.engine import Engine
from megasbp.synthesis.exchange import Request
from megasbp.synthesis.generator import narrow_weights
from megasbp.training.checkpoint import checkpoint_tensors, load_tensors

PACKAGES = ("megasbp", "torch", "triton", "transformers")
_THEIRS = "transformers"
_INVARIANT, _PLAIN = f"{OURS}, batch invariant", f"{OURS}, no CUDA graphs"
# Of decode steps: name of a side -> settings of the engine.
_WAYS: dict[str, dict[str, Any]] = {OURS: {}, f"{OURS}, a step ahead": {"ahead": True}}
_WITHOUT_GRAPHS: dict[str, dict[str, Any]] = {_PLAIN: {"cuda_graphs": "off"}}
_SIDES = ("invariant", "graphs", "transformers")
_TARGET_RATIO = 2.0
_SHORTEST = 128
_STOP = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this subject."""
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--checkpoint", type=Path, help="weights; random ones without it")
    parser.add_argument("--stop-token", type=int, default=_STOP, help="end of a document (%(default)s)")
    parser.add_argument("--documents", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="documents at a time (%(default)s)")
    parser.add_argument("--prompt-tokens", type=int, default=64, help="longest prompt (%(default)s)")
    parser.add_argument("--maximum-tokens", type=int, default=128, help="of a document (%(default)s)")
    parser.add_argument("--sides", nargs="*", choices=_SIDES, default=_SIDES, help="beside ours (all)")
    parser.add_argument(
        "--decoding",
        nargs="*",
        default=["64x1024", "256x1024", "512x1024", "64x2048", "256x2048", "512x2048"],
        metavar="DOCUMENTSxTOKENS",
        help="decode steps to measure on a GPU (%(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=2, help="of every side, in turn (%(default)s)")


def measure(options: argparse.Namespace, folder: Path) -> list[Measure]:
    """Tokens a second of all sides, then of decode steps."""
    sizes = [_size(text) for text in options.decoding]
    recipe = load_recipe(options.recipe, options.overrides)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _model(recipe, options.checkpoint, device)
    requests = _requests(options, recipe.model.vocabulary_size)
    calls: dict[str, Callable[[], float]] = {
        name: functools.partial(_our_rate, engine, requests, options.maximum_tokens)
        for name, engine in _engines(model, options, device).items()
    }
    missing = not_installed("transformers", "transformers") if "transformers" in options.sides else "left out"
    if not missing:
        theirs = _exported(model, folder / "exported", device)
        calls[_THEIRS] = lambda: _rate(lambda: _their_tokens(theirs, requests, options))
    values = interleave(calls, options.repeats)
    sides = {name: Side(values[name]) for name in calls} | {_THEIRS: Side(values.get(_THEIRS, []), missing)}
    if device.type == "cpu":
        ratios = {_THEIRS: _TARGET_RATIO}
        return [Measure("generation", "tokens/s", True, sides, target_ratios=ratios)]
    calls.clear()  # The engines' caches go.
    roofline = Roofline(recipe.model, device)
    return [
        Measure("generation", "tokens/s", True, sides),
        # What graphs are worth is most where there is little else to do: at the first size.
        *(
            decoding(model, roofline, *size, _WAYS if number else _WAYS | _WITHOUT_GRAPHS)
            for number, size in enumerate(sizes)
        ),
    ]


def _size(text: str) -> tuple[int, int]:
    """Documents and tokens of "64x1024"."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found or int(found[1]) % 8 or int(found[2]) < _SHORTEST:
        raise InputError(
            f"--decoding {text}; allowed: DOCUMENTSxTOKENS such as 64x1024, a multiple of 8 documents, "
            f"{_SHORTEST} tokens or more"
        )
    return int(found[1]), int(found[2])


def _model(recipe: Recipe, checkpoint: Path | None, device: torch.device) -> Transformer:
    with device:  # Where the numbers of its weights are made, too.
        model = Transformer(recipe.model).eval()
    if checkpoint is None:
        initialize(model, seed=0)
    else:
        load_tensors(checkpoint, checkpoint_tensors(model), ALONE)
    if computes_bfloat16(device):
        model.compute_dtype = torch.bfloat16
        narrow_weights(model, torch.bfloat16)
    return model


def _invariant(model: Transformer) -> Transformer:
    """The same weights, in batch-invariant mode."""
    copied = copy.deepcopy(model)
    make_batch_invariant(copied)
    return copied


def _requests(options: argparse.Namespace, vocabulary: int) -> list[Request]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, options.prompt_tokens + 1, options.documents)
    return [
        Request(number, 0, generator.integers(2, vocabulary, length)) for number, length in enumerate(lengths)
    ]


def _engines(model: Transformer, options: argparse.Namespace, device: torch.device) -> dict[str, Engine]:
    """Our sides, the first of which is compared."""
    engines = {OURS: _engine(model, options)}
    if "invariant" in options.sides:
        engines[_INVARIANT] = _engine(_invariant(model), options)
    if "graphs" in options.sides and device.type == "cuda":
        engines[_PLAIN] = _engine(model, options, cuda_graphs="off")
    return engines


def _engine(model: Transformer, options: argparse.Namespace, cuda_graphs: Graphs = "auto") -> Engine:
    chunk = 64
    capacity = -(-(options.prompt_tokens + options.maximum_tokens) // chunk) * chunk
    sampler: dict[str, Any] = {"stop_token": options.stop_token, "temperature": 1.0, "top_p": 1.0, "key": 0}
    shape: dict[str, Any] = {"slots": options.batch, "capacity": capacity, "prefill_chunk": chunk}
    return Engine(model, **shape, **sampler, cuda_graphs=cuda_graphs)


def _rate(run: Callable[[], int]) -> float:
    start = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - start)


def _our_rate(engine: Engine, requests: list[Request], limit: int) -> float:
    return _rate(lambda: _our_tokens(engine, requests, limit))


def _our_tokens(engine: Engine, requests: list[Request], limit: int) -> int:
    completions = engine.generate(requests, limit)
    return sum(len(one.tokens) + (one.finish_reason == "eos") for one in completions)


def _exported(model: Transformer, folder: Path, device: torch.device) -> Any:
    import transformers

    state = model.state_dict()

    def fill(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensor.copy_(state[name])

    export_hugging_face(model.config, fill, folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=model.compute_dtype)
    return theirs.to(device).eval()


def _their_tokens(model: Any, requests: list[Request], options: argparse.Namespace) -> int:
    """Left-padded batches in the order of the requests."""
    device, tokens = model.device, 0
    for first in range(0, len(requests), options.batch):
        prompts = [request.prompt for request in requests[first : first + options.batch]]
        longest = max(map(len, prompts))
        given = torch.full((len(prompts), longest), options.stop_token)
        mask = torch.zeros_like(given)
        for row, prompt in enumerate(prompts):
            given[row, longest - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, longest - len(prompt) :] = 1
        written = model.generate(
            given.to(device),
            attention_mask=mask.to(device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=options.maximum_tokens,
            eos_token_id=options.stop_token,
            pad_token_id=options.stop_token,
        )[:, longest:]
        # Up to and with the first stop token of each row.
        ended = (written == options.stop_token).cumsum(1)
        tokens += int(((ended == 0) | ((ended == 1) & (written == options.stop_token))).sum())
    return tokens
