"""Tokenises a corpus into dataset shards, in parallel; a run that was stopped goes on where it was.

    python tools/preprocess_corpus.py OUTPUT PATH... --tokenizer tokenizer.json
    python tools/preprocess_corpus.py OUTPUT PATH... --tokenizer tokenizer.json --workers 64 --on-difference
    fallback

See --help.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from megasbp.command import run_command
from megasbp.corpus.fast_tokenizer import first_difference, open_encoder
from megasbp.corpus.files import corpus_files
from megasbp.corpus.pieces import plan_shards, total_bytes
from megasbp.corpus.quarantine import counted, share_problem
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.preprocess import ENCODERS, ON_DIFFERENCE, preprocess_shard, publish_plan
from megasbp.durations import clock
from megasbp.errors import InputError
from megasbp.shards.config import INLINE, ShardsConfig
from megasbp.shards.engine import run_shards
from megasbp.shards.machine import usable_cores
from megasbp.shards.options import add_shards_options, chosen_shards
from megasbp.shards.publication import shard_folder
from megasbp.storage import Manifest, publish_json, publishing_file

EXPLANATION = """\
PATHs are files or folders of .jsonl, .ndjson or .json (one object a line; also .gz, .zst), .parquet and .txt.
They are cut into shards of about --shard-bytes on disk: plain lines anywhere, Parquet between row groups,
compressed and text files not at all. So many compressed files use many workers; one uses one, on all threads.

OUTPUT gets shard-000000, shard-000001, ..., each with documents.bin, .idx and .json (an indexed dataset of
`bos document eos`), documents.parquet (id and bytes of each document) and quarantine.jsonl (bad documents:
place and reason); at the end corpus.json (counts), quarantine.jsonl (of all shards) and tokenizer.json. The
same files and settings give the same bytes whatever the number of workers. Run the same command again after a
stop: shards that are finished are kept.

gigatoken is used where it is installed and encodes a set of hard texts as Hugging Face does; then --sample
documents of each shard are compared as well. A difference stops the run, or, with --on-difference fallback,
has that shard done again by Hugging Face.

examples:
  a folder of files            OUTPUT corpus/ --tokenizer tokenizer.json
  with titles, other fields    OUTPUT a.jsonl.zst --tokenizer t.json --text-field body --title-field title
  one dataset out of shards    python tools/merge_datasets.py merged/corpus OUTPUT/shard-*/documents.json
  look at it                   python tools/inspect_dataset.py merged/corpus --tokenizer t.json --documents 0

exit status: 0 all is well, 2 something is wrong (one line on standard error says what, and the mend),
1 a worker failed or died again and again
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("preprocess_corpus", preprocess, parse(arguments), "finished shards")


def preprocess(options: argparse.Namespace) -> None:
    """Plans, makes the missing shards, judges the share of bad documents, and writes the summary."""
    engine = chosen_shards(options)
    tokenizer = Tokenizer.load(options.tokenizer, bos=options.bos, eos=options.eos, sep=options.sep)
    relative = [path for path in options.paths if not path.is_absolute()]
    if options.address is not None and relative:
        raise InputError(
            f"{relative[0]}: a path from this folder, and a cluster's workers have others; give whole paths"
        )
    shards = plan_shards(corpus_files(options.paths), options.shard_bytes)
    workers = engine.workers or usable_cores()
    threads = max(1, workers // len(shards))
    # Read by the thread pools of gigatoken and tokenizers; the workers are told by the engine.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    encoder = chosen_encoder(options.encoder, tokenizer)
    options.output.mkdir(parents=True, exist_ok=True)
    plan_hash = publish_plan(options.output / "plan.json", shards)
    keep_tokenizer(options.output / "tokenizer.json", tokenizer)
    progress = Progress([total_bytes(shard) for shard in shards], options.maximum_bad_share, options.output)
    manifests = run_shards(
        preprocess_shard,
        range(len(shards)),
        options.output,
        settings={
            "roles": tokenizer.roles,
            "encoder": encoder,
            "sample": options.sample,
            "on_difference": options.on_difference,
            "text_field": options.text_field,
            "id_field": options.id_field,
            "title_field": options.title_field,
            "maximum_characters": options.maximum_characters,
            "source": {"name": options.source},
        },
        inputs={"plan": plan_hash, "tokenizer": tokenizer.hash},
        paths={"plan": options.output / "plan.json", "tokenizer": options.output / "tokenizer.json"},
        config=engine_for(len(shards), engine, threads),
        finished=progress.done,
    )
    progress.judge(final=True)
    finish(options.output, [manifest.facts for manifest in manifests], tokenizer.hash)


def keep_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Leaves the tokenizer where the workers find it.

    Raises:
        InputError: another one lies there, with which shards may be under way.
    """
    if not path.exists():
        tokenizer.save(path)
    elif Tokenizer.load(path, **tokenizer.roles).hash != tokenizer.hash:
        raise InputError(
            f"{path}: another tokenizer than the one given; use another folder, or remove {path.parent} to "
            "start anew"
        )


def engine_for(shards: int, engine: ShardsConfig, threads: int) -> ShardsConfig:
    """Where the shards are made: a single one in this process, which has loaded all that it needs."""
    if engine.engine == "local" and shards == 1:
        return INLINE
    return engine.model_copy(update={"threads": threads})


def chosen_encoder(wanted: str, tokenizer: Tokenizer) -> str:
    """The encoder to be used, with a line that says why.

    Raises:
        InputError: "gigatoken" is wanted and cannot be had, or differs from Hugging Face.
    """
    if wanted == "huggingface":
        return wanted
    try:
        difference = first_difference(open_encoder("gigatoken", tokenizer), tokenizer)
        if difference is None:
            print("encoder: gigatoken; equal to Hugging Face on the check texts", flush=True)
            return "gigatoken"
        reason = f"gigatoken differs from Hugging Face on {difference}; set --encoder huggingface"
    except InputError as error:
        reason = str(error)
    if wanted == "gigatoken":
        raise InputError(reason)
    print(f"encoder: huggingface, about a hundred times slower, because {reason}", flush=True)
    return "huggingface"


class Progress:
    """Prints a line per shard and stops the run when too many documents are bad.

    The share is judged over the shards that are finished without a gap from the first on, so the verdict does
    not depend on which worker was quicker.

    Args:
        sizes: bytes of each shard on disk.
        maximum_bad_share: bad documents over all.
        output: named in errors.
    """

    def __init__(self, sizes: Sequence[int], maximum_bad_share: float, output: Path) -> None:
        self._sizes = sizes
        self._maximum = maximum_bad_share
        self._output = output
        self._facts: dict[int, dict[str, Any]] = {}
        self._started = time.monotonic()
        self._made_bytes = 0

    def done(self, shard: int, manifest: Manifest, made: bool) -> None:
        """Takes note of a finished shard.

        Raises:
            InputError: the share of bad documents is too large.
        """
        self._facts[shard] = manifest.facts
        if made:
            self._made_bytes += self._sizes[shard]
            self._print(shard, manifest.facts)
        self.judge()

    def judge(self, final: bool = False) -> None:
        """Judges the share of bad documents, as a reading of all of them in one process would."""
        reasons: Counter[str] = Counter()
        good = 0
        for shard in range(len(self._sizes)):
            if shard not in self._facts:
                break
            good += self._facts[shard]["documents"]
            reasons.update(self._facts[shard]["reasons"])
        if final and good == 0:
            raise InputError(
                f"{self._output}: no usable document in any file; correct the paths or --text-field "
                f"({counted(reasons) or 'nothing was found'})"
            )
        problem = share_problem(good, reasons, self._maximum, final)
        if problem:
            raise InputError(
                f"{problem}, above --maximum-bad-share {self._maximum}; "
                f"{self._output}/shard-*/quarantine.jsonl list them: mend the files or the names of the "
                "fields and start in a new folder, or raise the share"
            )

    def _print(self, shard: int, facts: dict[str, Any]) -> None:
        seconds = max(1e-9, time.monotonic() - self._started)
        left = sum(self._sizes[other] for other in range(len(self._sizes)) if other not in self._facts)
        speed = self._made_bytes / seconds
        notes = f", {facts['rejected']:,} bad" if facts["rejected"] else ""
        notes += f"; done by {facts['encoder']}: {facts['difference']}" if facts["difference"] else ""
        print(
            f"shard {shard} ({len(self._facts)} of {len(self._sizes)}): {facts['documents']:,} documents, "
            f"{facts['tokens']:,} tokens{notes} | {speed / 1e6:.1f} MB/s on disk | "
            f"{clock(left / max(speed, 1e-9))} left",
            flush=True,
        )


def finish(output: Path, facts: Sequence[Mapping[str, Any]], tokenizer: str) -> None:
    """Writes the quarantine of all shards and, last, corpus.json; prints the totals."""
    with publishing_file(output / "quarantine.jsonl") as partial, partial.open("wb") as file:
        for shard in range(len(facts)):
            file.write((shard_folder(output, shard) / "quarantine.jsonl").read_bytes())
    reasons: Counter[str] = Counter()
    for each in facts:
        reasons.update(each["reasons"])
    totals = {
        name: sum(each[name] for each in facts) for name in ("documents", "tokens", "bytes", "rejected")
    }
    fallbacks = [shard for shard, each in enumerate(facts) if each["difference"]]
    publish_json(
        output / "corpus.json",
        {
            **totals,
            "reasons": dict(reasons),
            "shards": len(facts),
            "fallbacks": fallbacks,
            "tokenizer": tokenizer,
        },
    )
    sampled = sum(each["sampled"] for each in facts)
    print(
        f"{output}: {len(facts)} shards, {totals['documents']:,} documents, {totals['tokens']:,} tokens, "
        f"{totals['bytes'] / 1e6:,.1f} MB of text, {totals['rejected']:,} bad"
        + (f" ({counted(reasons)})" if reasons else "")
    )
    if sampled or fallbacks:
        print(
            f"  {sampled:,} documents compared with Hugging Face; {len(fallbacks)} shards done again with it"
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Tokenises a corpus into dataset shards, in parallel; goes on after a stop.",
        epilog=EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, help="folder for the shards; made if missing")
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="files and folders, in reading order"
    )
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="a byte-level tokenizer.json, or its folder"
    )
    for role in ("bos", "eos", "sep"):
        parser.add_argument(
            f"--{role}", metavar="TOKEN", help=f"name of the {role} token, where it is not found"
        )
    parser.add_argument("--text-field", default="text", help="field or column of the text (text)")
    parser.add_argument("--id-field", default="id", help="field or column of the id (id)")
    parser.add_argument("--title-field", help="if given, the title becomes the first line of the text")
    parser.add_argument("--source", default="", help="where the text is from; kept in the datasets")
    add_shards_options(parser, workers="processes, or threads for a single shard (one per core)")
    parser.add_argument(
        "--shard-bytes",
        type=int,
        default=1 << 30,
        metavar="BYTES",
        help="of input per shard, on disk (1 GiB)",
    )
    parser.add_argument(
        "--encoder", choices=ENCODERS, default="auto", help="auto: gigatoken where it is equal"
    )
    parser.add_argument(
        "--sample", type=int, default=64, metavar="N", help="documents of each shard compared (64)"
    )
    parser.add_argument("--on-difference", choices=ON_DIFFERENCE, default="stop", help="(stop)")
    parser.add_argument(
        "--maximum-characters",
        type=int,
        default=1_000_000,
        metavar="N",
        help="longer documents are bad (1000000)",
    )
    parser.add_argument(
        "--maximum-bad-share", type=float, default=0.01, metavar="S", help="more bad documents stop it (0.01)"
    )
    options = parser.parse_args(arguments)
    for name in ("shard_bytes", "sample", "maximum_characters"):
        value = getattr(options, name)
        if value < 1:
            parser.error(f"--{name.replace('_', '-')} is {value}; set it to at least 1")
    if not 0 <= options.maximum_bad_share <= 1:
        parser.error(f"--maximum-bad-share is {options.maximum_bad_share}; set it within 0 to 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
