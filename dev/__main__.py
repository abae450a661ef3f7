"""The commands behind the Makefile: `python -m dev --help`."""

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn

from pydantic import TypeAdapter

from dev import EVENTS, TARGET, local_system, log_metrics, processes, report_page, terminal
from dev import logs as function_logs
from dev.local_system import LocalSystem
from dev.terminal import console

LOCAL = TARGET / "local"
STATE = LOCAL / "system.json"
WATCH_PORT = LOCAL / "watch-port"
WATCH_PATIENCE_S = 15
QUEUE = EVENTS / "login-queue.jsonl"
EXPECTED = 99, 1  # rows, dead letters
LAST_RUN = TARGET / "run" / "function.log"
PAGE = TARGET / "report.html"

_system_json = TypeAdapter(LocalSystem)


def run() -> int:
    """Start everything, send the hundred logins, show what became of them, stop everything."""
    started = monotonic()
    logs = TARGET / "run"
    console.print("Starting Postgres and the emulator, and creating the stack")
    with local_system.running(logs) as system:
        rows, dead = terminal.send(system, QUEUE.read_text().splitlines())
        terminal.show(system)
        LAST_RUN.write_text("\n".join(function_logs.lines(system.emulator, system.stack)))
    console.print(
        f"{rows} rows in the table and {dead} message(s) in the dead-letter queue, "
        f"in {monotonic() - started:.1f} s"
    )
    if (rows, dead) != EXPECTED:
        console.print(
            f"It should have been {EXPECTED[0]} and {EXPECTED[1]}; the logs are in {logs}"
        )
        return 1
    return 0


def up() -> int:
    """Start everything, leave it running, and tell how to reach it."""
    if system := _find():
        console.print("It is up already.")
        _tell(system)
        return 0
    down()
    console.print("Starting Postgres and the emulator, and creating the stack")
    system = local_system.start(LOCAL / "logs")
    STATE.touch(mode=0o600)  # it holds passwords
    STATE.write_bytes(_system_json.dump_json(system, indent=2))
    _tell(system)
    return 0


def down() -> int:
    """Stop what `up` started."""
    if STATE.exists():
        _system_json.validate_json(STATE.read_bytes()).stop()
        STATE.unlink()
        console.print("It is down.")
    return 0


def send(file: Path) -> int:
    """Send each line of a file to the queue, and show what became of them."""
    system = _need()
    bodies = [line for line in file.read_text().splitlines() if line.strip()]
    rows, dead = terminal.send(system, bodies)
    terminal.show(system)
    console.print(f"{len(bodies)} sent: {rows} new rows and {dead} new dead letter(s)")
    return 0 if rows + dead == len(bodies) else 1


def top() -> NoReturn:
    """Show the figures of what is up, as they happen."""
    terminal.watch(_need())


def report(files: list[Path]) -> int:
    """Draw the figures of log files; without any, of what is up, or else of the last run."""
    if files:
        lines = [line for file in files for line in file.read_text().splitlines()]
    elif system := _find():
        lines = list(function_logs.lines(system.emulator, system.stack))
    elif LAST_RUN.exists():
        lines = LAST_RUN.read_text().splitlines()
    else:
        raise SystemExit("There is nothing to draw yet: make run")
    drawn = log_metrics.read(lines)
    if not drawn.batches:
        raise SystemExit("No batch is logged there.")
    report_page.write(drawn, PAGE)
    console.print(f"{len(drawn.batches)} batches are drawn in {PAGE}")
    return 0


def watch() -> NoReturn:
    """Become `cargo lambda watch`, with the settings of the deployed function."""
    if _find() is None:
        console.print("It is not up, so that comes first.")
        subprocess.run(["make", "up"], check=True)
    system = _need()
    function = system.emulator.client("lambda").get_function_configuration(
        FunctionName=system.stack.function
    )
    settings = function["Environment"]["Variables"] | {
        # The deployed function finds the bundle in its package; here it has none.
        "DATABASE_CA_BUNDLE": str(system.postgres.certificate_authority)
    }
    port = str(processes.free_port())
    WATCH_PORT.write_text(port)
    console.print("When it listens: make invoke EVENT=events/mixed.json")
    _become(
        ["cargo", "lambda", "watch", "--invoke-address", "127.0.0.1", "--invoke-port", port],
        system.emulator.environment | settings,
    )


def invoke(event: Path) -> NoReturn:
    """Become `cargo lambda invoke`, with an event for the function that is being watched."""
    deadline = monotonic() + WATCH_PATIENCE_S
    while (port := _watched_port()) is None:
        if monotonic() > deadline:
            raise SystemExit("Nobody watches. In another terminal: make watch")
        sleep(0.2)
    address = ["--invoke-address", "127.0.0.1", "--invoke-port", port]
    _become(["cargo", "lambda", "invoke", "bootstrap", *address, "--data-file", str(event)])


def with_services(command: list[str]) -> int:
    """Run a command beside a Postgres and an emulator, whose addresses are in its environment."""
    with local_system.running_services(TARGET / "test") as services:
        environment = services.emulator.environment | {
            "TEST_DATABASE_URL": services.postgres.url(sslmode="disable"),
            "TEST_DATABASE_CA": str(services.postgres.certificate_authority),
        }
        with subprocess.Popen(command, env=environment) as child:
            try:
                return child.wait()
            except KeyboardInterrupt:
                processes.stop(processes.identify(child.pid))
                raise


def _watched_port() -> str | None:
    """Find the port that `watch` listens on, which takes it a moment."""
    if not WATCH_PORT.exists():
        return None
    port = WATCH_PORT.read_text()
    with socket.socket() as probe:
        return port if probe.connect_ex(("127.0.0.1", int(port))) == 0 else None


def _find() -> LocalSystem | None:
    """Find the system that `up` left, if it is still whole."""
    if not STATE.exists():
        return None
    found = _system_json.validate_json(STATE.read_bytes())
    servers = [found.postgres.process, found.emulator.process]
    return found if all(processes.alive(one) for one in servers if one) else None


def _need() -> LocalSystem:
    if system := _find():
        return system
    raise SystemExit("It is not up: make up")


def _tell(system: LocalSystem) -> None:
    """Print the addresses, one to a line and unbroken, to be copied."""
    addresses = {
        "an analyst's psql": f"psql '{system.url('analyst')}'",
        "AWS endpoint": system.emulator.endpoint,
        "queue": system.stack.queue_url,
        "dead letters": system.stack.dead_letter_queue_url,
        "salt": system.stack.salt_id,
        "logs": f"{LOCAL / 'logs'}",
    }
    for name, address in addresses.items():
        print(f"{name:>18}  {address}")


def _become(command: list[str], environment: Mapping[str, str] = os.environ) -> NoReturn:
    """Give the terminal to another program."""
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="dev", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for command in (run, up, down, send, top, report, watch, invoke, with_services):
        name = command.__name__.replace("_", "-")
        commands.add_parser(name, help=command.__doc__).set_defaults(command=command)
    commands.choices["send"].add_argument("file", type=Path)
    commands.choices["report"].add_argument("files", type=Path, nargs="*")
    commands.choices["invoke"].add_argument("event", type=Path)
    commands.choices["with-services"].add_argument("command_line", nargs=argparse.REMAINDER)
    arguments = vars(parser.parse_args())
    processes.end_in_good_order()
    try:
        return arguments.pop("command")(*arguments.values())
    except KeyboardInterrupt as signalled:
        return 128 + signalled.args[0]


if __name__ == "__main__":
    sys.exit(main())
