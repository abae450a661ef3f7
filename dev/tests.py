"""Runs the tests in Python, in two groups at the same time.

A test mostly waits for its servers and for the emulator, which uses one processor. What the second
group prints follows when the first has ended.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from dev import TARGET
from dev.processes import exit_on_signals

Command = list[str]
# tests/lake first: it runs the program `export`, which test_sam.py, a late test of the other group,
# builds again.
SHARED: list[Command] = [["pytest", "tests/lake"], ["pytest", "tests/e2e", "-m", "shared_system"]]
OWN: list[Command] = [
    ["pytest", "tests/e2e", "-m", "not shared_system"],
    ["pytest", "tests/analysts"],
]


class Group:
    """Commands that run one after the other, until one fails."""

    process: subprocess.Popen[bytes] | None = None

    def succeeds(self, commands: list[Command], output: IO[bytes] | None = None) -> bool:
        """Run the commands."""
        for command in commands:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
            if self.process.wait():
                return False
        return True

    def stop(self) -> None:
        """Tell the running command to end."""
        if self.process and self.process.poll() is None:
            self.process.terminate()


def main() -> int:
    """Run both groups; return 1 if a test fails."""
    exit_on_signals()
    log = TARGET / "tests.log"
    print(f"Other tests run at the same time. Their output goes to {log}.", flush=True)
    shared, own = Group(), Group()
    with log.open("wb") as output, ThreadPoolExecutor() as pool:
        others = pool.submit(own.succeeds, OWN, output)
        try:
            succeeded = shared.succeeds(SHARED)
            succeeded = others.result() and succeeded
        finally:
            shared.stop()
            own.stop()
    print(log.read_text())
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
