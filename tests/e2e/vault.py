"""Runs the commands of `login-etl` that call the vault."""

import subprocess
from pathlib import Path

from e2e.program import PROGRAM, Run


def run(home: Path, url: str, *arguments: str, typed: str | bytes = "", **variables: str) -> Run:
    """Run a command with this standard input, and with no more variables than it needs."""
    done = subprocess.run(
        [PROGRAM, *arguments, "--url", url],
        cwd=home,
        env={"HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", **variables},
        input=typed if isinstance(typed, bytes) else typed.encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())
