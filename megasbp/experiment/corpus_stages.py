"""From text, or from preprocessed shards, to token datasets: split, tokenizer, datasets, units of pairing."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megasbp.corpus.quarantine import Quarantine
from megasbp.corpus.readers import Document, read_documents
from megasbp.corpus.splits import SPLITS, assign_splits
from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megasbp.data.preprocess import token_dtype
from megasbp.data.preprocessed import PreprocessedCorpus
from megasbp.errors import InputError
from megasbp.experiment.budget import multiple_source
from megasbp.experiment.context import UNIT_SPLITS, Corpus, open_dataset, open_tokenizer
from megasbp.experiment.multiple_stages import multiple_stage
from megasbp.experiment.outside_files import hash_outside_files
from megasbp.experiment.recipe import Recipe
from megasbp.experiment.shard_stages import copy_datasets, split_shards
from megasbp.experiment.stages import StageResult, Workspace
from megasbp.experiment.topic_split import topics_of, unique_by_topics
from megasbp.overlap.clusters import near_duplicate_clusters
from megasbp.overlap.shingles import word_hashes
from megasbp.pairing.continuation import split_continuation
from megasbp.pairing.passages import border_strengths, longest_unit, needs_passages, split_passages
from megasbp.storage import publishing_file

# Dataset -> the split codes that it holds: unique is part of the oracle.
DATASETS = {
    "unique": ("unique",),
    "oracle": ("unique", "oracle"),
    "validation": ("validation",),
    "test": ("test",),
}
_ENCODE_AT_ONCE = 1000
# bos and eos around every stored document.
_SEPARATORS = 2


def split_stage(recipe: Recipe, workspace: Workspace) -> StageResult:
    """Reads the whole corpus once, sets bad documents aside, groups near-duplicates, assigns each document.

    Writes documents.parquet (a row per good document, in reading order) and the quarantine.
    """
    corpus = recipe.corpus

    def make(folder: Path) -> dict[str, Any]:
        quarantine = Quarantine(folder / "quarantine", corpus.maximum_bad_share)
        ids: list[str] = []

        def words() -> Iterator[np.ndarray]:
            for document in corpus_documents(recipe, quarantine):
                ids.append(document.id)
                yield word_hashes(document.text)

        clusters = near_duplicate_clusters(
            words(),
            width=corpus.duplicate_shingle_width,
            threshold=corpus.duplicate_threshold,
            seed=corpus.seed,
        )
        splits = assign_splits(
            clusters,
            corpus.seed,
            unique=corpus.unique,
            oracle=corpus.oracle,
            validation=corpus.validation,
            test=corpus.test,
        )
        facts: dict[str, Any] = {}
        if corpus.unique_topics is not None:
            trained = np.isin(splits, [SPLITS.index("unique"), SPLITS.index("oracle")])
            texts = [document.text for row, document in enumerate(corpus_documents(recipe)) if trained[row]]
            topics = topics_of(texts, corpus.unique_topics, corpus.seed)
            splits, facts["unique_topics"] = unique_by_topics(splits, clusters, topics, corpus.seed)
        table = pa.table({"id": ids, "cluster": clusters, "split": splits})
        _write_table(folder / "documents.parquet", table)
        counts = Counter(SPLITS[code] for code in splits.tolist())
        sizes = np.unique(clusters, return_counts=True)[1]
        return {
            "documents": len(ids),
            "clusters": len(sizes),
            "near_duplicates": int((sizes - 1).sum()),
            "splits": dict(sorted(counts.items())),
            "quarantine": quarantine.summary(),
            **facts,
        }

    hashes = hash_outside_files(corpus.files(), workspace.root, remember=workspace.may_make("split"))
    return workspace.stage(
        "split",
        inputs={f"corpus/{number}": value for number, value in enumerate(hashes)},
        settings={"corpus": _reading_settings(recipe)},
        make=make,
    )


def tokenizer_stage(recipe: Recipe, workspace: Workspace, split: StageResult) -> StageResult:
    """Trains a byte-level BPE on the unique documents only, or takes the one of the recipe or the shards."""
    corpus = recipe.corpus
    given = _given_tokenizer(recipe)

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = given
        if tokenizer is None:
            unique = pq.read_table(split.folder / "documents.parquet", columns=["split"])["split"].to_numpy()
            wanted = unique == SPLITS.index("unique")
            texts = (document.text for row, document in enumerate(corpus_documents(recipe)) if wanted[row])
            assert corpus.vocabulary_size is not None
            tokenizer = Tokenizer.train(texts, corpus.vocabulary_size)
        _require_room(recipe, tokenizer)
        tokenizer.save(folder / "tokenizer.json")
        return {"vocabulary_size": tokenizer.vocabulary_size, "hash": tokenizer.hash}

    inputs: dict[str, StageResult | str] = {"split": split, "text": _text_read(split)}
    if given is not None:
        # The tokenizer's own hash, because the file alone does not say which tokens are bos, eos and sep.
        inputs["tokenizer"] = given.hash
    settings = {"vocabulary_size": corpus.vocabulary_size, "limit": recipe.model.vocabulary_size}
    return workspace.stage("tokenizer", inputs=inputs, settings=settings, make=make)


def _given_tokenizer(recipe: Recipe) -> Tokenizer | None:
    """The tokenizer to be used; None where one is to be trained."""
    corpus = recipe.corpus
    if corpus.shards is not None:
        return PreprocessedCorpus.open(corpus.shards).tokenizer
    if corpus.tokenizer is None:
        return None
    return Tokenizer.load(corpus.tokenizer, bos=corpus.bos_token, eos=corpus.eos_token, sep=corpus.sep_token)


def _require_room(recipe: Recipe, tokenizer: Tokenizer) -> None:
    """Raises InputError where the model's vocabulary is too small for the tokenizer's."""
    if tokenizer.vocabulary_size > recipe.model.vocabulary_size:
        raise InputError(
            f"model.vocabulary_size is {recipe.model.vocabulary_size}, the tokenizer has "
            f"{tokenizer.vocabulary_size} entries; set it to at least that"
        )


def datasets_stage(
    recipe: Recipe, workspace: Workspace, split: StageResult, tokenizer_result: StageResult
) -> StageResult:
    """Tokenises every split into an indexed dataset; NAME.parquet beside it has one row per document.

    Where the corpus is preprocessed it copies the documents' tokens.
    """
    shards = recipe.corpus.shards

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = open_tokenizer(tokenizer_result)
        if shards is not None:
            metadata = _dataset_metadata(recipe, tokenizer)
            return copy_datasets(PreprocessedCorpus.open(shards), split.folder, folder, DATASETS, metadata)
        assigned = pq.read_table(split.folder / "documents.parquet")
        codes, clusters = assigned["split"].to_numpy(), assigned["cluster"].to_numpy()
        return {
            name: _write_dataset(folder / name, recipe, tokenizer, codes, clusters, name) for name in DATASETS
        }

    return workspace.stage(
        "datasets",
        inputs={"split": split, "text": _text_read(split), "tokenizer": tokenizer_result},
        settings={"datasets": sorted(DATASETS)},
        make=make,
    )


def units_stage(
    recipe: Recipe,
    workspace: Workspace,
    datasets: StageResult,
    tokenizer_result: StageResult,
    continuation: bool,
    name: str = "units",
) -> StageResult:
    """The units that are paired: whole documents, or passages when too many documents would be cut.

    For continuation they are the parts of each document. For passages and parts it writes a dataset per split
    and NAME.parquet with the parent document of each; for documents nothing: the datasets themselves are the
    units.
    """
    chosen = recipe.synthesizer.unit
    context = recipe.synthesizer.context

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = open_tokenizer(tokenizer_result)
        if continuation:
            for split in UNIT_SPLITS:
                _write_units(folder / split, datasets.folder / split, tokenizer, context, split_continuation)
            return {"unit": "part"}
        unique = open_dataset(datasets.folder / "unique", tokenizer)
        passages = chosen == "passage" or (
            chosen == "auto" and needs_passages(unique.lengths - _SEPARATORS, context)
        )
        if not passages:
            return {"unit": "document"}
        for split in UNIT_SPLITS:
            _write_units(folder / split, datasets.folder / split, tokenizer, context, split_passages)
        return {"unit": "passage"}

    return workspace.stage(
        name,
        inputs={"datasets": datasets, "tokenizer": tokenizer_result},
        settings={"unit": "part" if continuation else chosen, "context": context},
        make=make,
    )


def make_corpus(recipe: Recipe, workspace: Workspace) -> Corpus:
    """All stages of the corpus, in order. They do not depend on the seed."""
    split = (
        split_stage(recipe, workspace) if recipe.corpus.shards is None else split_shards(recipe, workspace)
    )
    tokenizer = tokenizer_stage(recipe, workspace, split)
    datasets = datasets_stage(recipe, workspace, split, tokenizer)
    continuation = recipe.pairing.source == "continuation"
    units = units_stage(recipe, workspace, datasets, tokenizer, continuation)
    multiples = {
        multiple_source(multiple): multiple_stage(recipe, workspace, multiple, split, datasets, tokenizer)
        for multiple in recipe.budget.multiples
    }
    return Corpus(split, tokenizer, datasets, units, multiples)


def continuation_corpus(recipe: Recipe, workspace: Workspace, corpus: Corpus) -> Corpus:
    """The same corpus, whose units are the parts of each document."""
    stages = corpus.datasets, corpus.tokenizer
    return replace(corpus, units=units_stage(recipe, workspace, *stages, True, "units-continuation"))


def require_corpus(recipe: Recipe) -> None:
    """Refuses a corpus that is not there, before anything is written.

    Raises:
        InputError: a path is missing or holds nothing readable, the shards are unfinished, damaged or too few
            for the splits, or the tokenizer is missing or too large for the model.
    """
    corpus = recipe.corpus
    if corpus.shards is None:
        corpus.files()
    else:
        needed = corpus.oracle + corpus.validation + corpus.test
        documents = PreprocessedCorpus.open(corpus.shards).summary["documents"]
        if documents < needed:
            raise InputError(
                f"{corpus.shards}: holds {documents:,} documents, and corpus.oracle + validation + test are "
                f"{needed:,}; lower them"
            )
    if (tokenizer := _given_tokenizer(recipe)) is not None:
        _require_room(recipe, tokenizer)


def corpus_documents(
    recipe: Recipe, quarantine: Quarantine | None = None, fields: tuple[str, ...] = ()
) -> Iterator[Document]:
    """The corpus's good documents in reading order, with `fields` among their metadata."""
    corpus = recipe.corpus
    return read_documents(
        corpus.files(),
        text_field=corpus.text_field,
        id_field=corpus.id_field,
        title_field=corpus.title_field,
        metadata_fields=(*corpus.metadata_fields, *fields),
        maximum_characters=corpus.maximum_characters,
        quarantine=quarantine,
    )


# Settings of the corpus that decide neither which documents there are nor where they go.
_NOT_READING = {
    "paths",
    "shards",
    "tokenizer",
    "vocabulary_size",
    "source",
    "domain_field",
    "bos_token",
    "eos_token",
    "sep_token",
}


def _reading_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides which documents of which text there are and where they go (not where the files lie)."""
    return {name: value for name, value in recipe.corpus.content().items() if name not in _NOT_READING}


def _text_read(split: StageResult) -> str:
    """Hash of the files that were split and of how they are read.

    What `split` holds says where documents go, and nothing of their text.
    """
    return split.manifest.key


def _write_dataset(
    prefix: Path, recipe: Recipe, tokenizer: Tokenizer, codes: np.ndarray, clusters: np.ndarray, name: str
) -> dict[str, int]:
    wanted = np.isin(codes, [SPLITS.index(split) for split in DATASETS[name]])
    rows: dict[str, list[Any]] = {"id": [], "title": [], "cluster": [], "bytes": []}
    chosen = (
        (document, int(clusters[row])) for row, document in enumerate(corpus_documents(recipe)) if wanted[row]
    )
    with IndexedDatasetWriter(
        prefix, token_dtype(tokenizer), metadata=_dataset_metadata(recipe, tokenizer)
    ) as writer:
        batch: list[tuple[Document, int]] = []

        def flush() -> None:
            for (document, cluster), tokens in zip(
                batch, tokenizer.encode_batch([document.text for document, _ in batch]), strict=True
            ):
                writer.add_document(_framed(tokens, tokenizer))
                rows["id"].append(document.id)
                rows["title"].append(document.metadata.get(recipe.corpus.title_field or "", ""))
                rows["cluster"].append(cluster)
                rows["bytes"].append(len(document.text.encode()))
            batch.clear()

        for item in chosen:
            batch.append(item)
            if len(batch) == _ENCODE_AT_ONCE:
                flush()
        flush()
    _write_table(prefix.with_suffix(".parquet"), pa.table(rows))
    dataset = IndexedDataset(prefix)
    return {"documents": len(dataset), "tokens": dataset.tokens, "bytes": sum(rows["bytes"])}


def _write_units(
    prefix: Path,
    source: Path,
    tokenizer: Tokenizer,
    context: int,
    split: Callable[[np.ndarray, int, np.ndarray], list[np.ndarray]],
) -> None:
    dataset = open_dataset(source, tokenizer)
    parents: list[int] = []
    strengths = border_strengths(tokenizer)
    with IndexedDatasetWriter(prefix, dataset.dtype, metadata=dict(dataset.metadata)) as writer:
        for document in range(len(dataset)):
            for unit in split(dataset.document(document)[1:-1], longest_unit(context), strengths):
                writer.add_document(_framed(unit, tokenizer))
                parents.append(document)
    _write_table(prefix.with_suffix(".parquet"), pa.table({"parent": pa.array(parents, pa.int64())}))


def _framed(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """`bos document eos`, as every document is stored."""
    return np.concatenate([[tokenizer.bos], tokens, [tokenizer.eos]]).astype(token_dtype(tokenizer))


def _dataset_metadata(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "tokenizer": tokenizer.hash,
        "bos": tokenizer.bos,
        "eos": tokenizer.eos,
        "sep": tokenizer.sep,
        "source": recipe.corpus.source.model_dump(mode="json"),
    }


def _write_table(path: Path, table: pa.Table) -> None:
    with publishing_file(path) as partial:
        pq.write_table(table, partial)
