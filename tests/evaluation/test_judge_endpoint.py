"""The contract with a server of chat completions: what is sent, what is tried again, what ends the stage."""

from typing import Any

import pytest
from chat_stub import Reply, Stub, completion, serving

from megasbp.errors import InputError
from megasbp.evaluation.judge.config import JudgeConfig
from megasbp.evaluation.judge.endpoint import Endpoint
from megasbp.evaluation.judge.judging import Answer


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def config(stub: Stub, **settings: Any) -> JudgeConfig:
    return JudgeConfig(
        kind="endpoint", model="stub", url=stub.url, **{"concurrent": 1, "attempts": 3, **settings}
    )


def ask(stub: Stub, *prompts: str, **settings: Any) -> tuple[list[Answer], list[float]]:
    """The answers, and the seconds that were waited between attempts."""
    waits: list[float] = []
    return list(Endpoint(config(stub, **settings), waits.append).answers(prompts)), waits


def test_a_prompt_is_one_request_and_its_answer_names_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with serving(completion("It is true.\nno")) as stub:
        answers, _ = ask(stub, "Is it false?", key_variable="JUDGE_KEY", maximum_tokens=7)
    assert answers == [Answer("It is true.\nno", "stub-1 fp_7")]
    (request,) = stub.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["Authorization"] == "Bearer secret"
    assert request["body"] == {
        "model": "stub",
        "messages": [{"role": "user", "content": "Is it false?"}],
        "max_tokens": 7,
        "temperature": 0.0,
    }


def test_without_a_variable_no_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(completion("yes")) as stub:
        ask(stub, "a")
    assert "Authorization" not in stub.requests[0]["headers"]


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with (
        serving(completion("yes")) as stub,
        pytest.raises(InputError, match="JUDGE_KEY is not set; export it"),
    ):
        ask(stub, "a", key_variable="JUDGE_KEY")


@pytest.mark.parametrize(
    "failure",
    [
        Reply(429, b'{"error": "slow down"}'),
        Reply(500, b"oops"),
        Reply(503),
        Reply(200, b"<html>a proxy's page</html>"),
        Reply(200, b'{"choices": []}'),
        Reply(200, b'{"choices": [{"message": {"content": 3}}]}'),
        Reply(200, b"[]"),
    ],
)
def test_a_failure_that_may_pass_is_tried_again(failure: Reply) -> None:
    with serving(failure, failure, completion("yes")) as stub:
        answers, waits = ask(stub, "a")
    assert [answer.text for answer in answers] == ["yes"]
    assert waits == [1.0, 2.0]


def test_a_server_is_given_the_time_that_it_asks_for() -> None:
    with serving(Reply(429, headers={"Retry-After": "17"}), completion("no")) as stub:
        assert ask(stub, "a")[1] == [17.0]
    with serving(Reply(429, headers={"Retry-After": "9999"}), completion("no")) as stub:
        assert ask(stub, "a")[1] == [60.0]
    with serving(Reply(429, headers={"Retry-After": "Fri, 27 Nov 2026"}), completion("no")) as stub:
        assert ask(stub, "a")[1] == [1.0]


def test_a_server_that_takes_too_long_is_asked_again() -> None:
    slow = Reply(200, completion("yes").body, delay=1.0)
    with serving(slow, completion("no")) as stub:
        answers, waits = ask(stub, "a", timeout=0.2)
    assert ([answer.text for answer in answers], waits) == (["no"], [1.0])


@pytest.mark.parametrize(
    "failure, message",
    [
        (Reply(500, b"out of  memory"), r"status 500 \(out of memory\), 3 times in a row; .* are kept"),
        (Reply(200, b"garbage"), r"no chat completion \(garbage\), 3 times"),
        (Reply(200, completion("yes").body, delay=0.5), "no answer .*timed out.*3 times"),
    ],
)
def test_what_fails_every_time_ends_the_stage_and_is_no_answer(failure: Reply, message: str) -> None:
    with serving(completion("no"), failure) as stub:
        answers = Endpoint(config(stub, timeout=0.2), lambda seconds: None).answers(["a", "b", "c", "d"])
        assert next(answers).text == "no"
        with pytest.raises(InputError, match=message):
            next(answers)
    # The prompts after it are not sent.
    assert len(stub.requests) == 1 + 3


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_request_that_cannot_succeed_is_not_repeated(status: int) -> None:
    refusal = rf"status {status} \(no such model\); correct quality.judge.url"
    with serving(Reply(status, b"no such model")) as stub, pytest.raises(InputError, match=refusal):
        ask(stub, "a")
    assert len(stub.requests) == 1


def test_a_redirection_does_not_take_the_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with serving(completion("yes")) as other:
        moved = Reply(302, headers={"Location": f"{other.url}/chat/completions"})
        with serving(moved) as stub, pytest.raises(InputError, match="status 302") as refused:
            ask(stub, "a", key_variable="JUDGE_KEY")
    assert other.requests == []
    assert "secret" not in str(refused.value)


def test_nobody_listening_is_said() -> None:
    with serving(completion("yes")) as stub:
        pass
    with pytest.raises(InputError, match="no answer .*refused.*, 3 times in a row"):
        ask(stub, "a")


def test_answers_come_in_the_order_of_the_prompts() -> None:
    slow = Reply(200, completion("first").body, delay=0.3)
    with serving(slow, completion("other")) as stub:
        answers, _ = ask(stub, *map(str, range(20)), concurrent=4)
    asked = [request["body"]["messages"][0]["content"] for request in stub.requests]
    expected = ["first" if prompt == asked[0] else "other" for prompt in map(str, range(20))]
    assert [answer.text for answer in answers] == expected


def test_a_model_that_says_nothing_has_said_nothing_readable() -> None:
    with serving(completion(None)) as stub:
        assert ask(stub, "a")[0][0].text == ""
