"""Torture the release build for a while, then judge: the command behind `make torture`."""

import argparse
import asyncio
import random
import secrets
import sys
from collections.abc import Coroutine
from typing import Any

from dev import processes
from dev.terminal import console
from torture import RESULTS, proxied_servers, report, verdict
from torture.faults import Faults
from torture.functions import Fleet
from torture.messages import Messages
from torture.proxied_servers import ProxiedServers
from torture.sqs import Books, Queue

FUNCTIONS = 6
# What remains when nothing is broken any more is done in seconds, even on a machine that is busy.
DRAIN_S = 180


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long there are faults")
    parser.add_argument("--seed", default=secrets.token_hex(3), help="to repeat a run's faults")
    arguments = parser.parse_args()
    processes.exit_on_signals()
    RESULTS.mkdir(parents=True, exist_ok=True)
    console.print(f"Torturing for {arguments.seconds:.0f} s with seed {arguments.seed}")
    try:
        with proxied_servers.running() as servers:
            return asyncio.run(
                unless_told_to_end(torture(servers, arguments.seconds, arguments.seed))
            )
    except KeyboardInterrupt as signalled:
        return 128 + next(iter(signalled.args), 0)


async def unless_told_to_end(work: Coroutine[Any, Any, int]) -> int:
    """Do the work; if a signal says to end, cancel it, for an exception may strike in any task."""
    loop, task, told = asyncio.get_running_loop(), asyncio.ensure_future(work), []

    def end(number: int) -> None:
        told.append(number)
        loop.call_soon_threadsafe(task.cancel)

    processes.exit_on_signals(end)
    try:
        return await task
    except asyncio.CancelledError:
        return 128 + told[0]


async def torture(servers: ProxiedServers, seconds: float, seed: str) -> int:
    """Break everything for a while, heal it, let the functions empty the queues, and judge."""
    books = Books()
    source = Messages(seed, servers.salt)
    queues = [
        Queue(source, books, random.Random(f"{seed} standard"), fifo=False),
        Queue(source, books, random.Random(f"{seed} fifo"), fifo=True),
    ]
    fleet = Fleet(servers, queues, seed)
    faults = Faults(servers, fleet, books, seed)
    await servers.postgres_proxy.open()
    await servers.secrets_proxy.open()

    async with asyncio.TaskGroup() as group:
        working = group.create_task(fleet.run(FUNCTIONS))
        # The first batch tells the database its salt.
        while not books.outcomes["answered"]:
            if books.now() > DRAIN_S:
                raise RuntimeError(f"no batch was answered; the logs are in {RESULTS}")
            await asyncio.sleep(0.1)
        await faults.run(seconds)
        for queue in queues:
            queue.closed = True
        await asyncio.wait([working], timeout=DRAIN_S)
        working.cancel()
    books.ended = books.now()
    judged = verdict.reach(servers, books)
    report.show(seed, books, fleet, faults, judged)
    return 1 if judged.violations else 0


if __name__ == "__main__":
    sys.exit(main())
