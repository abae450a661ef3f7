"""A function's process, and the answers to its events."""

import json
import os
import subprocess
from pathlib import Path
from queue import Empty
from tempfile import TemporaryFile
from threading import Thread
from time import monotonic, time

from bootstrap_executor.runtime_api import Answer, Event, Exited, NotStarted, Polled, RuntimeApi

# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
INIT_TIMEOUT_S = 10
STOP_TIMEOUT_S = 2


class NoAnswerError(Exception):
    """The function gave no answer; the payload is the error that Lambda reports."""

    # The log of a process that did not start.
    logs = ""

    def __init__(self, error_type: str, message: str) -> None:
        """Make the payload."""
        super().__init__(message)
        self.payload = json.dumps({"errorType": error_type, "errorMessage": message}).encode()


class Function:
    """A running bootstrap."""

    def __init__(self, code: Path, environment: dict[str, str]) -> None:
        """Start the process, and wait for its first poll."""
        self._runtime = RuntimeApi()
        # A file is complete when the answer arrives; a pipe may lag behind.
        self._logs = TemporaryFile()  # noqa: SIM115 (it stays open as long as the process runs)
        self._logs_read = 0
        self._process = subprocess.Popen(
            [code / "bootstrap"],
            cwd=code,
            env={
                "PATH": os.defpath,
                "LANG": "en_US.UTF-8",
                **environment,
                "LAMBDA_TASK_ROOT": str(code),
                "AWS_LAMBDA_RUNTIME_API": self._runtime.address,
            },
            stdin=subprocess.DEVNULL,
            stdout=self._logs,
            stderr=self._logs,
        )
        Thread(target=self._wait_for_exit, daemon=True).start()
        self._wait_for_first_poll()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def invoke(self, payload: dict[str, str], timeout_s: float) -> tuple[bytes, bool]:
        """Send an event; return the answer, and whether it is an error."""
        request_id = payload["invoke-id"]
        self._runtime.send(
            Event(
                request_id,
                payload["payload"].encode(),
                {
                    "Lambda-Runtime-Deadline-Ms": f"{(time() + timeout_s) * 1000:.0f}",
                    "Lambda-Runtime-Invoked-Function-Arn": payload["invoked-function-arn"],
                    "Lambda-Runtime-Trace-Id": payload.get("trace-id", ""),
                },
            )
        )
        deadline = monotonic() + timeout_s
        try:
            while True:
                match self._runtime.received.get(timeout=max(0, deadline - monotonic())):
                    case Answer(id_, body, is_error) if id_ == request_id:
                        return body, is_error
                    case Exited(cause):
                        message = (
                            f"RequestId: {request_id} Error: Runtime exited with error: {cause}"
                        )
                        raise NoAnswerError("Runtime.ExitError", message)
        except Empty:
            self.stop()  # as Lambda does
            message = f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds"
            raise NoAnswerError("Sandbox.Timedout", message) from None

    def new_logs(self) -> str:
        """Return what the process has logged since the last call."""
        size = os.fstat(self._logs.fileno()).st_size
        logs = os.pread(self._logs.fileno(), size - self._logs_read, self._logs_read)
        self._logs_read = size
        return logs.decode(errors="replace")

    def stop(self) -> None:
        """Stop the process and its Runtime API; the log can still be read."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._runtime.close()

    def _wait_for_first_poll(self) -> None:
        try:
            request = self._runtime.received.get(timeout=INIT_TIMEOUT_S)
        except Empty:
            request = Exited(f"no event was requested in {INIT_TIMEOUT_S} s")
        if request != Polled():
            self.stop()
            error = _start_error(request)
            error.logs = self.new_logs()
            raise error

    def _wait_for_exit(self) -> None:
        status = self._process.wait()
        cause = f"exit status {status}" if status >= 0 else f"signal {-status}"
        self._runtime.received.put(Exited(cause))


def _start_error(request: object) -> NoAnswerError:
    """Return the error that Lambda reports for a function that did not poll."""
    match request:
        case NotStarted(body):
            error = json.loads(body)
            return NoAnswerError(
                error.get("errorType", "Runtime.Unknown"), error.get("errorMessage", "")
            )
        case Exited(cause):
            return NoAnswerError("Runtime.ExitError", f"Error: Runtime exited with error: {cause}")
    return NoAnswerError("Runtime.Unknown", "the function answered before it received an event")
