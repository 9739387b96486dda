"""A server of chat completions on this machine that says what a test tells it to."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One reply: a status, a body, further headers, and seconds to wait before it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


def completion(text: str | None, model: str = "stub-1", fingerprint: str = "fp_7") -> Reply:
    """A chat completion as servers send it."""
    message = {"role": "assistant", "content": text}
    reply = {"model": model, "system_fingerprint": fingerprint, "choices": [{"index": 0, "message": message}]}
    return Reply(body=json.dumps(reply).encode())


class Stub(ThreadingHTTPServer):
    """Gives its replies in order, the last one for ever; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, replies: Sequence[Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies, self.lock = list(replies), threading.Lock()
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Up to the version."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has given up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append({"path": self.path, "headers": dict(self.headers), "body": body})
            reply = self.server.replies[0]
            if len(self.server.replies) > 1:
                self.server.replies.pop(0)
        time.sleep(reply.delay)
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(*replies: Reply) -> Iterator[Stub]:
    """A stub that listens until the block ends."""
    stub = Stub(replies)
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        stub.shutdown()
        thread.join()
        stub.server_close()
