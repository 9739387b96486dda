"""A judge's rates: is a text false, does it belong to its seed?"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import megasbp._C as core
from megasbp.addressing import derive_key
from megasbp.evaluation.judge.config import JudgeConfig
from megasbp.evaluation.judge.endpoint import Endpoint
from megasbp.evaluation.judge.judging import Case, Judge, judge_cases, rate
from megasbp.evaluation.judge.questions import IRRELEVANT, NOT_FACTUAL, QUESTIONS, Question
from megasbp.experiment.arms import is_seeded
from megasbp.experiment.context import Context, document_text, open_dataset
from megasbp.experiment.stages import StageResult
from megasbp.pairing.table import read_pairs
from megasbp.storage import hash_folder

# Real text that is judged beside the arms'.
REAL = ("real", "unrelated")
# Text of a document by its number, and that of its seed.
Texts = Callable[[int], tuple[str, str | None]]


def judge_stage(context: Context, name: str, source: StageResult) -> StageResult:
    """What the judge says of an arm's accepted text, or of real text.

    Real text says what the rates mean. "real" is held-out text for the question of facts, and true pairs for
    that of relevance: its rates are at least the judge's errors. "unrelated" is random pairs, of which a
    judge that reads well calls nearly all irrelevant.

    Args:
        name: an arm, or one of `REAL`.
        source: the arm's synthesis; for real text the pair tables.

    Files: QUESTION.jsonl, an answer a line. Facts: "rates", question -> as `judging.rate`, and "versions".
    """
    config, corpus = context.recipe.quality.judge, context.corpus
    assert config is not None
    questions = _questions(name)

    def make(folder: Path) -> dict[str, Any]:
        judge: Judge = _open(context, config)
        rates, versions = {}, set()
        for question in questions:
            count, texts = _texts(context, name, source, question)
            rows = judge_cases(
                judge,
                list(_cases(question, _sample(context, count, name, question), texts, config)),
                folder / f"{question.name}.jsonl",
                lambda line: context.workspace.announce(f"{context.name(f'judge-{name}')}: {line}"),
            )
            rates[question.name] = rate([row["verdict"] for row in rows])
            versions |= {row["version"] for row in rows}
        return {"rates": rates, "versions": sorted(versions)}

    inputs: dict[str, StageResult | str] = {
        "datasets": corpus.datasets,
        "units": corpus.units,
        "source": source,
    }
    if config.kind == "local" and Path(config.model).is_dir():
        inputs["judge"] = hash_folder(Path(config.model))
    return context.workspace.stage(
        context.name(f"judge-{name}"),
        inputs=inputs,
        settings={
            "judge": config.deciding(),
            "prompts": {question.name: question.prompt_hash for question in questions},
            "seed": context.seed,
        },
        make=make,
    )


def judge_facts(config: JudgeConfig, seed: int, stages: dict[str, StageResult]) -> dict[str, Any]:
    """What the results say of the judge.

    Args:
        seed: the run's.
        stages: of `REAL` or an arm -> its finished stage.
    """
    return {
        "kind": config.kind,
        "name": config.model,
        "versions": sorted({version for stage in stages.values() for version in stage.facts["versions"]}),
        "documents": config.documents,
        "seed": seed,
        "maximum_characters": config.maximum_characters,
        "temperature": config.temperature,
        "questions": {
            question.name: {
                "prompt_hash": question.prompt_hash,
                "rates": {
                    name: stage.facts["rates"][question.name]
                    for name, stage in stages.items()
                    if question.name in stage.facts["rates"]
                },
            }
            for question in QUESTIONS
        },
    }


def _questions(name: str) -> list[Question]:
    if name == "unrelated":
        return [IRRELEVANT]
    has_seeds = name in REAL or is_seeded(name)
    return [question for question in QUESTIONS if has_seeds or not question.reads_seed]


def _open(context: Context, config: JudgeConfig) -> Judge:
    if config.kind == "endpoint":
        return Endpoint(config)
    # It needs a heavy package, which is imported only when it is asked for.
    from megasbp.evaluation.judge.local import LocalJudge

    return LocalJudge(config, str(context.runtime.device))


def _sample(context: Context, count: int, name: str, question: Question) -> np.ndarray:
    """Numbers of the documents that are judged, ascending: the same in arms of as many documents."""
    config = context.recipe.quality.judge
    assert config is not None
    key = derive_key(context.seed, "judge", "real" if name in REAL else "synthetic", question.name)
    return np.sort(core.permute(count, key, np.arange(min(count, config.documents))))


def _cases(question: Question, documents: np.ndarray, texts: Texts, config: JudgeConfig) -> Iterator[Case]:
    for document in documents.tolist():
        text, seed = texts(document)
        shown = None if seed is None else seed[: config.maximum_characters]
        yield Case(document, question.prompt(text[: config.maximum_characters], shown))


def _texts(context: Context, name: str, source: StageResult, question: Question) -> tuple[int, Texts]:
    """How many documents there are, and the texts of each that the question reads."""
    corpus = context.corpus
    tokenizer, units = corpus.open_tokenizer(), corpus.open_units("unique")
    if name not in REAL:
        dataset = open_dataset(source.folder / "synthetic", tokenizer)
        table = pq.read_table(source.folder / "provenance.parquet", columns=["seed_doc", "accepted"])
        seeds = table.filter(table["accepted"])["seed_doc"].to_numpy()
        return len(dataset), lambda document: (
            document_text(dataset, document, tokenizer),
            document_text(units, int(seeds[document]), tokenizer) if question is IRRELEVANT else None,
        )
    if question is NOT_FACTUAL:
        held_out = corpus.open("validation")
        return len(held_out), lambda document: (document_text(held_out, document, tokenizer), None)
    pairs = read_pairs(source.folder / ("train.parquet" if name == "real" else "train.random.parquet"))
    first, second = pairs["seed_doc"].to_numpy(), pairs["target_doc"].to_numpy()
    return len(first), lambda pair: (
        document_text(units, int(second[pair]), tokenizer),
        document_text(units, int(first[pair]), tokenizer),
    )
