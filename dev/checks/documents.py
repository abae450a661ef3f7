"""Runs the commands of the README's table as a newcomer types them; what may take long, shortly."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from dev import ROOT

# In the order in which one would type them; with what they print where all is well.
PRINTS = {
    "make run": "99 rows in the table and 1 message(s) in the dead-letter queue",
    "make up": "psql as an analyst",
    "make send": "100 sent: 99 new rows and 1 new dead letter(s)",
    "make report": "Wrote the metrics of",
    "make invoke": "batchItemFailures",
    "make down": "The system is stopped.",
    "make torture": "0 lost, 0 duplicated, 0 leaked",
    "make fuzz": "stat::number_of_executed_units",
}
LEFT_OUT = {
    "make watch": "it runs beside `make invoke`",
    "make top": "it runs until it is interrupted",
    "make test": "it is run on its own, as is what follows",
    "make test-localstack": "",
    "make check": "",
    "make validate": "",
    "make bench": "it builds everything once more",
    "make reproduce": "it builds everything twice more",
    "make zip": "it builds everything once more",
    "make image": "it wants Docker",
    "make smoke": "it wants a stack on AWS",
    "make logs": "as do these",
    "make redrive": "",
    "make rotate": "",
    "make delete": "",
}
SECONDS = "10"
PATIENCE_S = 900


def commands() -> dict[str, str]:
    """Read the table: each command as it is there, by its first two words."""
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (`make .*?) \|", f"{text}\n", re.MULTILINE)
    written = ["make run", *(one for row in rows for one in re.findall(r"`(make [^`]+)`", row))]
    return {" ".join(command.split()[:2]): command for command in written}


def run(command: str) -> str:
    """Run a command to its end, and return what it printed."""
    done = subprocess.run(
        _short(command),
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{command}: exit status {done.returncode}")
    return done.stdout


@contextmanager
def watching() -> Iterator[None]:
    """Keep `make watch` running, and end it as Ctrl-C does."""
    log = ROOT / "target" / "watch.log"
    with log.open("w") as output:
        watch = subprocess.Popen(
            ["make", "watch"],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(watch.pid, signal.SIGINT)
            watch.wait(timeout=30)


def main() -> int:
    """Run them all; the first that fails, or says something else than it should, ends it."""
    there = commands()
    if strangers := set(there) ^ (set(PRINTS) | set(LEFT_OUT)):
        raise SystemExit(f"only one of README.md and {__file__} knows: {', '.join(strangers)}")
    for name, expected in PRINTS.items():
        started = monotonic()
        if name == "make invoke":
            with watching():
                printed = run(there[name])
        else:
            printed = run(there[name])
        if expected not in printed:
            raise SystemExit(f"{printed}\n{there[name]}: does not say {expected!r}")
        print(f"{monotonic() - started:6.1f} s  {shlex.join(_short(there[name]))}", flush=True)
    return 0


def _short(command: str) -> list[str]:
    return [re.sub(r"^SECONDS=.*", f"SECONDS={SECONDS}", word) for word in shlex.split(command)]


def _environment() -> dict[str, str]:
    """Leave out what make tells the makes that it starts: these are to stand alone."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


if __name__ == "__main__":
    sys.exit(main())
