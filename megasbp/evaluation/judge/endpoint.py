"""A judge behind OpenAI's chat completions.

Of that interface this is one request of one form, so it is made with the standard library. The `openai`
package would bring an HTTP stack and types that follow one vendor's service, and what matters here would
still be ours: which failures are tried again, what is said when they are not, and that no answer is ever made
up.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from threading import Event
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from megasbp.errors import InputError
from megasbp.evaluation.judge.config import JudgeConfig
from megasbp.evaluation.judge.judging import Answer

# Too many requests, and what a server says that is overloaded, starting or broken for a moment.
_PASSING = {408, 429, 500, 502, 503, 504}
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_SHOWN_CHARACTERS = 200
_LARGEST_ANSWER = 16 << 20


class Endpoint:
    """A chat model on a server.

    Args:
        config: of kind "endpoint".
        sleep: waits so many seconds.

    Raises:
        InputError: the variable that is to hold the key is not set.
    """

    def __init__(self, config: JudgeConfig, sleep: Callable[[float], None] = time.sleep) -> None:
        assert config.url is not None
        self._config, self._sleep = config, sleep
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        self._headers = {"Content-Type": "application/json"}
        if config.key_variable is not None:
            self._headers["Authorization"] = f"Bearer {read_key(config.key_variable)}"
        self._opener = build_opener(_NoRedirect)

    def answers(self, prompts: Sequence[str]) -> Iterator[Answer]:
        """See `Judge.answers`. When one prompt has failed for good, no other request is begun."""
        ended = Event()

        def answer(prompt: str) -> Answer:
            try:
                return self._answer(prompt, ended)
            except InputError:
                ended.set()
                raise

        pool = ThreadPoolExecutor(self._config.concurrent)
        try:
            yield from pool.map(answer, prompts)
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)

    def _answer(self, prompt: str, ended: Event) -> Answer:
        """One answer, after as many attempts as the recipe allows.

        Raises:
            InputError: a failure that another attempt does not mend, one attempt too many, or the end of all.
        """
        for attempt in range(1, self._config.attempts + 1):
            if ended.is_set():
                raise InputError(f"{self._url}: another prompt has failed")
            try:
                return _parsed(self._post(prompt))
            except _PassingError as failure:
                if attempt == self._config.attempts:
                    raise InputError(
                        f"{self._url}: {failure}, {attempt} times in a row; mend the server, or raise "
                        "quality.judge.timeout or attempts, and run again: the answers so far are kept"
                    ) from None
                self._sleep(min(max(failure.wait, _FIRST_WAIT * 2 ** (attempt - 1)), _LONGEST_WAIT))
        raise AssertionError("there is at least one attempt")

    def _post(self, prompt: str) -> bytes:
        body = {
            "model": self._config.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self._config.maximum_tokens,
            "temperature": self._config.temperature,
        }
        request = Request(self._url, json.dumps(body).encode(), self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._config.timeout) as response:
                return response.read(_LARGEST_ANSWER)
        except HTTPError as error:
            said = _shown(error.read(_LARGEST_ANSWER))
            if error.code in _PASSING:
                raise _PassingError(f"status {error.code} ({said})", _wait_asked_for(error)) from None
            raise InputError(
                f"{self._url}: status {error.code} ({said}); correct quality.judge.url, model or key_variable"
            ) from None
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            raise _PassingError(f"no answer ({reason or type(error).__name__})") from None


class _PassingError(Exception):
    """A failure that may have passed at the next attempt.

    Attributes:
        wait: seconds that the server asks to wait, or 0.
    """

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class _NoRedirect(HTTPRedirectHandler):
    """A redirected request would take the key to another server, and the prompt not at all."""

    def redirect_request(self, *arguments: Any) -> None:
        """Refuses: the status of the redirection is what the request ends with."""


def read_key(variable: str) -> str:
    """The key that an environment variable holds.

    Raises:
        InputError: it is not set.
    """
    key = os.environ.get(variable)
    if not key:
        raise InputError(
            f"quality.judge.key_variable: {variable} is not set; export it, or leave the setting out"
        )
    return key


def _parsed(body: bytes) -> Answer:
    """The answer of a chat completion."""
    try:
        reply = json.loads(body)
        text = reply["choices"][0]["message"]["content"]
        version = [reply.get("model"), reply.get("system_fingerprint")]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _PassingError(f"an answer that is no chat completion ({_shown(body)})") from None
    # A model that stops at once says null.
    if text is not None and not isinstance(text, str):
        raise _PassingError(f"an answer that is no text ({_shown(body)})")
    return Answer(text or "", " ".join(str(part) for part in version if part))


def _wait_asked_for(error: HTTPError) -> float:
    """Seconds of the header Retry-After; 0 without, or where it gives a date."""
    try:
        return max(float(error.headers.get("Retry-After", 0)), 0.0)
    except ValueError:
        return 0.0


def _shown(body: bytes) -> str:
    return " ".join(body.decode("utf-8", errors="replace").split())[:_SHOWN_CHARACTERS] or "no text"
