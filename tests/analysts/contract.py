"""Runs Schemathesis: requests made from the document, and checks of each answer.

All checks and all phases run; nothing is excluded or suppressed. The dictionaries only replace some
random values by values that the database has: no random token is in it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from analysts import sample
from analysts.server import TIMEOUT_S, Api

# Their values occur in the answers of the sample, so that the stateful phase follows the links.
TOKENS = [
    sample.HOSTILE_DEVICE,
    sample.HOSTILE_ADDRESS,
    sample.HUB_DEVICE,
    sample.CROWDED_DEVICE,
    *sample.RING,
]
CONFIGURATION = """
[warnings]
fail-on = true

[dictionaries]
tokens = {{ values = {tokens} }}
users = {{ values = {users} }}
days = {{ values = {days} }}

[parameters]
"path.token" = {{ dictionary = "tokens", probability = 0.5 }}
"path.ring" = {{ dictionary = "tokens", probability = 0.5 }}
"query.day" = {{ dictionary = "days", probability = 0.5 }}
"body.user_id" = {{ dictionary = "users", probability = 0.5 }}
"body.day" = {{ dictionary = "days", probability = 0.5 }}
"""


def run(api: Api, directory: Path, examples: int, seed: int) -> dict[str, Any]:
    """Run all phases with this many examples an operation; return Schemathesis's report.

    What Schemathesis prints is in `output.txt`. The directory must be new or empty: Schemathesis
    repeats what it finds in its folder, and then equal seeds would not make equal requests.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "schemathesis.toml").write_text(_configuration())
    report = directory / "report.json"
    with (directory / "output.txt").open("w") as output:
        ended = subprocess.run(
            [
                *(
                    Path(sys.executable).with_name("st"),
                    "--config-file",
                    "schemathesis.toml",
                    "run",
                ),
                f"{api.url}/openapi.json",
                *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
                *("--mode", "all", "--max-examples", str(examples), "--seed", str(seed)),
                *("--generation-database", "none", "--request-timeout", str(TIMEOUT_S)),
                *("--report-json-path", report, "--no-color"),
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    if not report.exists():
        raise RuntimeError(f"Schemathesis ended with status {ended.returncode}; see {output.name}")
    result = json.loads(report.read_text())
    return result | {"exit_code": ended.returncode}


def _configuration() -> str:
    printable = [user for user in sample.HOSTILE_USERS if user.isprintable()]
    days = [sample.THROUGH.isoformat(), "0001-01-01", "9999-12-31"]
    return CONFIGURATION.format(
        tokens=json.dumps(TOKENS),
        users=json.dumps([*sample.RING_USERS, *printable], ensure_ascii=False),
        days=json.dumps(days),
    )
