"""LocalStack: nearer to AWS in how a queue is polled, an answer judged and an alarm raised.

Without Docker it cannot run a function; `executor/` is what does it. It does not enforce roles.
"""

from pathlib import Path

from dev import TARGET

PYTHON = TARGET / "tools" / "localstack" / "bin" / "python"
COMMAND = [PYTHON, "-m", "localstack.runtime.main"]
HEALTH = "/_localstack/health"
# The SQLite file of its CloudWatch, in the directory that it is started in.
METRICS = "localstack/state/cloudwatch/metrics.db"


def settings(directory: Path, port: int) -> dict[str, str]:
    """Tell it where to listen and keep its state, to stay off the network, and not to wait."""
    if not PYTHON.exists():
        raise SystemExit("There is no LocalStack yet: run `make test-localstack`.")
    here = f"127.0.0.1:{port}"
    return {
        "GATEWAY_LISTEN": here,
        "LOCALSTACK_HOST": here,
        # Its other server listens on every interface.
        "GATEWAY_SERVER": "hypercorn",
        "SQS_ENDPOINT_STRATEGY": "path",
        "LAMBDA_RUNTIME_EXECUTOR": "bootstrap",
        "XDG_CACHE_HOME": str(directory),
        "DNS_ADDRESS": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "USE_SSL": "0",
        # Seconds, where its defaults are 1, 10 and 60: so often it polls a queue, looks again into
        # one that was empty, and writes its metrics.
        "LAMBDA_EVENT_SOURCE_MAPPING_POLL_INTERVAL_SEC": "0.2",
        "LAMBDA_EVENT_SOURCE_MAPPING_MAX_BACKOFF_ON_EMPTY_POLL_SEC": "1",
        "SQS_CLOUDWATCH_METRICS_REPORT_INTERVAL": "1",
    }
