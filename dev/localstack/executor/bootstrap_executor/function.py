"""The process of a function, and what becomes of an event that it is handed."""

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
INIT_S = 10
END_S = 2


class NoAnswerError(Exception):
    """The function gave no answer; the payload says why, as Lambda says it."""

    # What it logged, where it did not start.
    logs = ""

    def __init__(self, error_type: str, message: str) -> None:
        """Write the payload."""
        super().__init__(message)
        self.payload = json.dumps({"errorType": error_type, "errorMessage": message}).encode()


class Function:
    """A running bootstrap that asks for events."""

    def __init__(self, code: Path, environment: dict[str, str]) -> None:
        """Start it, and wait for its first question."""
        self._runtime = RuntimeApi()
        # A file, because it is complete when the answer is there; a pipe may lag behind.
        self._logs = TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
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
        Thread(target=self._wait_until_gone, daemon=True).start()
        self._wait_for_first_poll()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def invoke(self, payload: dict[str, str], timeout_s: float) -> tuple[bytes, bool]:
        """Hand over an event; return the answer, and whether the function called it an error."""
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
                match self._runtime.said.get(timeout=max(0, deadline - monotonic())):
                    case Answer(id_, body, is_error) if id_ == request_id:
                        return body, is_error
                    case Exited(how):
                        message = f"RequestId: {request_id} Error: Runtime exited with error: {how}"
                        raise NoAnswerError("Runtime.ExitError", message)
        except Empty:
            self.stop()  # Lambda does not let a function go on that is late
            message = f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds"
            raise NoAnswerError("Sandbox.Timedout", message) from None

    def new_logs(self) -> str:
        """Return what the process wrote since this was last asked."""
        size = os.fstat(self._logs.fileno()).st_size
        logs = os.pread(self._logs.fileno(), size - self._logs_read, self._logs_read)
        self._logs_read = size
        return logs.decode(errors="replace")

    def stop(self) -> None:
        """End the process and its Runtime API; the logs can still be read."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._runtime.close()

    def _wait_for_first_poll(self) -> None:
        try:
            said = self._runtime.said.get(timeout=INIT_S)
        except Empty:
            said = Exited(f"no event was asked for in {INIT_S} s")
        if said != Polled():
            self.stop()
            error = _why(said)
            error.logs = self.new_logs()
            raise error

    def _wait_until_gone(self) -> None:
        status = self._process.wait()
        how = f"exit status {status}" if status >= 0 else f"signal {-status}"
        self._runtime.said.put(Exited(how))


def _why(said: object) -> NoAnswerError:
    """Turn what a function said instead of polling into the error that Lambda reports."""
    match said:
        case NotStarted(body):
            error = json.loads(body)
            return NoAnswerError(
                error.get("errorType", "Runtime.Unknown"), error.get("errorMessage", "")
            )
        case Exited(how):
            return NoAnswerError("Runtime.ExitError", f"Error: Runtime exited with error: {how}")
    return NoAnswerError("Runtime.Unknown", "the function answered before it was asked")
