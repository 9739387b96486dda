"""lm-eval-harness in this process: its tasks, its prompts and its metrics, on an exported model."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.version import Version

from megasbp.errors import InputError
from megasbp.evaluation.downstream.config import DownstreamConfig
from megasbp.evaluation.downstream.local_tasks import PREFIX, local_task
from megasbp.evaluation.downstream.scores import TaskScores

# Addresses the draw of the solved examples, which is then the same for every model.
_SHOT_SEED = 1234


def harness_version() -> str:
    """The installed version of lm-eval.

    Raises:
        InputError: it, or what it needs to run a model of transformers, is not there.
    """
    missing = []
    for package in ("lm-eval", "transformers", "accelerate"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        raise InputError(
            f"evaluation.downstream.tasks needs {' and '.join(missing)}; pip install '.[eval]', or "
            "leave the section [evaluation.downstream] out"
        )
    return str(Version(metadata.version("lm-eval")))


def require_tasks(config: DownstreamConfig) -> None:
    """Refuses names of lm-eval's own tasks that it does not have, before anything is trained.

    Raises:
        InputError: it has no such task.
    """
    others = [name for name in config.tasks if name not in config.local_tasks]
    known = set(_manager(config).all_tasks) if others else set()
    for name in others:
        if name not in known:
            raise InputError(
                f"evaluation.downstream.tasks names {name!r}, which lm-eval {harness_version()} does not "
                "have; `lm-eval ls tasks` lists its own"
            )


class Harness:
    """An exported model and lm-eval's view of it.

    Args:
        model: folder written by `export_hugging_face`, with its tokenizer.
        config: tasks, shots, documents and batch size.
        window: longest sequence the model was trained on; a longer request loses its beginning.
        device: where it computes.
        dtype: type it computes in.
        cache: folder for what lm-eval's loader of data makes of the files.
    """

    def __init__(
        self,
        model: Path,
        config: DownstreamConfig,
        window: int,
        device: torch.device,
        dtype: torch.dtype,
        cache: Path,
    ) -> None:
        # Imported here: it loads half of transformers, and only this needs it.
        scorer = import_module("megasbp.evaluation.downstream.scorer")
        self._config, self._cache = config, cache
        with _without_bars():
            self._model = scorer.DocumentScorer(model, window, config.batch_size, device, dtype)

    def tasks(self) -> dict[str, Any]:
        """Every task to be measured by its name; a group of lm-eval's own is several.

        Raises:
            InputError: lm-eval has no such task, or could not fetch its data.
        """
        require_tasks(self._config)
        manager = _manager(self._config)
        found: dict[str, Any] = {}
        for name in self._config.tasks:
            wanted = self._local(name) if name.startswith(PREFIX) else name
            try:
                with _without_bars():
                    loaded = manager.load([wanted])["tasks"]
            except OSError as error:
                raise InputError(
                    f"task {name}: its data could not be read ({error}); lm-eval fetches that of its own "
                    "tasks: go on where there is a network, or leave the task out"
                ) from None
            for task in loaded.values():
                task.set_config(key="num_fewshot", value=self._config.shots_of(name))
                task.set_fewshot_seed(_SHOT_SEED)
            found |= loaded
        return found

    def score(self, name: str, task: Any) -> TaskScores:
        """Measures the model on the chosen documents of one of `tasks`."""
        documents = self._config.chosen(len(task.eval_docs))
        self._model.cut = 0
        evaluator = import_module("lm_eval.evaluator")
        with _without_bars():
            # Not simple_evaluate: it starts programs to describe the machine, for every task.
            results = evaluator.evaluate(
                lm=self._model,
                task_dict={"tasks": {name: task}},
                samples={name: documents},
                bootstrap_iters=0,
                log_samples=True,
            )
        return scores_of(
            task,
            results["samples"][name],
            results["higher_is_better"][name],
            shots=task.config.num_fewshot,
            cut=self._model.cut,
        )

    def _local(self, name: str) -> dict[str, Any]:
        """The task's configuration, on the user's files."""
        assert self._config.data is not None
        task = local_task(name, self._config.data)
        arguments = {
            **task.config["dataset_kwargs"],
            "data_files": {"test": [str(file) for file in task.files]},
            "cache_dir": str(self._cache),
        }
        if task.config["dataset_path"] == "csv":
            datasets = import_module("datasets")
            # As they stand in the file: else a column of numbers is one in some files and text in others.
            text = datasets.Value("string")
            arguments["features"] = datasets.Features(dict.fromkeys(task.rows[0][1], text))
        return {**task.config, "dataset_kwargs": arguments}


def _manager(config: DownstreamConfig) -> Any:
    """lm-eval's, which reads the definitions of all its own tasks only where one of them is named."""
    own = config.tasks != config.local_tasks
    return import_module("lm_eval.tasks").TaskManager(include_defaults=own)


def scores_of(
    task: Any,
    samples: Sequence[Mapping[str, Any]],
    higher_is_better: Mapping[str, bool],
    shots: int,
    cut: int,
) -> TaskScores:
    """Scores by document from what lm-eval logs of each.

    Kept are metrics that are one number per document and that a better model raises.

    Args:
        task: of lm-eval.
        samples: its logged samples, one per document and filter; those of the first filter count.
        higher_is_better: by metric.
        shots, cut: see `TaskScores`.
    """
    rows = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
    names = [
        name
        for name in rows[0]["metrics"]
        if higher_is_better.get(name) and all(isinstance(row[name], int | float) for row in rows)
    ]
    answers = [_answer(task, row) for row in rows]
    answered = all(answer is not None for answer in answers)
    known = [answer for answer in answers if answer is not None]
    return TaskScores(
        np.array([row["doc_id"] for row in rows], dtype=np.int64),
        {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names},
        np.array([nats for nats, _ in known], dtype=np.float64) if answered else None,
        np.array([size for _, size in known], dtype=np.int64) if answered else None,
        np.array(list(_choices(task, rows)), dtype=np.int64),
        shots,
        cut,
    )


@contextmanager
def _without_bars() -> Iterator[None]:
    """The bars of lm-eval, transformers and datasets would drown the run's lines; errors are exceptions."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nothing, redirect_stderr(nothing):
            yield
    finally:
        logger.setLevel(level)


def _answer(task: Any, row: Mapping[str, Any]) -> tuple[float, int] | None:
    """Nats and bytes of the right answer of a document."""
    match task.OUTPUT_TYPE:
        case "loglikelihood":
            place = 0
        case "multiple_choice":
            place = task.doc_to_text(row["doc"]) if task.multiple_input else row["target"]
            place = place[0] if isinstance(place, list) else place
            if isinstance(place, str):
                place = task.doc_to_choice(row["doc"]).index(place)
        case _:
            return None
    log_likelihood, _ = row["filtered_resps"][place]
    return -float(log_likelihood), len(row["arguments"][place][1].encode())


def _choices(task: Any, rows: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """Of each document, the answers of which one is right; 0 where none is to be chosen."""
    chosen = task.OUTPUT_TYPE == "multiple_choice"
    for row in rows:
        one_is_right = chosen and (task.multiple_input or not isinstance(row["target"], list))
        yield len(task.doc_to_choice(row["doc"])) if one_is_right else 0
