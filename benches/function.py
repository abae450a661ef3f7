"""A function's process and the Runtime API that it polls.

It uses raw sockets: a small batch takes 0.5 ms, and Python's HTTP server would add another 0.5 ms.
The API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.
"""

import ctypes
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from benches import RESULTS
from dev import processes
from dev.processes import Process

INVOCATION_TIMEOUT_S = 60


@dataclass
class Function:
    """A running function that waits for its next event."""

    process: Process
    runtime: "RuntimeApi"
    cold_start_s: float

    def invoke(self, event: bytes, failures: int = 0) -> float:
        """Send an event; return the seconds until the answer.

        Another number of failed messages than expected is an error.
        """
        elapsed_s, answer = self.runtime.invoke(event)
        if not isinstance(answer, dict) or len(answer.get("batchItemFailures", "?")) != failures:
            raise RuntimeError(f"the function failed, see {RESULTS}: {answer}")
        return elapsed_s

    @property
    def cpu_s(self) -> float:
        """The CPU time that the process has used."""
        return cpu_s(self.process.pid)

    @property
    def peak_mib(self) -> float:
        """The process's peak resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


@contextmanager
def running(command: Sequence[str | Path], environment: Mapping[str, str]) -> Iterator[Function]:
    """Start a function, wait for its first poll, and stop it at the end."""
    with RuntimeApi() as runtime:
        lambda_variables = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime.port}",
            "AWS_LAMBDA_FUNCTION_NAME": "bench",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        }
        log = RESULTS / f"{Path(command[-1]).name}.log"
        started = time.perf_counter()
        process = processes.start(
            command, log=log, cwd=RESULTS, env={**environment, **lambda_variables}
        )
        try:
            processes.wait_until(runtime.accepts_function, log.stem, process, log)
            runtime.wait_for_poll()
            yield Function(process, runtime, time.perf_counter() - started)
        finally:
            processes.stop(process)


def cpu_s(pid: int) -> float:
    """Read the CPU time of a process in nanoseconds; /proc counts in units of 10 ms.

    See https://man7.org/linux/man-pages/man3/clock_getcpuclockid.3.html.
    """
    clock = ctypes.c_int()
    if error := ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, f"the CPU time of process {pid} cannot be read")
    return time.clock_gettime(clock.value)


@dataclass
class RuntimeApi:
    """The Runtime API of one function, which keeps a single connection to it."""

    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _connection: socket.socket | None = None
    _requests: BinaryIO | None = None

    def __enter__(self) -> "RuntimeApi":
        """Listen."""
        self._listener.settimeout(1)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sockets."""
        for opened in (self._requests, self._connection, self._listener):
            if opened is not None:
                opened.close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.getsockname()[1]

    def accepts_function(self) -> bool:
        """Wait up to a second for the function's connection; return whether it is there."""
        with suppress(TimeoutError):
            self._connection, _ = self._listener.accept()
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.settimeout(INVOCATION_TIMEOUT_S)
            self._requests = self._connection.makefile("rb")
        return self._connection is not None

    def wait_for_poll(self) -> None:
        """Wait until the function requests its next event."""
        path, body = self._read()
        if not path.endswith("/next"):
            raise RuntimeError(f"the function did not poll, but sent to {path}: {body!r}")

    def invoke(self, event: bytes) -> tuple[float, object]:
        """Send an event; return the seconds until the answer, and the answer.

        Waits for the next poll, so that the next event is answered without delay.
        """
        head = (
            "HTTP/1.1 200 OK\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {uuid4()}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {int((time.time() + INVOCATION_TIMEOUT_S) * 1000)}\r\n"
            "Lambda-Runtime-Invoked-Function-Arn: "
            "arn:aws:lambda:us-east-1:123456789012:function:bench\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(event)}\r\n\r\n"
        )
        message = head.encode() + event
        started = time.perf_counter()
        self._connection.sendall(message)
        self._requests.peek(1)
        elapsed_s = time.perf_counter() - started
        _, body = self._read()
        self._connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        self.wait_for_poll()
        return elapsed_s, json.loads(body)

    def _read(self) -> tuple[str, bytes]:
        """Read a request, whose body may be chunked; return its path and body."""
        first = self._requests.readline()
        if not first:
            raise RuntimeError(f"the function has ended; its log is in {RESULTS}")
        headers = {}
        while line := self._requests.readline().strip().lower():
            name, _, value = line.partition(b":")
            headers[name] = value.strip()
        _method, path, _version = first.decode().split()
        if headers.get(b"transfer-encoding") == b"chunked":
            return path, b"".join(self._chunks())
        return path, self._requests.read(int(headers.get(b"content-length", 0)))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._requests.readline(), 16):
            yield self._requests.read(size)
            self._requests.readline()
        self._requests.readline()
