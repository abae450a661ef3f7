"""Lambda's Runtime API: runs a program as Lambda does, and invokes it."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

ROOT = "/2018-06-01/runtime"


@dataclass(frozen=True)
class RunningFunction:
    """A program that waits for events."""

    log: Path
    _events: Queue[dict[str, Any] | None] = field(default_factory=Queue)
    _results: Queue[dict[str, Any]] = field(default_factory=Queue)

    def invoke(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to an event."""
        self._events.put(event)
        return self._results.get(timeout=60)

    def lines(self) -> list[dict[str, Any]]:
        """Read the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def running_function(
    program: Path, variables: Mapping[str, str], log: Path
) -> Iterator[RunningFunction]:
    """Start the program with these variables."""
    function = RunningFunction(log)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            event = function._events.get()
            if event is not None:
                self._answer(200, json.dumps(event).encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(202, b"")
            function._results.put(json.loads(body))

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header(
                "Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
            )
            self.send_header("Lambda-Runtime-Deadline-Ms", "4102444800000")
            arn = "arn:aws:lambda:eu-central-1:123456789012:function:api"
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with (
        log.open("wb") as output,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
    ):
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": "api",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        process = subprocess.Popen([program], env=environment | dict(variables), stdout=output)
        try:
            yield function
        finally:
            process.kill()
            process.wait()
            # Ends the request for the next event.
            function._events.put(None)
            server.shutdown()
            thread.join()
