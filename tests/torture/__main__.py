"""Break servers, network and functions while messages are sent, then verify that none is lost.

The command behind `make torture`.
"""

import argparse
import asyncio
import random
import secrets
import sys
from collections.abc import Coroutine
from typing import Any

from dev import processes
from dev.terminal import console
from torture import RESULTS, cores, proxied_servers, report, vault, verification
from torture.erasures import Erasures
from torture.faults import Faults
from torture.functions import Fleet
from torture.messages import Messages
from torture.migrate import Migrate
from torture.proxied_servers import ProxiedServers
from torture.sqs import History, Queue

FUNCTIONS = 6
# Without faults, the functions empty the queues in seconds, even on a busy machine.
DRAIN_S = 180


def main() -> int:
    """Run the torture test with the options of the command line."""
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="duration of the faults")
    parser.add_argument(
        "--seed", default=secrets.token_hex(3), help="of messages and faults, to repeat a run"
    )
    arguments = parser.parse_args()
    processes.exit_on_signals()
    RESULTS.mkdir(parents=True, exist_ok=True)
    console.print(f"Torturing for {arguments.seconds:.0f} s with seed {arguments.seed}")
    try:
        with proxied_servers.running() as servers:
            return asyncio.run(
                cancel_on_signal(torture(servers, arguments.seconds, arguments.seed))
            )
    except KeyboardInterrupt as signalled:
        return 128 + next(iter(signalled.args), 0)


async def cancel_on_signal(work: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine; a signal cancels it. An exception from the handler could hit any task."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    received: list[int] = []

    def cancel(number: int) -> None:
        received.append(number)
        loop.call_soon_threadsafe(task.cancel)

    processes.exit_on_signals(cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 128 + received[0]


async def torture(servers: ProxiedServers, seconds: float, seed: str) -> int:
    """Inject faults, stop them, wait until the queues are empty, and verify."""
    history = History()
    source = Messages(seed, servers.generations.first)
    queues = [
        Queue(source, history, random.Random(f"{seed} standard"), fifo=False),
        Queue(source, history, random.Random(f"{seed} fifo"), fifo=True),
    ]
    writes_cores = cores.prepare()
    fleet = Fleet(servers, queues, seed)
    migrate, erasures = Migrate(servers), Erasures(servers, history)
    faults = Faults(servers, fleet, migrate, erasures, history, seed)
    await servers.postgres_proxy.open()
    await servers.secrets_proxy.open()

    def close() -> None:
        for queue in queues:
            queue.closed = True

    async with asyncio.TaskGroup() as group:
        working = group.create_task(fleet.run(FUNCTIONS))
        # The first batch stores the salt's fingerprint, so faults start after it.
        while not history.outcomes["answered"]:
            if history.now() > DRAIN_S:
                raise RuntimeError(f"no batch was answered; the logs are in {RESULTS}")
            await asyncio.sleep(0.1)
        await faults.run(seconds, when_over=close)
        await asyncio.wait([working], timeout=DRAIN_S)
        working.cancel()
    history.ended = history.now()
    # In a thread: only a running event loop lets the proxies pass on that connections have ended.
    await asyncio.to_thread(servers.wait_for_writers)
    with servers.connect() as owner:
        before = vault.read(owner)
    await migrate.finish_fold()
    findings = verification.verify(servers, history, erasures.all, before)
    report.show(seed, history, fleet, faults, findings)
    report.show_vault(migrate, erasures.all, findings.vault, writes_cores=writes_cores)
    report.show_result(findings)
    return 1 if findings.violations else 0


if __name__ == "__main__":
    sys.exit(main())
