"""MiniStack: quick and small, and it enforces the execution role."""

import sys
from pathlib import Path

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
