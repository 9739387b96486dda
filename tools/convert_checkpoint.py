"""Turns training checkpoints into folders that transformers and vLLM load, and the other way round.

    python tools/convert_checkpoint.py export runs/demo/seed-0/train-sbp-*/checkpoints/step-00000400 OUTPUT \\
        --tokenizer runs/demo/tokenizer-*/tokenizer.json
    python tools/convert_checkpoint.py import HUGGING_FACE_FOLDER OUTPUT

Models are Qwen3ForCausalLM or LlamaForCausalLM. Memory: about two shards (--shard-gb) for an export, a tensor
for an import. An imported checkpoint holds weights only: a run can start from it, not continue it.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from megasbp.command import run_command
from megasbp.errors import InputError
from megasbp.training.conversion import export_checkpoint, import_checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("convert_checkpoint", convert, parse(arguments))


def convert(options: argparse.Namespace) -> None:
    """Writes the other form, and says where."""
    if options.direction == "import":
        import_checkpoint(options.source, options.output)
        print(f"{options.output}: written, a checkpoint of the weights")
        return
    if not 0 < options.shard_gb < math.inf:
        raise InputError(f"--shard-gb is {options.shard_gb:g}, must be above 0; leave it out for 5")
    export_checkpoint(options.source, options.output, options.tokenizer, round(options.shard_gb * 1e9))
    print(f"{options.output}: written; open it with transformers.AutoModelForCausalLM.from_pretrained")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    directions = parser.add_subparsers(dest="direction", required=True)
    outward = directions.add_parser("export", help="a checkpoint to a Hugging Face folder")
    inward = directions.add_parser("import", help="a Hugging Face folder to a checkpoint")
    outward.add_argument("source", type=Path, help="a step's folder, e.g. .../checkpoints/step-00000400")
    inward.add_argument("source", type=Path, help="a folder with config.json and safetensors files")
    for direction in (outward, inward):
        direction.add_argument("output", type=Path, help="folder to write; replaced as a whole if it exists")
    outward.add_argument("--tokenizer", type=Path, help="the run's tokenizer.json, copied as well")
    outward.add_argument("--shard-gb", type=float, default=5.0, help="of a file of weights (default 5)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
