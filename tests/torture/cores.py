"""Core files: a process that aborts must not write its memory to the disk."""

import shutil
import signal
import subprocess
from pathlib import Path

import psutil

from torture import RESULTS

# The working directory of the functions and of migrate, where Linux writes core files.
WORKING = RESULTS / "working"
# Where a program aborts that does not keep its memory private.
CONTROL = RESULTS / "control"


def prepare() -> bool:
    """Empty the directories; return whether a program that aborts here leaves a core file."""
    for directory in (WORKING, CONTROL):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    control = subprocess.Popen(["sleep", "60"], cwd=CONTROL)
    allow(control.pid)
    control.send_signal(signal.SIGABRT)
    control.wait()
    return bool(files(CONTROL))


def allow(pid: int) -> None:
    """Let a process write core files, as `ulimit -c unlimited` does."""
    if hasattr(psutil, "RLIMIT_CORE"):
        process = psutil.Process(pid)
        _soft, hard = process.rlimit(psutil.RLIMIT_CORE)
        process.rlimit(psutil.RLIMIT_CORE, (hard, hard))


def files(directory: Path = WORKING) -> list[Path]:
    """Return the core files, of whatever name: nothing else is written there."""
    return [file for file in directory.rglob("*") if file.is_file()]
