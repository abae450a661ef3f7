"""Starts child processes, and stops exactly those."""

import pwd
import random
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NoReturn

import psutil

STOP_TIMEOUT_S = 10


@dataclass(frozen=True)
class Process:
    """A process, identified by id and start time: the system reuses ids."""

    pid: int
    started: float


def start(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str],
    user: str | None = None,
) -> Process:
    """Start a program in a session of its own, so that Ctrl-C does not reach it directly."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=env,
            start_new_session=True,
            **as_user(user),
        )
    return identify(child.pid)


def identify(pid: int) -> Process:
    """Return the process that has this id now."""
    return Process(pid, psutil.Process(pid).create_time())


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs a program as a user."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def alive(process: Process) -> bool:
    """Return whether the process still runs."""
    return _find(process) is not None


def stop(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to a process; kill it, and its children, if they run on."""
    parent = _find(process)
    if parent is None:
        return
    children = parent.children(recursive=True)
    parent.send_signal(number)
    psutil.wait_procs([parent], timeout=STOP_TIMEOUT_S)
    remaining = [each for each in [parent, *children] if each.is_running()]
    for each in remaining:
        each.kill()
    psutil.wait_procs(remaining, timeout=STOP_TIMEOUT_S)


def wait_until(condition: Callable[[], bool], name: str, process: Process, log: Path) -> None:
    """Wait for a server to answer.

    A server that does not is stopped, and the error contains the last lines of its log.
    """
    try:
        if _in_time(condition, process):
            return
    except BaseException:
        stop(process)
        raise
    stop(process)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise RuntimeError(f"{name} did not start; the end of {log}:\n{tail}")


def listens(process: Process, port: int) -> bool:
    """Return whether this process, and not another user's, listens on a loopback port."""
    server = _find(process)
    if server is None:
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for each in [server, *server.children(recursive=True)]
        for connection in each.net_connections("inet")
    )


def free_port() -> int:
    """Find a loopback port that nothing listens on.

    The port is below the kernel's range for outgoing connections. Within that range, a client that
    retries while its server restarts can be assigned the server's own port.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on 127.0.0.1 between 20000 and 32000")


def _interrupt(number: int) -> NoReturn:
    raise KeyboardInterrupt(number)


def exit_on_signals(handle: Callable[[int], object] = _interrupt) -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, so that `finally` stops processes.

    Later signals are ignored: make forwards a signal that its children have received already, and
    a second signal must not interrupt the clean-up.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def handle_first(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        handle(number)

    for each in numbers:
        signal.signal(each, handle_first)


def _in_time(condition: Callable[[], bool], process: Process) -> bool:
    deadline = monotonic() + 3 * STOP_TIMEOUT_S
    while not condition():
        if not alive(process) or monotonic() > deadline:
            return False
        sleep(0.05)
    return True


def _find(process: Process) -> psutil.Process | None:
    try:
        found = psutil.Process(process.pid)
        same = found.create_time() == process.started
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
