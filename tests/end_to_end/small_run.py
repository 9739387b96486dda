"""A recipe that runs the whole method in half a minute, on text made up here."""

import json
from pathlib import Path

import numpy as np

# Themes give documents neighbours; the words of a theme are drawn anew for each document.
_THEMES = {
    "river": [
        "water",
        "bank",
        "flood",
        "delta",
        "stream",
        "bridge",
        "boat",
        "fish",
        "current",
        "valley",
        "dam",
        "rain",
    ],
    "music": [
        "song",
        "piano",
        "opera",
        "singer",
        "chord",
        "rhythm",
        "concert",
        "violin",
        "tune",
        "composer",
        "stage",
        "drum",
    ],
    "planet": [
        "orbit",
        "moon",
        "star",
        "gravity",
        "comet",
        "ring",
        "telescope",
        "crater",
        "atmosphere",
        "sun",
        "dust",
        "mission",
    ],
    "bread": [
        "flour",
        "oven",
        "yeast",
        "dough",
        "crust",
        "baker",
        "salt",
        "grain",
        "butter",
        "loaf",
        "kitchen",
        "wheat",
    ],
    "chess": [
        "queen",
        "pawn",
        "rook",
        "opening",
        "endgame",
        "board",
        "master",
        "clock",
        "tactic",
        "king",
        "bishop",
        "match",
    ],
    "forest": [
        "tree",
        "moss",
        "deer",
        "leaf",
        "oak",
        "path",
        "fern",
        "owl",
        "root",
        "shade",
        "mushroom",
        "wolf",
    ],
}
_VERBS = ["shapes", "follows", "meets", "crosses", "keeps", "gives", "finds", "holds", "turns", "needs"]


def write_corpus(path: Path, documents: int = 420) -> None:
    """A JSONL corpus of themed documents; equal on every machine."""
    generator = np.random.Generator(np.random.Philox(key=7))
    themes = list(_THEMES)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(documents):
            theme = themes[number % len(themes)]
            words = _THEMES[theme]
            sentences = []
            for _ in range(int(generator.integers(3, 7))):
                subject, other, place = generator.choice(words, 3)
                verb = generator.choice(_VERBS)
                sentences.append(
                    f"The {subject} {verb} the {other} near the {place} in {generator.integers(1900, 2000)}."
                )
            row = {"id": str(number), "title": f"{theme} {number}", "text": " ".join(sentences)}
            file.write(json.dumps(row) + "\n")


def write_recipe(folder: Path, corpus: Path) -> Path:
    """The recipe file, with its runs below `folder`."""
    path = folder / "small.toml"
    path.write_text(
        f"""
name = "small"
threads = 1
runs = {json.dumps(str(folder / "runs"))}

[corpus]
paths = [{json.dumps(str(corpus))}]
title_field = "title"
vocabulary_size = 512
unique = 100
oracle = 260
validation = 50
test = 90
[corpus.source]
name = "made up for the tests"
licence = "Apache-2.0"
url = "https://example.org"

[model]
vocabulary_size = 512
layers = 2
width = 32
heads = 2
kv_heads = 1
head_dim = 16
feed_forward = 64
rope_theta = 10000.0
qk_norm = true
tied = true
maximum_positions = 256

[training]
sequence_length = 64
global_batch = 8
micro_batch = 8
learning_rate = 1e-2
weight_decay = 0.1
warmup_share = 0.1
precision = "fp32"
validations = 4
checkpoints = 4
keep_checkpoints = 1

[tuning]
weight_decays = [0.1, 0.5]

[pairing]
embedder = "tfidf"
neighbours = 8
minimum_similarity = 0.3
maximum_similarity = 0.99
maximum_jaccard = 0.5
maximum_per_seed = 3
maximum_per_target = 3

[synthesizer]
context = 256
global_batch = 4
micro_batch = 4
learning_rates = [3e-3]
maximum_epochs = 2
validations = 4

[synthesis]
temperature = 1.0
top_p = 0.95
maximum_tokens = 120
slots = 16
prefill_slots = 4
prefill_chunk = 32
shard_documents = 16
minimum_tokens = 8
maximum_repeated_share = 0.2
maximum_held_out_copy = 0.3

[budget]
tokens_per_arm = 40_960
arms = ["baseline", "sbp", "self_samples", "random_pairs", "oracle"]
synthetic_share = 0.25
multiples = [2]
expected_tokens_per_document = 100

[evaluation]
bootstrap_resamples = 500
triples = 5
""",
        encoding="utf-8",
    )
    return path
