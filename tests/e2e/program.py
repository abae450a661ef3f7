"""Runs `login-etl`, the program for operators, against the emulator."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev import TARGET
from dev.emulator import Emulator

PROGRAM = TARGET / "debug" / "login-etl"


@dataclass(frozen=True)
class Run:
    """A run that ended."""

    status: int
    output: str
    progress: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON document that it printed."""
        return json.loads(self.output)


def start(
    emulator: Emulator,
    *arguments: str,
    endpoint: str | None = None,
    directory: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start the program, without a terminal. Variables change its environment."""
    if not PROGRAM.exists():
        raise SystemExit("login-etl is not built. Run: cargo test --locked --workspace --no-run")
    return subprocess.Popen(
        [PROGRAM, *arguments],
        cwd=directory,
        env=environment(emulator)
        | {"AWS_ENDPOINT_URL": endpoint or emulator.endpoint}
        | dict(variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment(emulator: Emulator) -> dict[str, str]:
    """Return the environment that points the program to the emulator."""
    return emulator.environment | {"AWS_EC2_METADATA_DISABLED": "true", "PATH": os.environ["PATH"]}


def end(process: subprocess.Popen[str], sent: signal.Signals | None = None) -> Run:
    """Send a signal, if one is given, and wait for the end."""
    if sent is not None:
        process.send_signal(sent)
    output, progress = process.communicate(timeout=120)
    return Run(process.returncode, output, progress)


def run(emulator: Emulator, *arguments: str) -> Run:
    """Run the program to its end."""
    return end(start(emulator, *arguments))
