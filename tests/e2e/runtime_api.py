"""A server for Lambda's Runtime API: it hands events to a function and receives the responses."""

import json
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HEADERS = {
    "Content-Type": "application/json",
    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:orderflow",
    "Lambda-Runtime-Trace-Id": "Root=1-65e0c0de-00112233445566778899aabb;Parent=0011223344556677;Sampled=0",
}
"""Headers that the real API always sends; without the trace id the runtime client crashes."""


class RuntimeApi(ThreadingHTTPServer):
    """The Runtime API of one function, on the loopback interface."""

    daemon_threads = True

    def __init__(self, timeout_seconds: float = 60) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.timeout_seconds = timeout_seconds
        """The function's configured timeout."""
        self.events: queue.Queue[Any] = queue.Queue()
        self.outcomes: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.polls: queue.Queue[None] = queue.Queue()
        """One entry for each time that the function has asked for an event, and so was idle."""

    @property
    def address(self) -> str:
        """The value for AWS_LAMBDA_RUNTIME_API."""
        return f"127.0.0.1:{self.server_port}"

    def invoke(self, event: object, *, seconds: float = 60) -> Any:
        """The function's response to the event; an AssertionError with its error if it raises."""
        self.events.put(event)
        kind, outcome = self.outcomes.get(timeout=seconds)
        assert kind == "response", outcome
        return outcome


class _Handler(BaseHTTPRequestHandler):
    server: RuntimeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits for the acknowledgement of the headers

    def do_GET(self) -> None:
        self.server.polls.put(None)
        body = json.dumps(self.server.events.get()).encode()
        self.send_response(200)
        for name, value in {**HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        deadline = time.time() + self.server.timeout_seconds
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int(deadline * 1000)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", str(uuid.uuid4()))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.outcomes.put((self.path.rpartition("/")[2], json.loads(body or b"null")))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def runtime_api() -> Iterator[RuntimeApi]:
    """A Runtime API until the block ends."""
    api = RuntimeApi()
    threading.Thread(target=api.serve_forever, daemon=True).start()
    try:
        yield api
    finally:
        api.shutdown()
        api.server_close()
