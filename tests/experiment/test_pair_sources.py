"""Every pair source through the stages, on a corpus of a few hundred short documents."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megasbp.errors import InputError
from megasbp.experiment.context import Context, Corpus
from megasbp.experiment.corpus_stages import make_corpus
from megasbp.experiment.pair_stages import embed_stage, pairs_stage
from megasbp.experiment.recipe import Recipe, load_recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.pairing.table import read_pairs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DOCUMENTS = 150


def recipe(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(
        CONFIGS / "demo.toml",
        [
            f'runs="{folder}/runs"',
            f'corpus.paths=["{folder}/corpus.jsonl"]',
            "corpus.vocabulary_size=300",
            "corpus.unique=60",
            "corpus.oracle=70",
            "corpus.validation=20",
            "corpus.test=30",
            "pairing.embedder=none",
            "pairing.maximum_jaccard=0.9",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of random words; documents have integer ids that are not their numbers."""
    folder = tmp_path_factory.mktemp("sources")
    generator = np.random.Generator(np.random.Philox(key=3))
    words = [
        "river",
        "bank",
        "song",
        "chord",
        "moon",
        "comet",
        "dough",
        "oven",
        "pawn",
        "rook",
        "tree",
        "owl",
    ]
    with open(folder / "corpus.jsonl", "w", encoding="utf-8") as file:
        for number in range(DOCUMENTS):
            sentences = (" ".join(generator.choice(words, 6)).capitalize() + "." for _ in range(4))
            row = {"id": 1000 + number, "title": f"Title {number}", "text": " ".join(sentences)}
            file.write(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="module")
def corpus(folder: Path) -> Corpus:
    return corpus_of(folder, "pairing.source=random", "pairing.random_pairs=50")


def corpus_of(folder: Path, *overrides: str) -> Corpus:
    chosen = recipe(folder, *overrides)
    return make_corpus(chosen, Workspace(chosen.folder, lambda line: None))


def pair(folder: Path, corpus: Corpus, *overrides: str) -> tuple[StageResult, Context]:
    chosen = recipe(folder, *overrides)
    workspace = Workspace(chosen.folder, lambda line: None)
    context = Context(chosen, workspace, corpus, 0, SimpleNamespace(device="cpu"))  # type: ignore[arg-type]
    return pairs_stage(context, embed_stage(context, None)), context  # type: ignore[arg-type]


def table(result: StageResult, name: str) -> list[tuple[int, int]]:
    rows = read_pairs(result.folder / f"{name}.parquet")
    return list(zip(rows["seed_doc"].to_pylist(), rows["target_doc"].to_pylist(), strict=True))


def write_pairs_of_ids(path: Path, names: tuple[str, str], pairs: list[tuple[Any, Any]]) -> None:
    columns = zip(*pairs, strict=True)
    pq.write_table(pa.table({name: list(column) for name, column in zip(names, columns, strict=True)}), path)


def ids(corpus: Corpus, split: str) -> list[str]:
    return corpus.column(split, "id")


def test_random_pairs_fill_every_table(folder: Path, corpus: Corpus) -> None:
    result, _ = pair(folder, corpus, "pairing.source=random", "pairing.random_pairs=50")
    assert result.facts["without"] == {}
    pairs = table(result, "train")
    assert len(pairs) == 50 - sum(result.facts["train"]["drops"].values())
    assert all(seed != target for seed, target in pairs)
    assert {"train", "validation", "new_target", "new_seed_and_target"} <= set(result.facts)
    # Without an embedder nothing is known of similarity; in-degrees are known all the same.
    assert sum(result.facts["similarity_histogram"]["counts"]) == 0
    assert sum(result.facts["in_degree"]["counts"]) == 60


def test_similarity_is_measured_where_an_embedder_is_named(folder: Path, corpus: Corpus) -> None:
    result, _ = pair(
        folder, corpus, "pairing.source=random", "pairing.random_pairs=50", "pairing.embedder=tfidf"
    )
    assert sum(result.facts["similarity_histogram"]["counts"]) == result.facts["train"]["pairs"]


def test_more_random_pairs_than_exist_are_refused(folder: Path, corpus: Corpus) -> None:
    with pytest.raises(InputError, match="3541 random pairs asked for, 60 seeds and 60 targets have 3540"):
        pair(folder, corpus, "pairing.source=random", "pairing.random_pairs=3541")


def test_a_list_by_id_fills_the_tables_of_its_splits(folder: Path, corpus: Corpus) -> None:
    unique, validation, test = (ids(corpus, split) for split in ("unique", "validation", "test"))
    named = [(unique[5], unique[9]), (unique[9], unique[5]), (unique[5], unique[9]), (unique[3], unique[3])]
    named += [(unique[20], unique[30]), (unique[21], unique[31])]
    named += [(unique[1], validation[2]), (unique[4], validation[0])]
    named += [(unique[7], test[2]), (test[1], unique[7]), (test[3], test[4]), (test[5], test[6])]
    named += [("nobody", unique[0])]
    path = folder / "list.parquet"
    write_pairs_of_ids(path, ("seed", "target"), named)
    result, _ = pair(
        folder, corpus, "pairing.source=list", f"pairing.path={path}", "pairing.maximum_unknown_share=0.2"
    )
    assert table(result, "train") == [(5, 9), (9, 5), (20, 30), (21, 31)]
    assert table(result, "validation") == [(1, 2), (4, 0)]
    assert table(result, "new_seed_and_target") == [(3, 4), (5, 6)]
    drops = result.facts["train"]["drops"]
    assert (drops["duplicate"], drops["same_parent"]) == (1, 1)
    assert result.facts["reading"] == {"rows": 13, "unknown": 1, "outside_splits": 1}
    assert result.facts["without"]["new_target"].startswith("1 pairs are left")


def test_too_many_unknown_ids_stop_the_run_and_are_named(folder: Path, corpus: Corpus) -> None:
    unique = ids(corpus, "unique")
    path = folder / "unknown.jsonl"
    pairs = [(unique[0], unique[1])] * 8 + [("x", unique[1]), (unique[1], "y")]
    path.write_text("".join(json.dumps({"seed": a, "target": b}) + "\n" for a, b in pairs))
    with pytest.raises(
        InputError, match=r"2 of 10 rows name a document that the corpus has not, such as 'x' with"
    ):
        pair(folder, corpus, "pairing.source=list", f"pairing.path={path}")


def test_a_pair_table_of_unique_units_has_its_validation_pairs_held_out(folder: Path, corpus: Corpus) -> None:
    numbers = [(number, (number + step) % 60) for number in range(60) for step in (1, 2)]
    path = folder / "numbers.parquet"
    write_pairs_of_ids(path, ("seed_doc", "target_doc"), [*numbers, (60, 0), (-1, 3)])
    result, _ = pair(folder, corpus, "pairing.source=list", f"pairing.path={path}")
    train, validation = table(result, "train"), table(result, "validation")
    assert sorted(train + validation) == sorted(numbers)
    assert len(validation) == 12
    assert not {target for _, target in train} & {target for _, target in validation}
    assert result.facts["validation"]["splits"] == ["unique", "unique"]
    assert "12 pairs, all those of some targets, were held out" in result.facts["without"]["validation"]
    assert result.facts["reading"]["unknown"] == 2
    assert set(result.facts["without"]) == {"validation", "new_target", "new_seed_and_target"}


def test_links_are_pairs_one_way_or_both_and_hubs_are_capped(folder: Path, corpus: Corpus) -> None:
    unique, validation = ids(corpus, "unique"), ids(corpus, "validation")
    edges = [(name, unique[0]) for name in unique[1:31]] + [
        (unique[number], unique[number + 1]) for number in range(40, 59)
    ]
    edges += [(unique[number], validation[number]) for number in range(4)]
    path = folder / "links.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in edges))
    source = ("pairing.source=links", f"pairing.path={path}")

    result, _ = pair(folder, corpus, *source)
    pairs = table(result, "train")
    assert sum(target == 0 for _, target in pairs) == 4 and (40, 41) in pairs
    assert result.facts["train"]["drops"]["target_cap"] == 26
    assert result.facts["hubness_before_caps"]["maximum"] == 30
    # The four are drawn among all sources, not the first of the file.
    assert max(seed for seed, target in pairs if target == 0) > 10

    both, _ = pair(folder, corpus, *source, "pairing.both_ways=true")
    assert {(40, 41), (41, 40)} <= set(table(both, "train"))
    assert both.facts["train"]["drops"]["seed_cap"] == 26


def test_a_listed_document_of_several_passages_is_one_of_them(folder: Path) -> None:
    corpus = corpus_of(folder, "synthesizer.unit=passage", "synthesizer.context=64", *NO_SOURCE)
    parents = corpus.unit_parents("unique")
    unique = ids(corpus, "unique")
    path = folder / "passages.parquet"
    documents = [(number, (number + step) % 60) for number in range(60) for step in (1, 2)]
    write_pairs_of_ids(path, ("seed", "target"), [(unique[a], unique[b]) for a, b in documents])
    result, _ = pair(folder, corpus, "pairing.source=list", f"pairing.path={path}", "synthesizer.context=64")
    units = np.array(table(result, "train") + table(result, "validation"))
    assert sorted(map(tuple, parents[units].tolist())) == sorted(documents)
    places = units[:, 0] - np.searchsorted(parents, parents[units[:, 0]])
    assert len(set(places.tolist())) > 1


def test_continuation_pairs_the_parts_of_each_document(folder: Path, corpus: Corpus) -> None:
    parts = corpus_of(folder, "pairing.source=continuation")
    assert parts.units.facts["unit"] == "part"
    tokenizer = parts.open_tokenizer()
    units, whole = parts.open_units("unique"), parts.open("unique")
    result, context = pair(folder, parts, "pairing.source=continuation")
    pairs = table(result, "train")
    assert len(pairs) == 60
    for number, (seed, target) in enumerate(pairs):
        joined = np.concatenate([units.document(seed)[1:-1], units.document(target)[1:-1]])
        assert joined.tolist() == whole.document(number)[1:-1].tolist()
        assert tokenizer.decode(units.document(seed)[1:-1]).endswith(".")
    assert result.facts["validation"]["splits"] == ["validation", "validation"]
    assert result.facts["without"] == {
        "new_target": "a continuation's seed and target are parts of one document"
    }
    assert context.recipe.synthesizer.unit == "auto"


def test_ids_that_occur_twice_in_the_corpus_are_named(folder: Path, corpus: Corpus, tmp_path: Path) -> None:
    rows = pq.read_table(corpus.split.folder / "documents.parquet")
    twice = rows["id"].to_pylist()
    twice[7] = twice[3]
    pq.write_table(rows.set_column(0, "id", pa.array(twice)), tmp_path / "documents.parquet")
    path = folder / "few.jsonl"
    path.write_text(json.dumps({"seed": twice[0], "target": twice[1]}) + "\n")
    damaged = replace(corpus, split=replace(corpus.split, folder=tmp_path))
    with pytest.raises(
        InputError, match=rf"1 documents whose id another one has, such as '{twice[3]}' \(2 times\)"
    ):
        pair(folder, damaged, "pairing.source=list", f"pairing.path={path}")


def test_a_unit_beside_continuation_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="leave synthesizer.unit at 'auto'"):
        recipe(folder, "pairing.source=continuation", "synthesizer.unit=passage")


NO_SOURCE = ("pairing.source=random", "pairing.random_pairs=50")
