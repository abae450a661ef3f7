"""Runs the functions of a LocalStack that has no Docker: `LAMBDA_RUNTIME_EXECUTOR=bootstrap`."""

from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin

from bootstrap_executor.executor import BootstrapExecutor


class BootstrapExecutorPlugin(RuntimeExecutorPlugin):
    """What LocalStack finds by the entry point."""

    name = "bootstrap"

    def load(self) -> type[BootstrapExecutor]:
        """Return the class of which LocalStack makes one for each execution environment."""
        return BootstrapExecutor
