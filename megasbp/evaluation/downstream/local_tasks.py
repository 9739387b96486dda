"""The tasks of this project: lm-eval's YAML files beside this package, and the user's files that they read.

What a document asks of a model is made here too, by the rules of lm-eval, so that the cost of a recipe and a
damaged file are known without it, before anything is trained. lm-eval makes the requests that are measured.
"""

import ast
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from megasbp.errors import InputError

PREFIX = "megasbp_"
TASKS_FOLDER = Path(__file__).resolve().parent.parent / "tasks"
LOCAL_TASKS = tuple(sorted(path.stem for path in TASKS_FOLDER.glob(f"{PREFIX}*.yaml")))
_TEMPLATES = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LocalTask:
    """A task and the files of it in a folder.

    Attributes:
        name: one of `LOCAL_TASKS`.
        config: its YAML file.
        files: in the order in which they are read.
    """

    name: str
    config: dict[str, Any]
    files: tuple[Path, ...]

    @cached_property
    def rows(self) -> list[tuple[str, Row]]:
        """The place and the fields of every document.

        Raises:
            InputError: a file is damaged.
        """
        read = _csv_rows if self.config["dataset_path"] == "csv" else _json_rows
        return [row for file in self.files for row in read(file)]

    def requests(self, place: str, row: Row) -> list[tuple[str, str]]:
        """What is scored of one document, without examples before it: pairs of context and continuation.

        Raises:
            InputError: the document has not the fields of this task.
        """
        try:
            return self._requests(row)
        except (jinja2.UndefinedError, TypeError, AttributeError, SyntaxError, ValueError) as error:
            source = self.config["metadata"]["source"]
            raise InputError(f"{place}: no document of {self.name} ({error}); {source}") from None

    def _requests(self, row: Row) -> list[tuple[str, str]]:
        config = self.config
        delimiter = config.get("target_delimiter", " ")
        target = _rendered(config["doc_to_target"], row)
        if config["output_type"] == "loglikelihood":
            return [(_rendered(config["doc_to_text"], row), delimiter + target)]
        choices = _rendered(config["doc_to_choice"], row)
        choices = ast.literal_eval(choices) if isinstance(choices, str) else choices
        context = _rendered(config["doc_to_text"], row)
        if isinstance(context, int):
            # The choices are beginnings; each is followed by the same end.
            pairs, accepted = [(choice, delimiter + target) for choice in choices], context
        else:
            pairs, accepted = [(context, delimiter + choice) for choice in choices], target
        gold = ast.literal_eval(accepted) if isinstance(accepted, str) else accepted
        for place in gold if isinstance(gold, list) else [gold]:
            if not 0 <= place < len(choices):
                raise ValueError(f"answer {place} of {len(choices)}")
        if not choices:
            raise ValueError("no answers")
        return pairs


def local_task(name: str, folder: Path) -> LocalTask:
    """One of `LOCAL_TASKS`, on the files of a folder.

    Raises:
        InputError: a file is missing.
    """
    config = yaml.safe_load((TASKS_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    pattern = config["dataset_kwargs"]["data_files"]["test"]
    files = tuple(sorted(Path(folder).glob(pattern)))
    if not files:
        raise InputError(
            f"{Path(folder) / pattern}: no such file, but task {name} reads it; "
            f"{config['metadata']['source']} (docs/evaluation.md)"
        )
    return LocalTask(name, config, files)


def check_files(name: str, folder: Path) -> LocalTask:
    """The task, every document of which can be asked.

    Raises:
        InputError: a file is missing or damaged, or a document has not the fields of this task.
    """
    task = local_task(name, folder)
    for place, row in task.rows:
        task.requests(place, row)
    if len(task.rows) < 2:
        raise InputError(f"{task.files[0]}: has {len(task.rows)} document(s); a task needs at least 2")
    return task


def _rendered(template: Any, row: Row) -> Any:
    """A field by its name, a template as text; what is no string stands for itself."""
    if not isinstance(template, str):
        return template
    return row[template] if template in row else _template(template).render(row)


@lru_cache
def _template(text: str) -> jinja2.Template:
    return _TEMPLATES.from_string(text)


def _json_rows(file: Path) -> list[tuple[str, Row]]:
    """Of JSON lines, or of one list of objects."""
    text = _text(file)
    try:
        if text.lstrip().startswith("["):
            rows = [(f"{file}: number {number}", row) for number, row in enumerate(json.loads(text), 1)]
        else:
            rows = [
                (f"{file}:{number}", json.loads(line))
                # Not splitlines: a string of JSON may hold other ends of line.
                for number, line in enumerate(text.split("\n"), 1)
                if line.strip()
            ]
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: not valid JSON ({error}); restore it") from None
    for place, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{place}: a JSON {type(row).__name__}, not an object; restore it")
    return rows


def _csv_rows(file: Path) -> list[tuple[str, Row]]:
    reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
    try:
        return [(f"{file}:{reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{file}:{reader.line_num}: not valid CSV ({error}); restore it") from None


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 ({error}); restore it") from None
