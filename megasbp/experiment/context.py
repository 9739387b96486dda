"""What every stage of one seed works on: the recipe, the workspace and the opened corpus."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset
from megasbp.errors import InputError
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.model.transformer import Transformer
from megasbp.parallel.runtime import Runtime
from megasbp.shards.config import ShardsConfig
from megasbp.training.checkpoint import load_model
from megasbp.training.trainer import TrainingResult

# Splits whose units are paired.
UNIT_SPLITS = ("unique", "validation", "test")

TOKENIZER_NAME = "tokenizer.json"

# Files of a training job that hold times; they are no results.
TRAINING_LOGS = ("metrics.jsonl", "tensorboard/*", "tensorboard/**/*", "profile/*")


@dataclass(frozen=True)
class Corpus:
    """The finished stages that hold the tokenised corpus; `multiples` by source, such as "unique_x2"."""

    split: StageResult
    tokenizer: StageResult
    datasets: StageResult
    units: StageResult
    multiples: Mapping[str, StageResult]

    def open_tokenizer(self) -> Tokenizer:
        """The run's tokenizer."""
        return open_tokenizer(self.tokenizer)

    def open(self, name: str) -> IndexedDataset:
        """The documents of a dataset: unique, oracle, validation, test or a multiple."""
        stage = self.multiples.get(name, self.datasets)
        return open_dataset(stage.folder / name, self.open_tokenizer())

    def open_units(self, name: str) -> IndexedDataset:
        """The units of pairing of a split: its documents, its passages, or its parts for continuation."""
        folder = self.datasets.folder if self.units.facts["unit"] == "document" else self.units.folder
        return open_dataset(folder / name, self.open_tokenizer())

    def unit_parents(self, name: str) -> np.ndarray:
        """Parent document of each unit of a split, int64; a whole document is its own parent."""
        if self.units.facts["unit"] == "document":
            return np.arange(self.datasets.facts[name]["documents"], dtype=np.int64)
        return pq.read_table(self.units.folder / f"{name}.parquet", columns=["parent"])["parent"].to_numpy()

    def column(self, name: str, column: str) -> list:
        """A column (id, title, cluster, bytes) of a dataset's documents, in document order."""
        return pq.read_table(self.datasets.folder / f"{name}.parquet", columns=[column])[column].to_pylist()


@dataclass(frozen=True)
class Context:
    """One seed of one recipe."""

    recipe: Recipe
    workspace: Workspace
    corpus: Corpus
    seed: int
    runtime: Runtime

    @property
    def shards(self) -> ShardsConfig:
        """Where sharded stages run; the recipe's `threads` are those of a worker too, unless it says so."""
        shards = self.recipe.shards
        if shards.engine == "inline" or shards.threads is not None or not self.recipe.threads:
            return shards
        return shards.model_copy(update={"threads": self.recipe.threads})

    def name(self, stage: str) -> str:
        """The stage's name below this seed's folder."""
        return f"seed-{self.seed}/{stage}"


def open_tokenizer(result: StageResult) -> Tokenizer:
    """The tokenizer that a stage published."""
    return Tokenizer.load(result.folder / TOKENIZER_NAME)


def open_dataset(prefix: Path, tokenizer: Tokenizer) -> IndexedDataset:
    """Opens a dataset and checks that it was written with this tokenizer.

    Raises:
        InputError: another tokenizer wrote it, or the files are damaged.
    """
    dataset = IndexedDataset(prefix)
    written_with = str(dataset.metadata.get("tokenizer"))
    if written_with != tokenizer.hash:
        raise InputError(
            f"{prefix}: written with tokenizer {written_with[:12]}, this run's is {tokenizer.hash[:12]}; "
            "use the tokenizer it was written with, or tokenise the corpus again"
        )
    return dataset


def document_text(dataset: IndexedDataset, document: int, tokenizer: Tokenizer) -> str:
    """A document's text: exactly what was tokenised."""
    return tokenizer.decode(dataset.document(document))


def training_facts(result: TrainingResult, folder: Path) -> dict:
    """What later stages and the report read of a finished training job."""
    return {
        "steps": result.steps,
        "input_tokens": result.input_tokens,
        "valid_tokens": result.valid_tokens,
        "best_checkpoint": str(result.best_checkpoint.relative_to(folder)),
        "last_checkpoint": str(result.last_checkpoint.relative_to(folder)),
        "best_validation_loss": result.best_validation_loss,
        "final_validation_loss": result.final_validation_loss,
        "history": result.history,
    }


def load_trained(context: Context, checkpoint: Path) -> Transformer:
    """A checkpoint's whole model in eval mode, where this process computes, in the type it was trained in."""
    model = load_model(checkpoint, context.runtime.device)
    model.compute_dtype = context.recipe.training.compute_dtype
    return model


def best_checkpoint(trained: StageResult) -> Path:
    """The best-validation checkpoint of a training stage."""
    return trained.folder / trained.facts["best_checkpoint"]


def last_checkpoint(trained: StageResult) -> Path:
    """The weights at the end of the budget."""
    return trained.folder / trained.facts["last_checkpoint"]
