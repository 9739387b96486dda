"""Turns a training checkpoint into a folder that transformers and vLLM load.

    python tools/convert_checkpoint.py runs/demo/seed-0/train-sbp-*/checkpoints/step-00000400 OUTPUT \\
        --tokenizer runs/demo/tokenizer-*/tokenizer.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from megasbp.errors import InputError
from megasbp.model.hugging_face import export_hugging_face
from megasbp.training.checkpoint import load_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a step's folder, e.g. .../checkpoints/step-00000400")
    parser.add_argument("output", type=Path, help="folder to write; replaced as a whole if it exists")
    parser.add_argument("--tokenizer", type=Path, help="the run's tokenizer.json, copied beside the weights")
    options = parser.parse_args(arguments)
    try:
        export_hugging_face(load_model(options.checkpoint), options.output, options.tokenizer)
    except InputError as error:
        print(f"convert_checkpoint: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: written; open it with transformers.AutoModelForCausalLM.from_pretrained")
    return 0


if __name__ == "__main__":
    sys.exit(main())
