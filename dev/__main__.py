"""The commands behind the Makefile: `python -m dev --help`."""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn

from pydantic import TypeAdapter

from dev import (
    EVENTS,
    ROOT,
    TARGET,
    demo,
    lake,
    local_system,
    log_metrics,
    processes,
    report_page,
    stack,
    terminal,
    vault,
)
from dev import logs as function_logs
from dev.lake import Lake
from dev.local_system import LocalSystem
from dev.terminal import console

LOCAL = TARGET / "local"
STATE = LOCAL / "system.json"
CREDENTIALS = LOCAL / "credentials"
WATCH_PORT = LOCAL / "watch-port"
WATCH_TIMEOUT_S = 15
QUEUE = EVENTS / "login-queue.jsonl"
EXPECTED_ROWS, EXPECTED_DEAD_LETTERS = 99, 1
LAST_RUN = TARGET / "run" / "function.log"
PAGE = TARGET / "report.html"

_system_json = TypeAdapter(LocalSystem)


def run() -> int:
    """Start the system, send the 100 sample messages, show the results, and stop the system."""
    started = monotonic()
    logs = TARGET / "run"
    console.print("Starting Postgres and the emulator, and creating the stack")
    with local_system.running(logs) as system:
        rows, dead_letters = terminal.send(system, QUEUE.read_text().splitlines())
        terminal.show(system)
        LAST_RUN.write_text("\n".join(function_logs.lines(system.emulator, system.stack)))
    console.print(
        f"{rows} rows in the table and {dead_letters} message(s) in the dead-letter queue, "
        f"in {monotonic() - started:.1f} s"
    )
    if (rows, dead_letters) != (EXPECTED_ROWS, EXPECTED_DEAD_LETTERS):
        console.print(
            f"Expected {EXPECTED_ROWS} rows and {EXPECTED_DEAD_LETTERS} message(s); "
            f"the logs are in {logs}"
        )
        return 1
    return 0


def up(with_vault: bool) -> int:
    """Start the system, leave it running, and print its addresses."""
    if system := _find():
        console.print("The system is running already.")
        _print_addresses(system)
        return 0
    down()
    console.print("Starting Postgres and the emulator, and creating the stack")
    system = local_system.start(LOCAL / "logs", with_vault=with_vault, Analysts="true")
    try:
        system.page = local_system.serve_page(system, LOCAL / "logs" / "api.log")
        profiles = vault.profiles(system.emulator, system.stack.name) if with_vault else ""
    except BaseException:
        system.stop()
        raise
    for private in (STATE, CREDENTIALS):
        private.touch(mode=0o600)
    STATE.write_bytes(_system_json.dump_json(system, indent=2))
    CREDENTIALS.write_text(system.emulator.credentials_file + profiles)
    _print_addresses(system)
    return 0


def down() -> int:
    """Stop the system that `up` started."""
    if STATE.exists():
        _system_json.validate_json(STATE.read_bytes()).stop()
        STATE.unlink()
        CREDENTIALS.unlink(missing_ok=True)
        console.print("The system is stopped.")
    return 0


def send(file: Path) -> int:
    """Send each line of a file as a message, and show the results."""
    system = _running_system()
    bodies = [line for line in file.read_text().splitlines() if line.strip()]
    rows, dead_letters = terminal.send(system, bodies)
    terminal.show(system)
    if system.page:
        stack.roll_up(system.emulator, system.stack)
        console.print(f"The page of the analysts shows them: {system.page.url}")
    console.print(f"{len(bodies)} sent: {rows} new rows and {dead_letters} new dead letter(s)")
    return 0 if rows + dead_letters == len(bodies) else 1


def export() -> int:
    """Export the logins of the running system to its S3, and print the objects."""
    if _find() is None:
        console.print("The system is not running. Running: make up")
        subprocess.run(["make", "up"], check=True)
    system = _running_system()
    rows, _ = terminal.counts(system)
    if not rows:
        console.print(f"The table has no logins. Sending {QUEUE.relative_to(ROOT)}")
        rows, _ = terminal.send(system, QUEUE.read_text().splitlines())
    store = Lake(system.postgres, system.emulator)
    store.prepare()
    done = store.run(lake.program(LOCAL / "logs"))
    print(done.stdout + done.stderr, end="")
    with tempfile.TemporaryDirectory() as folder:
        days = lake.count(store.download(Path(folder)))
    for key, size in store.objects().items():
        print(f"{size:>12,} bytes  s3://{store.bucket}/{key}")
    console.print("\nTo list or to copy the objects, give the AWS CLI the address of the emulator:")
    print(
        f"AWS_SHARED_CREDENTIALS_FILE={CREDENTIALS} "
        f"aws --endpoint-url {system.emulator.endpoint} s3 ls --recursive s3://{store.bucket}/"
    )
    console.print(f"{rows} rows in the table and {sum(days.values())} in the lake")
    return done.returncode or int(rows != sum(days.values()))


def top() -> NoReturn:
    """Show live metrics of the running system."""
    terminal.watch(_running_system())


def report(files: list[Path]) -> int:
    """Write a report page from log files, else from the running system, else from the last run."""
    if files:
        lines = [line for file in files for line in file.read_text().splitlines()]
    elif system := _find():
        lines = list(function_logs.lines(system.emulator, system.stack))
    elif LAST_RUN.exists():
        lines = LAST_RUN.read_text().splitlines()
    else:
        raise SystemExit("There are no logs yet. Run: make run")
    metrics = log_metrics.read(lines)
    if not metrics.batches:
        raise SystemExit("The logs contain no batch.")
    report_page.write(metrics, PAGE)
    console.print(f"Wrote the metrics of {len(metrics.batches)} batches to {PAGE}")
    return 0


def watch() -> NoReturn:
    """Run `cargo lambda watch` with the settings of the deployed function."""
    if _find() is None:
        console.print("The system is not running. Running: make up")
        subprocess.run(["make", "up"], check=True)
    system = _running_system()
    function = system.emulator.client("lambda").get_function_configuration(
        FunctionName=system.stack.function
    )
    settings = function["Environment"]["Variables"] | {
        # The setting of the deployed function is a path in its package, which does not exist here.
        "DATABASE_CA_BUNDLE": str(system.postgres.certificate_authority)
    }
    port = str(processes.free_port())
    WATCH_PORT.write_text(port)
    console.print("When the function listens, run: make invoke EVENT=events/mixed.json")
    _exec(
        ["cargo", "lambda", "watch", "--invoke-address", "127.0.0.1", "--invoke-port", port],
        system.emulator.environment | settings,
    )


def invoke(event: Path) -> NoReturn:
    """Run `cargo lambda invoke` with an event for the function that `watch` serves."""
    deadline = monotonic() + WATCH_TIMEOUT_S
    while (port := _watched_port()) is None:
        if monotonic() > deadline:
            raise SystemExit("No function is being watched. Run in another terminal: make watch")
        sleep(0.2)
    address = ["--invoke-address", "127.0.0.1", "--invoke-port", port]
    _exec(["cargo", "lambda", "invoke", "bootstrap", *address, "--data-file", str(event)])


def demonstrate(rows: int, seed: int, serve: bool) -> int:
    """Make a database of logins with rings to find; serve the page over it until Ctrl-C."""
    if rows < demo.MIN_ROWS:
        raise SystemExit(f"ROWS must be at least {demo.MIN_ROWS:,}.")
    started = monotonic()
    console.print(f"Making {rows:,} logins, and rolling them up")
    with demo.running(rows, seed) as made:
        console.print(f"Took {monotonic() - started:.0f} s. Planted rings, by their tokens:\n")
        for each in made.rings:
            print(f"{each.shape:>43}  {each.ring}")
        if serve:
            psql = f"PGPASSWORD={shlex.quote(made.analyst_password)} psql '{made.url}'"
            with demo.serving(made.postgres, processes.free_port()) as address:
                print(f"\n{'page and API':>43}  {address}\n{'psql as an analyst':>43}  {psql}")
                console.print("\nPress Ctrl-C to stop, and to remove the database.")
                signal.pause()
    return 0


def with_services(command: list[str]) -> int:
    """Run a command with the addresses of a new Postgres and emulator in its environment."""
    with local_system.running_services(TARGET / "test") as services:
        environment = services.emulator.environment | {
            "TEST_DATABASE_URL": services.postgres.url(sslmode="disable"),
            "TEST_DATABASE_CA": str(services.postgres.certificate_authority),
            "TEST_POSTGRES_BIN": str(services.postgres.binaries),
        }
        with subprocess.Popen(command, env=environment) as child:
            try:
                return child.wait()
            except KeyboardInterrupt:
                processes.stop(processes.identify(child.pid))
                raise


def _watched_port() -> str | None:
    """Return the port of `watch`, or nothing until it listens."""
    if not WATCH_PORT.exists():
        return None
    port = WATCH_PORT.read_text()
    with socket.socket() as probe:
        return port if probe.connect_ex(("127.0.0.1", int(port))) == 0 else None


def _find() -> LocalSystem | None:
    """Return the system that `up` started, if its servers still run."""
    if not STATE.exists():
        return None
    found = _system_json.validate_json(STATE.read_bytes())
    servers = [found.postgres.process, found.emulator.process]
    servers += [found.page.process] if found.page else []
    servers += [found.services.kms.process] if found.services.kms else []
    return found if all(processes.alive(server) for server in servers if server) else None


def _running_system() -> LocalSystem:
    if system := _find():
        return system
    raise SystemExit("The system is not running. Run: make up")


def _print_addresses(system: LocalSystem) -> None:
    """Print one address per line, unwrapped, so that each can be copied."""
    addresses = {
        "page for analysts": system.page.url if system.page else "none",
        "psql as an analyst": system.psql("analyst"),
        "AWS endpoint": system.emulator.endpoint,
        "AWS credentials": f"AWS_SHARED_CREDENTIALS_FILE={CREDENTIALS}",
        "queue": system.stack.queue_url,
        "dead letters": system.stack.dead_letter_queue_url,
        "salt": system.stack.salt_id,
        "logs": f"{LOCAL / 'logs'}",
    }
    if system.services.kms:
        url = vault.url(system.emulator, system.stack.name)
        addresses |= {
            f"vault, to {route}": f"AWS_SHARED_CREDENTIALS_FILE={CREDENTIALS} "
            f"AWS_PROFILE={route} login-etl {command} --url '{url}'"
            for route, command in vault.EXAMPLES.items()
        }
    for name, address in addresses.items():
        print(f"{name:>18}  {address}")


def _exec(command: list[str], environment: Mapping[str, str] = os.environ) -> NoReturn:
    """Replace this process by another program, so that Ctrl-C reaches that program."""
    sys.stdout.flush()
    os.execvpe(command[0], command, environment)


def main() -> int:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(prog="dev", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for command in (run, up, down, send, export, top, report, watch, invoke, with_services):
        name = command.__name__.replace("_", "-")
        commands.add_parser(name, help=command.__doc__).set_defaults(command=command)
    shown = commands.add_parser("demo", help=demonstrate.__doc__)
    shown.add_argument("--rows", type=int, default=1_000_000)
    shown.add_argument("--seed", type=int, default=1)
    shown.add_argument(
        "--no-serve", dest="serve", action="store_false", help="end after the roll-up"
    )
    shown.set_defaults(command=demonstrate)
    commands.choices["up"].add_argument(
        "--vault", dest="with_vault", action="store_true", help="with a vault"
    )
    commands.choices["send"].add_argument("file", type=Path)
    commands.choices["report"].add_argument("files", type=Path, nargs="*")
    commands.choices["invoke"].add_argument("event", type=Path)
    commands.choices["with-services"].add_argument("command_line", nargs=argparse.REMAINDER)
    arguments = vars(parser.parse_args())
    processes.exit_on_signals()
    try:
        return arguments.pop("command")(*arguments.values())
    except KeyboardInterrupt as signalled:
        return 128 + signalled.args[0]


if __name__ == "__main__":
    sys.exit(main())
