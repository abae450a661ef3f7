"""LocalStack: closer to AWS than MiniStack in polling, answers and alarms; enforces no roles.

LocalStack runs functions in Docker. Without Docker, the plugin in `executor/` runs them.
"""

from pathlib import Path

from dev import TARGET

PYTHON = TARGET / "tools" / "localstack" / "bin" / "python"
MODULE = "localstack.runtime.main"
HEALTH = "/_localstack/health"
# The SQLite file of its CloudWatch, relative to its working directory.
METRICS = "localstack/state/cloudwatch/metrics.db"


def settings(directory: Path, port: int) -> dict[str, str]:
    """Return the settings for its port and state directory: no network access, short intervals."""
    if not PYTHON.exists():
        raise SystemExit("LocalStack is not installed. Run: make test-localstack")
    address = f"127.0.0.1:{port}"
    return {
        "GATEWAY_LISTEN": address,
        "LOCALSTACK_HOST": address,
        # The default server listens on every interface.
        "GATEWAY_SERVER": "hypercorn",
        "SQS_ENDPOINT_STRATEGY": "path",
        "LAMBDA_RUNTIME_EXECUTOR": "bootstrap",
        "XDG_CACHE_HOME": str(directory),
        "DNS_ADDRESS": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "USE_SSL": "0",
        # LocalStack's own requests have well-known access keys, so they must not use the network.
        "IN_MEMORY_CLIENT": "1",
        # In seconds: how often it polls a queue, polls an empty queue at most, and writes metrics.
        # The defaults are 1, 10 and 60.
        "LAMBDA_EVENT_SOURCE_MAPPING_POLL_INTERVAL_SEC": "0.2",
        "LAMBDA_EVENT_SOURCE_MAPPING_MAX_BACKOFF_ON_EMPTY_POLL_SEC": "1",
        "SQS_CLOUDWATCH_METRICS_REPORT_INTERVAL": "1",
    }
