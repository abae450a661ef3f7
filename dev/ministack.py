"""MiniStack: quick and small, and it enforces the execution role."""

import hashlib
import sys
from pathlib import Path

from botocore.credentials import Credentials

COMMAND = [sys.executable, "-m", "ministack"]
HEALTH = "/_ministack/health"


def settings(directory: Path, port: int) -> dict[str, str]:
    """Tell it where to listen and to keep its state."""
    return {
        "STATE_DIR": str(directory),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "AUTH": "true",
    }


def credentials(function_arn: str, role_arn: str) -> Credentials:
    """Tell the keys that it gives a function, which it makes of these two and shows nobody else."""
    digest = hashlib.sha256(f"{function_arn}:{role_arn}".encode()).hexdigest()
    return Credentials(
        f"ASIA{digest[:16].upper()}",
        hashlib.sha256(f"secret:{digest}".encode()).hexdigest(),
        hashlib.sha256(f"token:{digest}".encode()).hexdigest(),
    )
