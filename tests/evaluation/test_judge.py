"""Prompts, readable answers, answers that are kept, rates, and a local judge's mechanics."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from megasbp.errors import InputError
from megasbp.evaluation.judge.config import JudgeConfig
from megasbp.evaluation.judge.judging import Answer, Case, judge_cases, rate
from megasbp.evaluation.judge.local import LocalJudge
from megasbp.evaluation.judge.questions import IRRELEVANT, NOT_FACTUAL, QUESTIONS, read_answer


class Said:
    """A judge that says what it is given, and counts the prompts that it read."""

    def __init__(self, *texts: str, failing_after: int | None = None) -> None:
        self.texts, self.read, self.failing_after = texts, 0, failing_after

    def answers(self, prompts: Sequence[str]) -> Iterator[Answer]:
        for prompt in prompts:
            if self.read == self.failing_after:
                raise InputError("the server is gone")
            self.read += 1
            yield Answer(self.texts[int(prompt) % len(self.texts)], "v1")


@pytest.mark.parametrize(
    "text, verdict",
    [
        ("yes", True),
        ("No.", False),
        ("The Danube ends in the Black Sea. So nothing is false.\n\n**no**\n", False),
        ("Answer: YES", True),
        ("Final answer: no", False),
        ("", None),
        ("yes and no", None),
        ("I cannot say yes.", None),
        ("yes\nbut perhaps", None),
        ("yesterday", None),
    ],
)
def test_only_a_last_line_that_says_yes_or_no_is_read(text: str, verdict: bool | None) -> None:
    assert read_answer(text) is verdict


def test_a_prompt_holds_the_texts_as_they_are() -> None:
    prompt = IRRELEVANT.prompt("d2 {seed} \\1", "d1 {document}")
    assert "<first>\nd1 {document}\n</first>" in prompt
    assert "<second>\nd2 {seed} \\1\n</second>" in prompt
    assert "<text>\n{seed}\n</text>" in NOT_FACTUAL.prompt("{seed}")
    assert len({question.prompt_hash for question in QUESTIONS}) == 2


def test_a_call_that_was_stopped_goes_on_and_writes_the_same_bytes(tmp_path: Path) -> None:
    cases = [Case(number, str(number)) for number in (3, 5, 8, 13)]
    texts = ("yes", "no", "perhaps\N{SNOWMAN}")
    whole = judge_cases(Said(*texts), cases, tmp_path / "whole.jsonl")
    assert [row["verdict"] for row in whole] == [True, None, None, False]
    path = tmp_path / "stopped.jsonl"
    with pytest.raises(InputError, match="gone"):
        judge_cases(Said(*texts, failing_after=3), cases, path)
    for cut in range(len(path.read_bytes()), 0, -7):
        stopped = tmp_path / "cut.jsonl"
        stopped.write_bytes(path.read_bytes()[:cut])
        kept = stopped.read_bytes().count(b"\n")
        judge = Said(*texts)
        assert judge_cases(judge, cases, stopped) == whole
        assert stopped.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        # What was answered is not asked again.
        assert judge.read == len(cases) - kept


def test_the_rate_is_that_of_readable_answers_with_wilsons_interval() -> None:
    found = rate([True] * 3 + [False] * 7 + [None] * 5)
    assert (found["documents"], found["unparsable"], found["estimate"]) == (15, 5, 0.3)
    # Wilson's formula with z = 1.959964, n = 10, p = 0.3.
    z, n, p = 1.959963984540054, 10, 0.3
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (found["low"], found["high"]) == (pytest.approx(centre - half), pytest.approx(centre + half))
    # No answer is no rate: neither 0 nor 1.
    unreadable = rate([None, None])
    assert (unreadable["estimate"], unreadable["low"], unreadable["unparsable"]) == (None, None, 2)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"kind": "endpoint"}, "needs url"),
        ({"kind": "endpoint", "url": "file:///etc/hosts"}, "url"),
        ({"kind": "local", "temperature": 0.7}, "set it to 0"),
        ({"kind": "local", "url": "http://localhost/v1"}, "url is for kind 'endpoint'"),
        ({"kind": "local", "attempts": 2}, "attempts is for kind 'endpoint'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        JudgeConfig(model="a", **settings)


def test_where_a_server_stands_changes_no_answer() -> None:
    one = JudgeConfig(kind="endpoint", model="a", url="http://here/v1", timeout=3)
    other = JudgeConfig(kind="endpoint", model="a", url="http://there/v1", concurrent=1, key_variable="KEY")
    assert one.deciding() == other.deciding()
    assert one.deciding() != JudgeConfig(kind="endpoint", model="b", url="http://here/v1").deciding()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of a few thousand weights, as transformers stores one."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("judge")
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.train_from_iterator(
        [NOT_FACTUAL.template],
        tokenizers.trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<unk>", "<eos>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=inner.get_vocab_size(), max_position_embeddings=2048, **sizes)
    ).save_pretrained(folder)
    return folder


def test_a_local_judge_answers_each_prompt_alone_and_names_its_weights(tiny_model: Path) -> None:
    config = JudgeConfig(kind="local", model=str(tiny_model), maximum_tokens=8)
    judge = LocalJudge(config)
    prompts = [NOT_FACTUAL.prompt(text) for text in ("The Danube is a river.", "x" * 50)]
    together = list(judge.answers(prompts))
    assert together == [next(iter(LocalJudge(config).answers([prompt]))) for prompt in prompts]
    assert all(answer.version == judge.version and len(judge.version) == 64 for answer in together)
    assert not any("Danube" in answer.text for answer in together)


def test_a_chat_template_is_used_where_there_is_one(tiny_model: Path) -> None:
    judge = LocalJudge(JudgeConfig(kind="local", model=str(tiny_model), maximum_tokens=4))
    plain = judge._encoded("Is it?")
    judge._tokenizer.chat_template = "[{{ messages[0]['content'] }}]"
    assert judge._tokenizer.decode(judge._encoded("Is it?")[0]) == "[Is it?]"
    assert judge._tokenizer.decode(plain[0]) == "Is it?"


def test_a_local_judge_that_cannot_work_says_why(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        LocalJudge(JudgeConfig(kind="local", model=str(tmp_path)))
    judge = LocalJudge(JudgeConfig(kind="local", model=str(tiny_model), maximum_tokens=8))
    with pytest.raises(InputError, match="exceed the model's 2048; lower quality.judge.maximum_characters"):
        list(judge.answers([NOT_FACTUAL.prompt("x" * 6000)]))
