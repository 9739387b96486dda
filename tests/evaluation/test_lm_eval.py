"""lm-eval, in this process and without a network, on an exported model: it measures what our code does."""

import json
import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_files import JSON_TASKS, SECOND, write_task_files

from megasbp.corpus.tokenizer import Tokenizer
from megasbp.data.batch import Batch
from megasbp.errors import InputError
from megasbp.evaluation.downstream.config import DownstreamConfig
from megasbp.evaluation.downstream.harness import Harness, require_tasks
from megasbp.evaluation.downstream.local_tasks import LOCAL_TASKS, check_files
from megasbp.evaluation.downstream.scores import TaskScores
from megasbp.evaluation.perplexity import document_losses
from megasbp.model.config import ModelConfig
from megasbp.model.hugging_face import export_hugging_face
from megasbp.model.init import initialize
from megasbp.model.transformer import Transformer

os.environ["HF_HUB_OFFLINE"] = "1"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("lm_eval") is None or find_spec("accelerate") is None,
        reason="needs lm-eval (pip install .[eval])",
    ),
]
WINDOW = 64


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Of so few words that an answer is several tokens."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer.train(
        iter(["Question: What is the river?\nAnswer: the owl and the oak, by boat"] * 9), 290
    ).save(path)
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    """Weights large enough that answers differ by nats."""
    shape = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "feed_forward": 64}
    model = Transformer(
        ModelConfig(vocabulary_size=tokenizer.vocabulary_size, maximum_positions=256, **shape)
    )
    initialize(model, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    return model.eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task_files(tmp_path_factory.mktemp("eval"))


Opener = Callable[..., Harness]


@pytest.fixture(scope="module")
def opened(
    model: Transformer, tokenizer: Tokenizer, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Opener:
    """A harness on the exported model, with these settings."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(folder / "tokenizer.json")
    state = model.state_dict()

    def fill(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensor.copy_(state[name])

    export_hugging_face(model.config, fill, folder / "export", folder / "tokenizer.json")

    def open_harness(*tasks: str, window: int = WINDOW, **settings: Any) -> Harness:
        config = DownstreamConfig(**{"tasks": tasks, "data": data, "batch_size": 4, **settings})
        where = (torch.device("cpu"), torch.float32, tmp_path_factory.mktemp("cache"))
        return Harness(folder / "export", config, window, *where)

    return open_harness


class Strings:
    """Contexts with answers, a row each: `bos context answer`, of which the answer is to be predicted."""

    fingerprint = "strings"

    def __init__(self, pairs: list[tuple[str, str]], tokenizer: Tokenizer) -> None:
        contexts = tokenizer.encode_batch([context for context, _ in pairs])
        wholes = tokenizer.encode_batch([context + answer for context, answer in pairs])
        self.samples_per_epoch = len(pairs)
        self.sequence_length = max(map(len, wholes)) + 1
        rows = np.zeros((4, len(pairs), self.sequence_length), np.int32)
        tokens, labels, positions, segments = rows
        labels[:], segments[:] = -100, -1
        for number, (context, whole) in enumerate(zip(contexts, wholes, strict=True)):
            tokens[number, : len(whole) + 1] = [tokenizer.bos, *whole]
            labels[number, len(context) : len(whole)] = whole[len(context) :]
            positions[number, : len(whole) + 1] = np.arange(len(whole) + 1)
            segments[number, : len(whole) + 1] = 0
        self._rows = rows

    def batch(self, indices: np.ndarray) -> Batch:
        return Batch.from_array(self._rows[:, indices])

    def row_items(self, row: int) -> np.ndarray:
        return np.array([row])


def our_nats(model: Transformer, tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> np.ndarray:
    """What our code loses on each answer, given its context."""
    return document_losses(model, Strings(pairs, tokenizer), len(pairs), batch_size=3).nats


def scored(harness: Harness) -> dict[str, TaskScores]:
    return {name: harness.score(name, task) for name, task in harness.tasks().items()}


def test_lambada_is_what_our_own_code_measures(opened, model, tokenizer) -> None:
    found = scored(opened("megasbp_lambada"))["megasbp_lambada"]
    rows = JSON_TASKS["megasbp_lambada"][1]
    pairs = [(row["context"], f" {row['continuation']}") for row in rows]
    # fp32 sums in another order.
    np.testing.assert_allclose(found.answer_nats, our_nats(model, tokenizer, pairs), rtol=0, atol=1e-4)
    assert found.answer_bytes is not None
    assert found.answer_bytes.tolist() == [len(answer.encode()) for _, answer in pairs]
    assert found.cut == 0


@pytest.mark.parametrize("name", ["megasbp_arc_easy", "megasbp_winogrande", "megasbp_piqa"])
def test_choices_are_what_our_own_code_measures_and_chooses(name, opened, model, tokenizer, data) -> None:
    found = scored(opened(name))[name]
    task = check_files(name, data)
    (metric,) = found.metrics
    for number, (place, row) in enumerate(task.rows):
        pairs = task.requests(place, row)
        nats = our_nats(model, tokenizer, pairs)
        assert found.answer_nats is not None
        assert found.answer_nats[number] == pytest.approx(nats[row["gold"]], abs=1e-4)
        # By length: in characters, without the space before the answer.
        lengths = [len(answer) - 1 if metric == "acc_norm" else 1 for _, answer in pairs]
        assert found.metrics[metric][number] == (np.argmin(nats / lengths) == row["gold"])
    assert found.chance == np.mean([1 / len(task.requests(place, row)) for place, row in task.rows])


def likeliest_word(model: Transformer, tokenizer: Tokenizer) -> tuple[str, str]:
    """A context, and the word of one token that the model would write after it."""
    for number in range(2000):
        context = f"the river {number}"
        tokens = [tokenizer.bos, *tokenizer.encode_batch([context])[0].tolist()]
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), torch.arange(len(tokens))[None])
        word = tokenizer.decode([int(logits[0, -1].argmax())])
        if word.startswith(" ") and word.strip():
            return context, word.strip()
    raise AssertionError("the model writes no word")


def test_an_end_is_right_when_it_is_what_the_model_would_write(opened, model, tokenizer, tmp_path) -> None:
    context, word = likeliest_word(model, tokenizer)
    rows = [{"context": context, "continuation": one} for one in (word, f"{word} {word}", "oak")]
    (tmp_path / "lambada_openai.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = scored(opened("megasbp_lambada", data=tmp_path))["megasbp_lambada"]
    assert found.metrics["acc"].tolist()[::2] == [1.0, 0.0]


@pytest.mark.parametrize("name", LOCAL_TASKS)
def test_lm_eval_asks_what_we_say_a_document_asks(name: str, opened: Opener, data: Path) -> None:
    harness = opened(name)
    ((_, task),) = harness.tasks().items()
    harness.score(name, task)
    asked: dict[int, list[tuple[str, str]]] = {}
    for request in task.instances:
        asked.setdefault(request.doc_id, []).append(tuple(request.args))
    ours = check_files(name, data)
    assert list(asked.values()) == [ours.requests(place, row) for place, row in ours.rows]


def test_an_answer_may_be_chosen_by_several_names(opened, model, tokenizer) -> None:
    found = scored(opened("megasbp_triviaqa"))["megasbp_triviaqa"]
    nats = our_nats(model, tokenizer, SECOND["megasbp_triviaqa"])
    assert found.answer_nats is not None and found.answer_nats[1] == pytest.approx(nats[0], abs=1e-4)
    assert found.chance is None


def test_a_request_longer_than_the_window_loses_its_beginning_and_is_counted(
    opened, model, tokenizer
) -> None:
    whole = scored(opened("megasbp_lambada"))["megasbp_lambada"]
    window = 12
    found = scored(opened("megasbp_lambada", window=window))["megasbp_lambada"]
    rows = JSON_TASKS["megasbp_lambada"][1]
    lost = 0
    for number, row in enumerate(rows):
        context, full = tokenizer.encode_batch([row["context"], f"{row['context']} {row['continuation']}"])
        answer = full[len(context) :]
        kept = context[max(0, len(context) - (window - len(answer))) :]
        lost += len(kept) < len(context)
        tokens = torch.tensor([[tokenizer.bos, *kept, *answer[:-1]]], dtype=torch.int64)
        assert tokens.shape[1] <= window
        with torch.no_grad():
            logits = model(tokens, torch.arange(tokens.shape[1])[None])
        logs = logits[0, -len(answer) :].log_softmax(-1)
        nats = -logs[torch.arange(len(answer)), torch.from_numpy(answer.astype(np.int64))].sum()
        assert found.answer_nats is not None
        assert found.answer_nats[number] == pytest.approx(float(nats), abs=1e-4)
    assert found.cut == lost > 0
    assert not np.allclose(found.answer_nats, whole.answer_nats)


def test_a_solved_example_is_another_document_and_the_same_for_every_model(opened) -> None:
    asked = []
    for _ in range(2):
        harness = opened("megasbp_arc_easy", shots=1)
        ((name, task),) = harness.tasks().items()
        assert harness.score(name, task).shots == 1
        asked.append([request.args for request in task.instances])
    assert asked[0] == asked[1]
    rows = JSON_TASKS["megasbp_arc_easy"][1]
    solved = {f"{row['query']}\nAnswer: {row['choices'][row['gold']]}\n\n" for row in rows}
    for context, _ in asked[0]:
        first, end, own = context.partition("\n\n")
        assert first + end in solved and own not in first


def test_a_limit_takes_documents_from_all_of_the_file(opened, tmp_path) -> None:
    rows = [{"context": f"What is the {one}? It is", "continuation": f"the {one}"} for one in "abcde"]
    (tmp_path / "lambada_openai.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    all_of_it = scored(opened("megasbp_lambada", data=tmp_path))["megasbp_lambada"]
    some = scored(opened("megasbp_lambada", data=tmp_path, limit=2))["megasbp_lambada"]
    assert all_of_it.documents.tolist() == [0, 1, 2, 3, 4]
    assert some.documents.tolist() == [0, 2]
    assert some.answer_nats is not None and all_of_it.answer_nats is not None
    np.testing.assert_allclose(some.answer_nats, all_of_it.answer_nats[[0, 2]], rtol=0, atol=1e-5)
    assert not np.allclose(some.answer_nats, all_of_it.answer_nats[:2])


def test_a_task_that_lm_eval_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=re.escape("names 'no_such_task', which lm-eval 0.4")):
        require_tasks(DownstreamConfig(tasks=("arc_easy", "no_such_task")))


def test_a_task_of_lm_evals_own_needs_a_network(opened) -> None:
    with pytest.raises(InputError, match=r"task arc_easy: its data could not be read"):
        opened("arc_easy").tasks()
