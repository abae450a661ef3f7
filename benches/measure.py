"""The measurements. Those that are compared take turns, so that what disturbs one disturbs all."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg

from benches import events, proxy
from benches.bench_servers import BenchServers, Database
from benches.function import Function, cpu_s
from benches.proxy import Proxy

Row = dict[str, Any]

WARM_UP = 3
# Each way. The noise of a measurement is a tenth of a round trip even on a machine that is busy.
DELAY_S = 0.01
COPY = "COPY floor FROM STDIN (FORMAT binary)"
FILL = Path(__file__).with_name("fill.sql")
TERMINATE = """
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE usename = 'login_writer' AND datname = current_database()
"""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: dict[int, int]  # by the messages of a batch, in the order of measuring
    cold_starts: int
    growth_rows: int
    growth_rounds: int
    scaling_messages: int
    trips: int


FULL = Effort(
    # The medians of 300 small batches differ by three in a hundred from run to run, of 900 by one.
    # The largest are first: after them the server has no buffer left that was never used, like any
    # that has run for a minute.
    rounds={10_000: 15, 1_000: 60, 100: 900, 10: 900},
    cold_starts=15,
    growth_rows=10_000_000,
    growth_rounds=60,
    scaling_messages=100_000,
    trips=25,
)
QUICK = Effort(
    rounds={10_000: 3, 1_000: 10, 100: 30, 10: 50},
    cold_starts=5,
    growth_rows=200_000,
    growth_rounds=15,
    scaling_messages=20_000,
    trips=7,
)


def speed(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure batches of each size: a bare COPY, the least function, ours, and Python."""
    database = servers.database("speed")
    with servers.durable():
        rows = [_speed(database, *of_size) for of_size in effort.rounds.items()]
    for row in rows:
        messages = row["messages"]
        row["without_fsync"] = _speed(database, messages, effort.rounds[messages])["to_floor"]
    return rows[::-1]  # the smallest first


def _speed(database: Database, messages: int, rounds: int) -> Row:
    """Measure in fresh processes, whose peak of memory is therefore of this size."""
    with ExitStack() as stack:
        floor = stack.enter_context(database.floor(messages))
        ours = stack.enter_context(database.ours())
        python = stack.enter_context(database.python())
        client = stack.enter_context(database.connect())
        turns = [
            lambda: _copy(client, events.ready_rows(messages)),
            lambda: floor.invoke(events.event(messages)),
            lambda: ours.invoke(events.event(messages)),
            lambda: python.invoke(events.event(messages)),
        ]
        _take_turns(turns, WARM_UP)
        before = ours.cpu_s, python.cpu_s
        copy_s, floor_s, ours_s, python_s = _take_turns(turns, rounds)
        in_all = messages * rounds
        return {
            "messages": messages,
            "copy_ms": median(copy_s) * 1e3,
            "floor_ms": median(floor_s) * 1e3,
            "ours_ms": median(ours_s) * 1e3,
            "python_ms": median(python_s) * 1e3,
            "to_copy": median(ours_s) / median(copy_s),
            "to_floor": median(ours_s) / median(floor_s),
            "copy_min_ms": min(copy_s) * 1e3,
            "floor_min_ms": min(floor_s) * 1e3,
            "ours_min_ms": min(ours_s) * 1e3,
            "python_min_ms": min(python_s) * 1e3,
            "ours_us": median(ours_s) / messages * 1e6,
            "ours_cpu_us": (ours.cpu_s - before[0]) / in_all * 1e6,
            "python_cpu_us": (python.cpu_s - before[1]) / in_all * 1e6,
            "ours_peak_mib": ours.peak_mib,
            "python_peak_mib": python.peak_mib,
        }


def _copy(connection: psycopg.Connection, ready: bytes) -> float:
    """Do the least that brings rows into Postgres, and nothing else."""
    started = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.write(ready)
    return time.perf_counter() - started


def _take_turns(turns: list[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Let everyone have a turn in each round; return the seconds of each."""
    by_round = [[turn() for turn in turns] for _ in range(rounds)]
    return [list(seconds) for seconds in zip(*by_round, strict=True)]


def cold_start(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure from a process's start to its first poll."""
    database = servers.database("cold_start")
    starts = {
        "ours, salt only, no TLS": database.ours,
        "ours, two secrets, TLS": lambda: database.ours(**database.by_secret),
        "Python, two secrets, TLS": lambda: database.python(**database.by_secret),
    }
    turns = [lambda start=start: _start(start) for start in starts.values()]
    _take_turns(turns, 1)
    taken = _take_turns(turns, effort.cold_starts)
    return [
        {
            "cold_start": what,
            "median_ms": median(seconds) * 1e3,
            "min_ms": min(seconds) * 1e3,
            "to_python": median(seconds) / median(taken[-1]),
        }
        for what, seconds in zip(starts, taken, strict=True)
    ]


def _start(start: Callable[[], AbstractContextManager[Function]]) -> float:
    with start() as function:
        return function.cold_start_s


def growth(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure batches of 1,000 on an empty database, and on one that has much in it already."""
    databases = {
        "none": servers.database("new"),
        f"{effort.growth_rows:,}": servers.database("grown"),
    }
    _fill(databases[f"{effort.growth_rows:,}"], effort.growth_rows)
    with ExitStack() as stack:
        functions = [stack.enter_context(database.ours()) for database in databases.values()]
        turns = [lambda one=one: one.invoke(events.event(1_000)) for one in functions]
        _take_turns(turns, WARM_UP)
        taken = _take_turns(turns, effort.growth_rounds)
    return [
        {
            "rows_and_ledger_entries": what,
            "ours_1000_ms": median(seconds) * 1e3,
            "min_ms": min(seconds) * 1e3,
            "ratio": median(seconds) / median(taken[0]),
        }
        for what, seconds in zip(databases, taken, strict=True)
    ]


def _fill(database: Database, rows: int) -> None:
    with database.connect() as admin:
        admin.execute(FILL.read_text(), {"rows": rows})
        admin.execute("VACUUM (ANALYZE) user_logins, processed_messages")
        admin.execute("CHECKPOINT")


def scaling(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure the messages a second that functions write who work at once."""
    database = servers.database("scaling")
    return [
        _scaling(database, functions, messages, effort.scaling_messages)
        for messages in (100, 1_000)
        for functions in (1, 2, 4, 8)
    ]


def _scaling(database: Database, functions: int, messages: int, in_all: int) -> Row:
    with ExitStack() as stack:
        running = [stack.enter_context(database.ours()) for _ in range(functions)]
        for one in running:
            for _ in range(WARM_UP):
                one.invoke(events.event(messages))
        waiting = [events.event(messages) for _ in range(in_all // messages)]
        server = psutil.Process(database.services.postgres.process.pid).children()
        before = _cpu_s(running), sum(cpu_s(one.pid) for one in server)
        started = time.perf_counter()
        _work_off(waiting, running)
        elapsed_s = time.perf_counter() - started
        return {
            "batch": messages,
            "functions": functions,
            "messages_s": in_all / elapsed_s,
            "functions_cores": (_cpu_s(running) - before[0]) / elapsed_s,
            "postgres_cores": (sum(cpu_s(one.pid) for one in server) - before[1]) / elapsed_s,
        }


def _cpu_s(functions: list[Function]) -> float:
    return sum(one.cpu_s for one in functions)


def _work_off(waiting: list[bytes], functions: list[Function]) -> None:
    """Let each function take the next event when it is done with the one before."""

    def work(function: Function) -> None:
        # A list is popped by one thread at a time, and the first to find it empty is not the last.
        while waiting:
            with suppress(IndexError):
                function.invoke(waiting.pop())

    with ThreadPoolExecutor(len(functions)) as threads:
        list(threads.map(work, functions))


def round_trips(servers: BenchServers, effort: Effort) -> list[Row]:
    """Count round trips: the time that a longer way adds, divided by what it adds to one.

    With TLS 1.3 and SCRAM, Postgres is reached in six: TCP, the request for TLS, TLS, the startup
    packet, and two for SCRAM. Secrets Manager takes two here, TCP and the request; on AWS its own
    TLS is a third. A client that guesses wrong what keys the server exchanges takes one more.
    """
    database = servers.database("round_trips")
    server, cloud = servers.services.postgres, urlsplit(servers.services.emulator.endpoint)
    with ExitStack() as stack:
        to_postgres = stack.enter_context(proxy.to("127.0.0.1", server.port))
        to_aws = stack.enter_context(proxy.to(cloud.hostname, cloud.port))
        settings = database.by_secret | {
            "DATABASE_PORT": str(to_postgres.port),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{to_aws.port}",
        }
        admin = stack.enter_context(database.connect())
        client = stack.enter_context(replace(server, port=to_postgres.port).connect())
        ours = stack.enter_context(database.ours(**settings))
        turns = {
            "SELECT 1, as a check": lambda: _select(client),
            "a batch of 100": lambda: ours.invoke(events.event(100)),
            "a batch of 1,000": lambda: ours.invoke(events.event(1_000)),
            "a reconnect and a batch of 100": lambda: _after_loss(admin, ours),
            "a cold start": lambda: _start(lambda: database.ours(**settings)),
        }
        near, far = _near_and_far(list(turns.values()), [to_postgres, to_aws], effort.trips)
    return [
        {
            "round_trips_of": what,
            "near_ms": near_s * 1e3,
            "far_ms": far_s * 1e3,
            "round_trips": (far_s - near_s) / (2 * DELAY_S),
        }
        for what, near_s, far_s in zip(turns, near, far, strict=True)
    ]


def _near_and_far(
    turns: list[Callable[[], float]], proxies: list[Proxy], rounds: int
) -> tuple[list[float], list[float]]:
    """Take turns without the delay and with it; return the median seconds of each."""
    taken: dict[float, list[list[float]]] = {0.0: [], DELAY_S: []}
    for number in range(2 * (WARM_UP + rounds)):
        delay_s = DELAY_S if number % 2 else 0.0
        for one in proxies:
            one.delay_s = delay_s
        seconds = [turn() for turn in turns]
        if number >= 2 * WARM_UP:
            taken[delay_s].append(seconds)
    near, far = (list(map(median, zip(*each, strict=True))) for each in taken.values())
    return near, far


def _select(client: psycopg.Connection) -> float:
    """Make one round trip, and no more."""
    started = time.perf_counter()
    client.execute("SELECT 1", prepare=False)
    return time.perf_counter() - started


def _after_loss(admin: psycopg.Connection, ours: Function) -> float:
    """Invoke a function whose connection the server has closed since the last time."""
    admin.execute(TERMINATE)
    time.sleep(5 * DELAY_S)
    return ours.invoke(events.event(100))
