"""Writes a synthetic corpus with a tuned synthesizer; a run that was stopped goes on where it was.

    python tools/synthesize.py OUTPUT --checkpoint STEP --tokenizer t.json --seeds DATASET --tokens 1e9
    python tools/synthesize.py OUTPUT ... --engine local --gpus 1 temperature=0.9 slots=512

See --help.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

import numpy as np
import torch

from megasbp.command import run_command
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, without_suffix
from megasbp.errors import InputError
from megasbp.experiment.recipe import SynthesizerConfig
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.section_settings import read_values, section_of
from megasbp.shards.lock import folder_lock
from megasbp.shards.options import add_shards_options, chosen_shards
from megasbp.synthesis.config import SynthesisConfig
from megasbp.synthesis.synthesize import synthesize
from megasbp.synthesis.writers import shard_writer
from megasbp.training.checkpoint_files import read_state, require_whole

EXPLANATION = """\
STEP is a checkpoint's folder (.../checkpoints/step-00000400) of a synthesizer p(document 2 | document 1), or
one that tools/convert_checkpoint.py import made. Datasets are those of tools/preprocess_corpus.py and
merge_datasets.py, tokenised by the same tokenizer. Seed documents are used equally often, up to one.

OUTPUT gets synthetic.{bin,idx,json}, an indexed dataset of `bos document eos` of the accepted documents, and
provenance.parquet: of every document, dropped ones too, its seed, sampler, noise key and what each filter
measured; enough to write it again bit for bit. Documents are dropped that repeat themselves, copy their seed
or the corpus (--corpus; the seeds without it), share a passage with --held-out text, or equal an earlier one.

Documents are written in shards of shard_documents, each published once, whole. Run the same command again
after a stop or a kill: published shards are kept, at most one a worker is lost, the bytes in the end are the
same. More --tokens later go on from there too.

Settings are those of a recipe's [synthesis] section: given as key=value, or by --recipe, of which the
synthesizer's context is taken too. `auto` precision is bf16 on a GPU, fp32 on a CPU.

With backend=vllm a shard is one call of vLLM, on a GPU. Filters, shards and provenance are the same, but no
bytes are promised: its documents cannot be written again from their rows. See docs/synthesis.md.

examples:
  on this machine              OUTPUT --checkpoint STEP --tokenizer t.json --seeds unique --tokens 5e6
  eight GPUs of this host      ... --engine local --gpus 1 shard_documents=65536 slots=512
  a Ray cluster                ... --engine ray --address auto --gpus 1
  by vLLM                      ... backend=vllm slots=256 shard_documents=16384

exit status: 0 all is well, 2 something is wrong (one line on standard error says what, and the mend),
1 a worker failed or died again and again
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("synthesize", write_corpus, parse(arguments), "finished shards")


def write_corpus(options: argparse.Namespace) -> None:
    """Opens what is named, has the corpus written, and says what came out."""
    shards = chosen_shards(options, gpus=options.gpus)
    recipe = read_values(options.recipe) if options.recipe else {}
    config = section_of(SynthesisConfig, "synthesis", recipe, options.settings)
    tuning = section_of(SynthesizerConfig, "synthesizer", recipe)
    digest = require_whole(options.checkpoint).digest
    tokenizer = Tokenizer.load(options.tokenizer, bos=options.bos, eos=options.eos, sep=options.sep)
    seeds = open_dataset(options.seeds, tokenizer)
    positions = read_state(options.checkpoint)["model"]["maximum_positions"]
    context = options.context or (tuning.context if "context" in tuning.model_fields_set else positions)
    if not options.held_out:
        print("no --held-out: nothing keeps passages of held-out text out of the corpus", flush=True)
    corpus = [open_dataset(path, tokenizer) for path in options.corpus] or [seeds]
    held_out = [open_dataset(path, tokenizer) for path in options.held_out]
    corpus_index = NgramIndex.build(corpus, options.shingle_width)
    held_out_index = NgramIndex.build(held_out or [np.empty(0, np.int64)], options.shingle_width)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with folder_lock(options.output):
        result = synthesize(
            writer=shard_writer(config, options.checkpoint, device, shards),
            tokenizer=tokenizer,
            seed_dataset=seeds,
            dtype=seeds.dtype,
            corpus_index=corpus_index,
            held_out_index=held_out_index.without(corpus_index),
            config=config,
            need_tokens=options.tokens,
            context=context,
            seed=options.seed,
            folder=options.output,
            checkpoint_hash=digest,
        )
    drops = ", ".join(f"{name} {count:,}" for name, count in result.drops.items() if count)
    print(
        f"{result.dataset_prefix}: {result.documents:,} documents, {result.tokens:,} tokens, of "
        f"{result.requests:,} documents written; dropped: {drops or 'none'}"
    )


def open_dataset(path: Path, tokenizer: Tokenizer) -> IndexedDataset:
    """A dataset that this tokenizer made.

    Raises:
        InputError: it is missing or damaged, or another tokenizer made it.
    """
    dataset = IndexedDataset(without_suffix(path))
    made_by = dataset.metadata.get("tokenizer")
    if made_by != tokenizer.hash:
        raise InputError(
            f"{path}: made by tokenizer {str(made_by)[:12]}, and --tokenizer is {tokenizer.hash[:12]}; "
            "name its own"
        )
    return dataset


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Writes a synthetic corpus with a tuned synthesizer; goes on after a stop.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="folder for the corpus; made if missing")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of [synthesis], such as top_p=0.95")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="STEP", help="of the synthesizer")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of the datasets")
    for role in ("bos", "eos", "sep"):
        parser.add_argument(
            f"--{role}", metavar="TOKEN", help=f"name of the {role} token, where it is not found"
        )
    parser.add_argument("--seeds", type=Path, required=True, metavar="DATASET", help="documents 1")
    parser.add_argument(
        "--tokens", type=whole_number, required=True, metavar="N", help="accepted tokens wanted, e.g. 1e9"
    )
    parser.add_argument(
        "--corpus", type=Path, nargs="+", default=[], metavar="DATASET", help="that may not be copied (seeds)"
    )
    parser.add_argument(
        "--held-out", type=Path, nargs="+", default=[], metavar="DATASET", help="validation and test text"
    )
    parser.add_argument("--recipe", type=Path, help="a recipe whose [synthesis] section is taken")
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens of prompt and document (the model's positions)"
    )
    parser.add_argument("--shingle-width", type=int, default=13, metavar="TOKENS", help="of a passage (13)")
    parser.add_argument("--seed", type=int, default=0, help="of seed order and draws (0)")
    add_shards_options(
        parser, workers="processes (as many as GPUs or cores allow)", engines=("inline", "local", "ray")
    )
    parser.add_argument("--gpus", type=float, metavar="N", help="of each worker (0)")
    options = parser.parse_intermixed_args(arguments)
    if options.context is not None and options.context < 16:
        parser.error(f"--context is {options.context}; set it to at least 16")
    return options


def whole_number(text: str) -> int:
    """1e9 as well as 1000000000."""
    number = float(text)
    if not number.is_integer() or number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(number)


if __name__ == "__main__":
    sys.exit(main())
