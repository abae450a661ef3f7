"""A LocalStack plugin that runs functions without Docker: `LAMBDA_RUNTIME_EXECUTOR=bootstrap`."""

from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin

from bootstrap_executor.executor import BootstrapExecutor


class BootstrapExecutorPlugin(RuntimeExecutorPlugin):
    """The class of the plugin's entry point, by which LocalStack finds it."""

    name = "bootstrap"

    def load(self) -> type[BootstrapExecutor]:
        """Return the class of an execution environment."""
        return BootstrapExecutor
