"""The command behind `make demo`."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from dev import ROOT
from dev.demo import RINGS

pytestmark = pytest.mark.without_emulator


def test_demo_serves_until_interrupted() -> None:
    command = [sys.executable, "-m", "dev", "demo", "--rows", "10000"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        printed = ""
        while "psql as an analyst" not in printed and (line := process.stdout.readline()):
            printed += line
        try:
            [address] = re.findall(r"page and API  (http://\S+)", printed)
            [authority] = re.findall(r"sslrootcert=([^']+)'", printed)
            [token] = re.findall(r"a chain of 8 users  ([0-9a-f]{64})", printed)
            with urlopen(f"{address}/tokens/{token}") as page:
                status = page.status
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=60)

    assert all(shape in printed for shape in RINGS)
    assert status == 200
    assert process.returncode == 128 + signal.SIGINT
    assert not Path(authority).exists()


def test_demo_with_few_rows_is_refused() -> None:
    command = [sys.executable, "-m", "dev", "demo", "--rows", "9999"]

    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert refused.returncode == 1
    assert refused.stderr == "ROWS must be at least 10,000.\n"
