"""Which documents are measured, and that what is measured does not depend on how."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from task_files import write_task_files

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.evaluation.quality import quality
from megasbp.experiment import gate_stages
from megasbp.experiment.context import Context, Corpus
from megasbp.experiment.gate_stages import round_gate_stage
from megasbp.experiment.measured_text import measured_documents, seeds_of
from megasbp.experiment.recipe import load_recipe
from megasbp.experiment.sharing_stages import sharing_stage
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.experiment.text_measures import measured
from megasbp.experiment.text_stages import quality_stage
from megasbp.overlap.ngram_index import NgramIndex
from megasbp.parallel.runtime import Runtime
from megasbp.report.text_schema import Contamination
from megasbp.storage import publish_manifest, read_manifest

DEMO = Path(__file__).resolve().parents[2] / "configs" / "demo.toml"
WIDTH = 3
_WORDS = ["the", "queen", "takes", "a", "rook", "king", "near", "river", "water", "moss", "under", "oak"]


class World:
    """A corpus of made-up words and the synthetic text of one arm, every fourth document of which is dropped.

    Attributes:
        accepted_seeds: of the accepted documents, in their order.
    """

    def __init__(self, folder: Path) -> None:
        generator = np.random.default_rng(3)
        texts = [" ".join(generator.choice(_WORDS, 20)) for _ in range(120)]
        self.folder = folder
        self.tokenizer = Tokenizer.train(iter(texts), 300)
        self.sets = {
            name: self._write(folder / name, texts[first:end])
            for name, (first, end) in {"unique": (0, 40), "validation": (40, 50), "test": (50, 60)}.items()
        }
        rows = 40
        accepted, seeds = np.arange(rows) % 4 != 3, generator.integers(0, 40, rows)
        synthesis = folder / "synthesis"
        self.sets["synthetic"] = self._write(synthesis / "synthetic", texts[60 : 60 + int(accepted.sum())])
        self.accepted_seeds = seeds[accepted]
        table = pa.table({"seed_doc": seeds, "accepted": accepted, "held_out_copy": np.zeros(rows)})
        pq.write_table(table, synthesis / "provenance.parquet", row_group_size=7)
        self.synthesis, self.datasets = finished(synthesis), finished(folder)

    def context(self, *overrides: str) -> Context:
        corpus = SimpleNamespace(
            datasets=self.datasets,
            units=self.datasets,
            open_tokenizer=lambda: self.tokenizer,
            open=self.sets.__getitem__,
            open_units=self.sets.__getitem__,
        )
        recipe = load_recipe(DEMO, [f"pairing.shingle_width={WIDTH}", *overrides])
        workspace = Workspace(self.folder / "run", announce=lambda line: None)
        return Context(recipe, workspace, cast(Corpus, corpus), 0, Runtime(0, 1, torch.device("cpu")))

    def documents(self, name: str) -> Iterator[np.ndarray]:
        return (self.sets[name].document(number)[1:-1] for number in range(len(self.sets[name])))

    def _write(self, prefix: Path, texts: list[str]) -> IndexedDataset:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = self.tokenizer
        marks = {"tokenizer": tokenizer.hash, "bos": tokenizer.bos, "eos": tokenizer.eos}
        with IndexedDatasetWriter(prefix, np.uint16, metadata=marks) as writer:
            for tokens in tokenizer.encode_batch(texts):
                document = [tokenizer.bos, *tokens.tolist(), tokenizer.eos]
                writer.add_document(np.array(document, dtype=np.uint16))
        return IndexedDataset(prefix)


def finished(folder: Path, **facts: float) -> StageResult:
    folder.mkdir(exist_ok=True)
    publish_manifest(folder, "made up", inputs={}, settings={}, facts=facts)
    manifest = read_manifest(folder)
    assert manifest is not None
    return StageResult(folder, manifest)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_all_documents_are_measured_or_a_sample_that_is_the_same_each_time(world: World) -> None:
    context = world.context("quality.maximum_documents=30")
    assert measured_documents(context, "sbp", 30).tolist() == list(range(30))
    drawn = measured_documents(context, "sbp", 1000)
    assert len(np.unique(drawn)) == 30 and (np.diff(drawn) > 0).all() and drawn.max() > 500
    assert (drawn == measured_documents(context, "sbp", 1000)).all()


@pytest.mark.parametrize("documents", [range(30), [0, 5, 6, 29], []])
def test_seeds_are_those_of_the_accepted_documents(world: World, documents: Any) -> None:
    numbers = np.array(documents, dtype=np.int64)
    assert seeds_of(world.synthesis, numbers).tolist() == world.accepted_seeds[numbers].tolist()


@pytest.mark.parametrize(("most", "documents"), [(10**6, 30), (100, 5)])
def test_the_variety_of_a_round_is_counted_in_its_first_tokens(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, most: int, documents: int
) -> None:
    counted: list[list[np.ndarray]] = []
    monkeypatch.setattr(gate_stages, "_MOST_TOKENS", most)
    monkeypatch.setattr(gate_stages, "distinct_share", lambda held, width: counted.append(held) or 0.5)
    tuned = {name: finished(tmp_path / name, best_validation_loss=2.0) for name in ("first", "second")}
    context = replace(world.context(), workspace=Workspace(tmp_path / "run", announce=lambda line: None))
    round_gate_stage(context, tuned, dict.fromkeys(tuned, world.synthesis))
    whole = list(world.documents("synthetic"))
    for held in counted:
        tokens = sum(len(one) for one in held)
        assert tokens <= most
        assert all(np.array_equal(one, other[: len(one)]) for one, other in zip(held, whole, strict=False))
    assert [len(held) for held in counted] == [documents] * 2


def test_the_default_changes_no_stages_name(world: World) -> None:
    context = world.context()
    assert context.recipe.content() == load_recipe(DEMO, [f"pairing.shingle_width={WIDTH}"]).content()
    for stage in (
        quality_stage(context, "sbp", world.synthesis),
        sharing_stage(context, {"sbp": world.synthesis}),
    ):
        assert stage.manifest.settings == {"shingle_width": WIDTH, "format": 1}
    found = quality_stage(context, "sbp", world.synthesis).facts["quality"]
    assert found["documents"] == 30 and "all_documents" not in found
    assert "measured" not in sharing_stage(context, {"sbp": world.synthesis}).facts


@pytest.mark.parametrize(("most", "expected"), [(100, 30), (12, 12)])
def test_figures_are_those_of_the_measured_documents_against_the_whole_corpus(
    world: World, most: int, expected: int
) -> None:
    context = world.context(f"quality.maximum_documents={most}")
    found = quality_stage(context, "sbp", world.synthesis).facts["quality"]
    chosen = measured_documents(context, "sbp", 30)
    texts = list(world.documents("synthetic"))
    documents = [texts[number] for number in chosen]
    seeds = [world.sets["unique"].document(seed)[1:-1] for seed in world.accepted_seeds[chosen].tolist()]
    corpus = list(world.documents("unique"))
    characters = [len(world.tokenizer.decode(one)) for one in documents]
    by_hand = quality(documents, seeds, corpus, WIDTH, characters=characters)
    assert found == ({"all_documents": 30, **by_hand} if expected < 30 else by_hand)
    assert found["documents"] == expected
    index = NgramIndex.build(corpus, WIDTH)
    coverage = [index.coverage(one) for one in documents]
    assert found["corpus_copy"]["mean_coverage"] == float(np.mean(coverage)) > 0


def test_sharing_is_measured_on_the_same_documents(world: World) -> None:
    context = world.context("quality.maximum_documents=12")
    stage = sharing_stage(context, {"sbp": world.synthesis})
    assert stage.facts["measured"] == {"unique": 12, "sbp": 12}
    texts, index = list(world.documents("synthetic")), NgramIndex.build(world.documents("unique"), WIDTH)
    chosen = measured_documents(context, "sbp", 30)
    assert stage.facts["density"]["sbp"]["corpus"] == np.mean([index.density(texts[one]) for one in chosen])
    own = [
        NgramIndex.build([world.sets["unique"].document(int(seed))[1:-1]], WIDTH).density(texts[one])
        for one, seed in zip(chosen, world.accepted_seeds[chosen], strict=True)
    ]
    assert stage.facts["density"]["sbp"]["seed"] == np.mean(own)
    shown = measured(context.recipe, 0, {"sharing": stage})["contamination"]
    assert Contamination.model_validate(shown).measured == {"unique": 12, "sbp": 12}


def test_tasks_and_files_are_searched_for_and_their_rows_counted(world: World, tmp_path: Path) -> None:
    data = write_task_files(tmp_path / "eval")
    copied = world.tokenizer.decode(world.sets["synthetic"].document(0)[1:-1])
    mine = tmp_path / "mine.jsonl"
    mine.write_text(f'{{"question": "{copied}"}}\n{{"text": "no question"}}\n')

    def found(*overrides: str) -> StageResult:
        benchmarks = f'quality.benchmarks=["megasbp_lambada", "megasbp_mmlu", "{mine}"]'
        context = world.context(
            benchmarks, "quality.benchmark_field=question", f"evaluation.downstream.data={data}", *overrides
        )
        return sharing_stage(context, {"sbp": world.synthesis})

    stage = found()
    tests = stage.facts["contamination"]
    counts = {name: (tests[name]["documents"], tests[name].get("unreadable")) for name in tests}
    assert counts == {
        "validation": (10, None),
        "test": (10, None),
        "megasbp_lambada": (3, 0),
        "megasbp_mmlu": (3, 0),
        "mine.jsonl": (1, 1),
    }
    assert tests["mine.jsonl"]["shares"]["sbp"] >= 1 / 30
    # The words of LAMBADA's second row are those of the corpus.
    assert tests["megasbp_lambada"]["shares"]["unique"] > 0
    assert set(stage.manifest.settings["benchmark_tasks"]) == {"megasbp_lambada", "megasbp_mmlu"}
    with open(data / "lambada_openai.jsonl", "a", encoding="utf-8") as file:
        file.write('{"context": "A", "continuation": "b"}\n')
    again = found()
    assert again.folder != stage.folder
    assert again.facts["contamination"]["megasbp_lambada"]["documents"] == 4
