"""Runs documented commands of AWS on a stack of the tests."""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping

from dev import ROOT, TARGET
from dev.emulator import Emulator

AWS = TARGET / "tools" / "deploy" / "bin" / "aws"
# The stacks that the documents take as their examples.
EXAMPLES = re.compile(r"(?<=--stack-name )login-etl-(dev|prod)\b")


def run(
    emulator: Emulator, stack: str, command: str, values: Mapping[str, str] | None = None
) -> str:
    """Replace the stack and the placeholders of a command, run it, and return what it prints."""
    command = EXAMPLES.sub(stack, command)
    command = re.sub(r"<([^>]+)>", lambda found: (values or {})[found[1]], command)
    program, *arguments = shlex.split(command)
    assert program == "aws"
    done = subprocess.run(
        [AWS, *arguments, "--endpoint-url", emulator.endpoint],
        check=False,
        cwd=ROOT,
        env=emulator.environment
        | {"AWS_DEFAULT_REGION": emulator.environment["AWS_REGION"], "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout
