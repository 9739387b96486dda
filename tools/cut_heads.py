"""Writes the beginnings of documents, such as the heads of articles, as JSON lines.

    python tools/cut_heads.py heads.jsonl articles/*.jsonl.zst --characters 1000
    python tools/cut_heads.py heads.jsonl articles/*.jsonl.zst --tokens 256 --tokenizer tokenizer.json

A head ends with a paragraph, else with a sentence, else with a word. Ids and titles are kept; the title does
not count. The same files give the same bytes; the file appears when it is whole.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

import zstandard

from megasbp.command import run_command
from megasbp.corpus.heads import head
from megasbp.corpus.quarantine import Quarantine
from megasbp.corpus.readers import read_documents
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.errors import InputError
from megasbp.storage import publishing_file

_EVERY = 100_000
# Of UTF-8 and so of a byte-level tokenizer: a head of fewer tokens may hold no whole character.
_MOST_BYTES = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("cut_heads", cut, parse(arguments))


def cut(options: argparse.Namespace) -> None:
    """Writes the file."""
    if options.characters < 1:
        raise InputError(f"--characters is {options.characters}; allowed: 1 or more")
    if options.tokens is not None and options.tokens < _MOST_BYTES:
        raise InputError(f"--tokens is {options.tokens}; allowed: {_MOST_BYTES} or more")
    if (options.tokens is None) != (options.tokenizer is None):
        raise InputError("--tokens and --tokenizer belong together; give both or none")
    tokenizer = None if options.tokenizer is None else Tokenizer.load(options.tokenizer)
    documents = characters = 0
    options.output.parent.mkdir(parents=True, exist_ok=True)
    quarantine = Quarantine(options.output.parent / f"{options.output.name}.bad", options.maximum_bad_share)
    found = read_documents(
        options.paths,
        text_field=options.text_field,
        id_field=options.id_field,
        metadata_fields=[options.title_field],
        maximum_characters=options.maximum_characters,
        quarantine=quarantine,
    )
    compressed = options.output.suffix == ".zst"
    with publishing_file(options.output) as partial, open(partial, "wb") as file:
        stream = zstandard.ZstdCompressor(level=10).stream_writer(file, closefd=False) if compressed else file
        for document in found:
            if tokenizer is None:
                text = head(document.text, options.characters)
            else:
                text = head_of_tokens(document.text, options.tokens, tokenizer)
            documents, characters = documents + 1, characters + len(text)
            row = {"id": document.id, "title": document.metadata.get(options.title_field, ""), "text": text}
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            if documents % _EVERY == 0:
                print(f"{documents:,} documents", flush=True)
        if compressed:
            stream.close()
    print(f"{options.output}: {documents:,} heads of {characters / documents:.0f} characters in the mean")


def head_of_tokens(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """As `head`, of at most so many tokens, bos and eos not among them."""
    encoded = tokenizer.encode_batch([text.rstrip()])[0]
    if len(encoded) <= tokens:
        return text.rstrip()
    # Of a character whose bytes are parted, a decoder makes replacements.
    characters = len(tokenizer.decode(encoded[:tokens]).rstrip("\ufffd"))
    # The end of a text may be other tokens where it is cut.
    while len(tokenizer.encode_batch([cut := head(text, characters)])[0]) > tokens:
        characters -= 1
    return cut


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="file to write, .jsonl or .jsonl.zst")
    parser.add_argument(
        "paths", type=Path, nargs="+", help="files or folders of text, as a recipe reads them"
    )
    parser.add_argument("--characters", type=int, default=1000, help="of a head at most (%(default)s)")
    parser.add_argument("--tokens", type=int, help="of a head at most, instead of characters")
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json that they are counted with")
    parser.add_argument("--text-field", default="text", help="(%(default)s)")
    parser.add_argument("--id-field", default="id", help="(%(default)s)")
    parser.add_argument("--title-field", default="title", help="(%(default)s)")
    parser.add_argument("--maximum-characters", type=int, default=10_000_000, help="of a whole document")
    parser.add_argument("--maximum-bad-share", type=float, default=0.01, help="bad documents (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
