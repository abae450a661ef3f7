"""An execution environment, behind LocalStack's interface."""

from contextlib import suppress
from time import monotonic

from localstack import config
from localstack.services.lambda_.invocation.lambda_models import FunctionVersion, InvocationResult
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor

from bootstrap_executor.function import Function, NoAnswerError

LOOPBACK = "127.0.0.1"


class BootstrapExecutor(RuntimeExecutor):
    """Keeps one process of a function warm, and replaces it when it has ended, as Lambda does."""

    def __init__(self, id: str, function_version: FunctionVersion) -> None:  # noqa: A002 (LocalStack's name)
        """Store the version; `start` starts the process."""
        super().__init__(id=id, function_version=function_version)
        self._environment: dict[str, str] = {}
        self._function: Function | None = None

    def start(self, env_vars: dict[str, object]) -> None:
        """Start the process, and wait for its first poll.

        Without a poll, the next invocation starts it again and reports the error, as on Lambda.
        """
        self._environment = {name: str(value) for name, value in env_vars.items()}
        with suppress(NoAnswerError):
            self._function = self._start()

    def stop(self) -> None:
        """End the process."""
        if self._function is not None:
            self._function.stop()

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        """Send an event; return the answer and the log of the invocation."""
        request_id = payload["invoke-id"]
        started = monotonic()
        logged = ""
        try:
            if self._function is None or not self._function.alive:
                self._function = self._start()
            answer, is_error = self._function.invoke(payload, self.function_version.config.timeout)
        except NoAnswerError as error:
            answer, is_error, logged = error.payload, True, error.logs
        elapsed_ms = (monotonic() - started) * 1000
        logs = (
            f"START RequestId: {request_id} Version: {self.function_version.id.qualifier}\n"
            f"{logged}{self.get_logs()}"
            f"END RequestId: {request_id}\n"
            f"REPORT RequestId: {request_id}\tDuration: {elapsed_ms:.2f} ms"
        )
        return InvocationResult(request_id, answer, is_error=is_error, logs=logs)

    def get_logs(self) -> str:
        """Return the log since the last call."""
        return self._function.new_logs() if self._function is not None else ""

    def get_address(self) -> str:
        """Return the function's address, for LocalStack."""
        return LOOPBACK

    def get_endpoint_from_executor(self) -> str:
        """Return LocalStack's address, for the function."""
        return LOOPBACK

    def get_runtime_endpoint(self) -> str:
        """Return the URL for LocalStack's own init process, which this executor does not use."""
        return f"http://{LOOPBACK}:{config.GATEWAY_LISTEN[0].port}/_localstack_lambda/{self.id}"

    @classmethod
    def prepare_version(cls, function_version: FunctionVersion) -> None:
        """Unzip the code."""
        function_version.config.code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: FunctionVersion) -> None:
        """Leave the unzipped code to LocalStack, which removes it with the version."""

    def _start(self) -> Function:
        code = self.function_version.config.code.get_unzipped_code_location()
        return Function(code, self._environment)
