"""Child processes that are known by id, so that exactly what was started is what is stopped."""

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

PATIENCE_S = 10


@dataclass(frozen=True)
class Process:
    """A running program. Ids are reused, so it is the id together with the time of its start."""

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
    """Start a program in a session of its own, so that Ctrl-C reaches it only through us."""
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
    """Tell the process that has this id now from any that will have it later."""
    return Process(pid, psutil.Process(pid).create_time())


def as_user(user: str | None) -> dict[str, Any]:
    """Return the arguments of `subprocess` that give up root's rights for those of `user`."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def alive(process: Process) -> bool:
    """Say whether this very process still runs."""
    return _find(process) is not None


def stop(process: Process, how: signal.Signals = signal.SIGTERM) -> None:
    """Stop a process and whatever it started; kill what has not gone after a while."""
    parent = _find(process)
    if parent is None:
        return
    children = parent.children(recursive=True)
    parent.send_signal(how)
    psutil.wait_procs([parent], timeout=PATIENCE_S)
    # What a parent left behind when it went has no reason to stay.
    left = [one for one in [parent, *children] if one.is_running()]
    for one in left:
        one.kill()
    psutil.wait_procs(left, timeout=PATIENCE_S)


def wait_until(condition: Callable[[], bool], what: str, process: Process, log: Path) -> None:
    """Wait for a server to answer; one that does not is stopped, and its log's last lines told."""
    try:
        if _in_time(condition, process):
            return
    except BaseException:
        stop(process)
        raise
    stop(process)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise RuntimeError(f"{what} did not start; the end of {log}:\n{tail}")


def free_port() -> int:
    """Find a loopback port that nothing listens on.

    It lies below the range from which the kernel takes ports for outgoing connections: from that
    range, a client retrying a server that is down for a moment can be given the server's own port.
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


def end_in_good_order(tell: Callable[[int], object] = _interrupt) -> None:
    """Turn the signals that end a program into an exception, for what was started to be stopped.

    Only the first counts: make passes on a signal that its children have got already, and a second
    one must not interrupt the stopping.
    """
    endings = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _frame: object) -> None:
        for ending in endings:
            signal.signal(ending, signal.SIG_IGN)
        tell(number)

    for ending in endings:
        signal.signal(ending, end)


def _in_time(condition: Callable[[], bool], process: Process) -> bool:
    deadline = monotonic() + 3 * PATIENCE_S
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
