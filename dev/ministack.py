"""MiniStack: a fast, small emulator that enforces execution roles."""

import hashlib
import sys
from pathlib import Path

from botocore.credentials import Credentials

PYTHON = Path(sys.executable)
MODULE = "ministack"
HEALTH = "/_ministack/health"


def settings(directory: Path, port: int) -> dict[str, str]:
    """Return the settings for its port and its state directory."""
    return {
        "STATE_DIR": str(directory),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "AUTH": "true",
        # Otherwise its MQTT listener listens on every interface.
        "IOT_MTLS_ENABLED": "0",
    }


def credentials(function_arn: str, role_arn: str) -> Credentials:
    """Compute the credentials that MiniStack gives a function, which no API returns."""
    digest = hashlib.sha256(f"{function_arn}:{role_arn}".encode()).hexdigest()
    return Credentials(
        f"ASIA{digest[:16].upper()}",
        hashlib.sha256(f"secret:{digest}".encode()).hexdigest(),
        hashlib.sha256(f"token:{digest}".encode()).hexdigest(),
    )
