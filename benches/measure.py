"""The measurements. What is compared takes turns, so that a disturbance slows down all of it."""

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

from benches import analysts, events, export, proxy, resalt, scans, vault
from benches.bench_servers import BenchServers, Database
from benches.function import Function, cpu_s
from benches.proxy import Proxy

Row = dict[str, Any]

WARM_UP = 3
# Each way. On a busy machine the noise is about 10 % of a round trip.
DELAY_S = 0.01
# Each way, for batches that take so long that their noise would hide a shorter delay.
FAR_DELAY_S = 0.5
COPY = "COPY copied_logins FROM STDIN (FORMAT binary)"
FILL = Path(__file__).with_name("fill.sql")
TERMINATE = """
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE usename = 'login_writer' AND datname = current_database()
"""


@dataclass(frozen=True)
class Effort:
    """How often each measurement is repeated."""

    rounds: dict[int, int]  # by messages in a batch, in the order of measuring
    cold_starts: int
    growth_rows: int
    growth_rounds: int
    throughput_messages: int
    round_trip_rounds: int
    refused_rows_rounds: int
    analysts_rows: tuple[int, int]  # a smaller and a larger database
    analysts_seconds: float  # of each load
    analysts_rounds: int
    export_rows: int
    export_rounds: int
    vault_rounds: int
    vault_values: int  # stored before
    resalt_rows: int
    vault_fold_batches: tuple[int, ...]


FULL = Effort(
    # Between runs, the medians of 300 small batches differ by 3 %, those of 900 by 1 %. The largest
    # batches come first: they fill Postgres's buffers, as in a server that has run for some time.
    rounds={10_000: 15, 1_000: 60, 100: 900, 10: 900},
    cold_starts=15,
    growth_rows=10_000_000,
    growth_rounds=60,
    throughput_messages=100_000,
    round_trip_rounds=25,
    refused_rows_rounds=5,
    analysts_rows=(1_000_000, 10_000_000),
    analysts_seconds=5,
    analysts_rounds=5,
    export_rows=1_000_000,
    export_rounds=7,
    vault_rounds=60,
    vault_values=3_000_000,
    resalt_rows=3_000_000,
    # 120,000 values and 600,000. The fewer values, the more of the index is logged for each.
    vault_fold_batches=(60, 300),
)
QUICK = Effort(
    rounds={10_000: 3, 1_000: 10, 100: 30, 10: 50},
    cold_starts=5,
    growth_rows=200_000,
    growth_rounds=15,
    throughput_messages=20_000,
    round_trip_rounds=7,
    refused_rows_rounds=1,
    analysts_rows=(100_000, 1_000_000),
    analysts_seconds=1,
    analysts_rounds=1,
    export_rows=100_000,
    export_rounds=1,
    vault_rounds=5,
    vault_values=100_000,
    resalt_rows=100_000,
    vault_fold_batches=(5,),
)


def speed(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure batches of each size: login-etl, its two floors, and the Python function."""
    database = servers.database("speed")
    database.create_copy_table()
    rows = [_speed(database, *size) for size in effort.rounds.items()]
    servers.set_fsync("off")
    for row in rows:
        messages = row["messages"]
        without_fsync = _speed(database, messages, effort.rounds[messages])
        row["ratio_to_copy_function_without_fsync"] = without_fsync["ratio_to_copy_function"]
    return rows[::-1]  # the smallest first


def _speed(database: Database, messages: int, rounds: int) -> Row:
    """Measure batches of one size, in new processes: peak memory is that of this size."""
    with ExitStack() as stack:
        copy_function = stack.enter_context(database.copy_function(messages))
        login_etl = stack.enter_context(database.login_etl())
        python = stack.enter_context(database.python_function())
        client = stack.enter_context(database.connect())
        turns = [
            lambda: _bare_copy(client, events.ready_rows(messages)),
            lambda: copy_function.invoke(events.event(messages)),
            lambda: login_etl.invoke(events.event(messages)),
            lambda: python.invoke(events.event(messages)),
        ]
        _take_turns(turns, WARM_UP)
        before = login_etl.cpu_s, python.cpu_s
        bare_copy_s, copy_function_s, login_etl_s, python_s = _take_turns(turns, rounds)
        total = messages * rounds
        return {
            "messages": messages,
            "bare_copy_ms": median(bare_copy_s) * 1e3,
            "copy_function_ms": median(copy_function_s) * 1e3,
            "login_etl_ms": median(login_etl_s) * 1e3,
            "python_ms": median(python_s) * 1e3,
            "ratio_to_bare_copy": median(login_etl_s) / median(bare_copy_s),
            "ratio_to_copy_function": median(login_etl_s) / median(copy_function_s),
            "ratio_to_python": median(login_etl_s) / median(python_s),
            "bare_copy_min_ms": min(bare_copy_s) * 1e3,
            "copy_function_min_ms": min(copy_function_s) * 1e3,
            "login_etl_min_ms": min(login_etl_s) * 1e3,
            "python_min_ms": min(python_s) * 1e3,
            "login_etl_us": median(login_etl_s) / messages * 1e6,
            "login_etl_cpu_us": (login_etl.cpu_s - before[0]) / total * 1e6,
            "python_cpu_us": (python.cpu_s - before[1]) / total * 1e6,
            "login_etl_peak_mib": login_etl.peak_mib,
            "python_peak_mib": python.peak_mib,
        }


def _bare_copy(connection: psycopg.Connection, ready_rows: bytes) -> float:
    """Copy ready rows in one transaction, without a Runtime API: no client can do less."""
    started = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.write(ready_rows)
    return time.perf_counter() - started


def _take_turns(turns: list[Callable[[], float]], rounds: int) -> list[list[float]]:
    """Call each function once a round; return the seconds of each function."""
    by_round = [[turn() for turn in turns] for _ in range(rounds)]
    return [list(seconds) for seconds in zip(*by_round, strict=True)]


def cold_start(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure the time from the start of a process to its first poll."""
    database = servers.database("cold_start")
    starts = {
        "login-etl, salt only, no TLS": database.login_etl,
        "login-etl, two secrets, TLS": lambda: database.login_etl(**database.secret_settings),
        "the analysts' API, one secret, TLS": database.api,
        "Python, two secrets, TLS": lambda: database.python_function(**database.secret_settings),
    }
    turns = [lambda start=start: _start(start) for start in starts.values()]
    _take_turns(turns, 1)
    measured = _take_turns(turns, effort.cold_starts)
    return [
        {
            "process": name,
            "median_ms": median(seconds) * 1e3,
            "min_ms": min(seconds) * 1e3,
            "ratio_to_login_etl_with_tls": median(seconds) / median(measured[1]),
            "ratio_to_python": median(seconds) / median(measured[-1]),
        }
        for name, seconds in zip(starts, measured, strict=True)
    ]


def _start(start: Callable[[], AbstractContextManager[Function]]) -> float:
    with start() as function:
        return function.cold_start_s


def growth(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure batches of 1,000 on an empty and on a large database."""
    databases = {
        "0": servers.database("empty"),
        f"{effort.growth_rows:,}": servers.database("large"),
    }
    _fill(databases[f"{effort.growth_rows:,}"], effort.growth_rows)
    with ExitStack() as stack:
        functions = [stack.enter_context(database.login_etl()) for database in databases.values()]
        turns = [lambda each=each: each.invoke(events.event(1_000)) for each in functions]
        _take_turns(turns, WARM_UP)
        measured = _take_turns(turns, effort.growth_rounds)
    return [
        {
            "rows_and_ledger_entries": rows,
            "login_etl_ms": median(seconds) * 1e3,
            "min_ms": min(seconds) * 1e3,
            "ratio_to_empty": median(seconds) / median(measured[0]),
        }
        for rows, seconds in zip(databases, measured, strict=True)
    ]


def _fill(database: Database, rows: int) -> None:
    with database.connect() as admin:
        admin.execute(FILL.read_text(), {"rows": rows})
        admin.execute("VACUUM (ANALYZE) user_logins, processed_messages")
        admin.execute("CHECKPOINT")


def throughput(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure how many messages a second functions write that run at the same time."""
    database = servers.database(f"throughput_fsync_{servers.fsync}")
    return [
        _throughput(database, functions, messages, effort.throughput_messages)
        for messages in (100, 1_000)
        for functions in (1, 2, 4, 8)
    ]


def _throughput(database: Database, functions: int, messages: int, total: int) -> Row:
    with ExitStack() as stack:
        running = [stack.enter_context(database.login_etl()) for _ in range(functions)]
        for function in running:
            for _ in range(WARM_UP):
                function.invoke(events.event(messages))
        waiting = [events.event(messages) for _ in range(total // messages)]
        sessions = psutil.Process(database.services.postgres.process.pid).children()
        before = _functions_cpu_s(running), _sessions_cpu_s(sessions)
        started = time.perf_counter()
        _invoke_all(waiting, running)
        elapsed_s = time.perf_counter() - started
        return {
            "batch": messages,
            "functions": functions,
            "messages_s": total / elapsed_s,
            "functions_cores": (_functions_cpu_s(running) - before[0]) / elapsed_s,
            "postgres_cores": (_sessions_cpu_s(sessions) - before[1]) / elapsed_s,
        }


def _functions_cpu_s(functions: list[Function]) -> float:
    return sum(function.cpu_s for function in functions)


def _sessions_cpu_s(sessions: list[psutil.Process]) -> float:
    return sum(cpu_s(session.pid) for session in sessions)


def _invoke_all(waiting: list[bytes], functions: list[Function]) -> None:
    """Give each function its next event as soon as it has answered the last event."""

    def work(function: Function) -> None:
        # Between the check and the pop, another thread may take the last event.
        while waiting:
            with suppress(IndexError):
                function.invoke(waiting.pop())

    with ThreadPoolExecutor(len(functions)) as threads:
        list(threads.map(work, functions))


def round_trips(servers: BenchServers, effort: Effort) -> list[Row]:
    """Count round trips: the time that a delay adds, divided by the delay of one round trip.

    A connection to Postgres with TLS 1.3 and SCRAM takes 7: TCP, SSLRequest, 2 for the TLS
    handshake, the startup packet, and 2 for SCRAM. The handshake takes 1 instead of 2 if the server
    has a key-exchange group that the client guesses; until version 17, Postgres has only P-256 by
    default, and OpenSSL guesses X25519. A request to Secrets Manager takes 2 here, TCP and HTTP; on
    AWS TLS adds 1.
    """
    database = servers.database("round_trips")
    server, cloud = servers.services.postgres, urlsplit(servers.services.emulator.endpoint)
    with ExitStack() as stack:
        to_postgres = stack.enter_context(proxy.to("127.0.0.1", server.port))
        to_aws = stack.enter_context(proxy.to(cloud.hostname, cloud.port))
        settings = database.secret_settings | {
            "DATABASE_PORT": str(to_postgres.port),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{to_aws.port}",
        }
        admin = stack.enter_context(database.connect())
        client = stack.enter_context(replace(server, port=to_postgres.port).connect())
        login_etl = stack.enter_context(database.login_etl(**settings))
        turns = {
            "SELECT 1, as a check": lambda: _select(client),
            "a batch of 100": lambda: login_etl.invoke(events.event(100)),
            "a batch of 1,000": lambda: login_etl.invoke(events.event(1_000)),
            "a reconnect and a batch of 100": lambda: _reconnect(admin, login_etl),
            "a cold start": lambda: _start(lambda: database.login_etl(**settings)),
        }
        proxies = [to_postgres, to_aws]
        near, far = _near_and_far(list(turns.values()), proxies, effort.round_trip_rounds)
    return [
        {
            "operation": name,
            "near_ms": near_s * 1e3,
            "far_ms": far_s * 1e3,
            "round_trips": (far_s - near_s) / (2 * DELAY_S),
        }
        for name, near_s, far_s in zip(turns, near, far, strict=True)
    ]


def _near_and_far(
    turns: list[Callable[[], float]], proxies: list[Proxy], rounds: int
) -> tuple[list[float], list[float]]:
    """Alternate rounds without and with the delay; return the median seconds of each function."""
    measured: dict[float, list[list[float]]] = {0.0: [], DELAY_S: []}
    for number in range(2 * (WARM_UP + rounds)):
        delay_s = DELAY_S if number % 2 else 0.0
        for each in proxies:
            each.delay_s = delay_s
        seconds = [turn() for turn in turns]
        if number >= 2 * WARM_UP:
            measured[delay_s].append(seconds)
    near, far = (list(map(median, zip(*each, strict=True))) for each in measured.values())
    return near, far


def _select(client: psycopg.Connection) -> float:
    """Make exactly one round trip."""
    started = time.perf_counter()
    client.execute("SELECT 1", prepare=False)
    return time.perf_counter() - started


def _reconnect(admin: psycopg.Connection, login_etl: Function) -> float:
    """Close the function's connection on the server, then invoke the function."""
    admin.execute(TERMINATE)
    time.sleep(5 * DELAY_S)
    return login_etl.invoke(events.event(100))


def refused_rows(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure batches in which a constraint refuses a share of the rows, also over a network."""
    database = servers.database("refused_rows")
    with database.connect() as admin:
        admin.execute("ALTER TABLE user_logins ADD CHECK (locale <> 'XX')")
    with proxy.to("127.0.0.1", servers.services.postgres.port) as to_postgres:
        url = database.url.replace(str(servers.services.postgres.port), str(to_postgres.port))
        with database.login_etl(DATABASE_URL=url) as login_etl:
            for _ in range(WARM_UP):
                login_etl.invoke(events.event(1_000))
            rows = [
                _refused_rows(login_etl, to_postgres, messages, percent, effort.refused_rows_rounds)
                for messages in (100, 1_000, 10_000)
                for percent in (0, 1, 10, 50, 100)
            ]
    for row in rows:
        [clean] = [
            each
            for each in rows
            if (each["messages"], each["refused_percent"]) == (row["messages"], 0)
        ]
        row["ratio_to_clean_batch"] = row["delay_0_ms"] / clean["delay_0_ms"]
    return rows


def _refused_rows(
    login_etl: Function, to_postgres: Proxy, messages: int, refused_percent: int, rounds: int
) -> Row:
    def turn(delay_s: float) -> float:
        to_postgres.delay_s = delay_s
        return login_etl.invoke(*events.event_with_refused_rows(messages, refused_percent))

    turns = [lambda delay_s=delay_s: turn(delay_s) for delay_s in (0, 0.0005, 0.001, FAR_DELAY_S)]
    none, half, one, far = (median(seconds) for seconds in _take_turns(turns, rounds))
    return {
        "messages": messages,
        "refused_percent": refused_percent,
        "delay_0_ms": none * 1e3,
        "delay_0.5_ms": half * 1e3,
        "delay_1_ms": one * 1e3,
        "round_trips": round((far - none) / (2 * FAR_DELAY_S)),
    }


def analysts_endpoints(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure the analysts' API and page."""
    return analysts.endpoints(servers, effort.analysts_rows, effort.analysts_seconds)


def analysts_comparisons(servers: BenchServers, effort: Effort) -> list[Row]:
    """Compare the analysts' rollups with plain queries."""
    return analysts.comparisons(servers, effort.analysts_rows[1], effort.analysts_rounds)


def analysts_ingest(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure what a roll-up costs the function."""
    rows, seconds = effort.analysts_rows[1], effort.analysts_seconds
    return analysts.ingest(servers, rows, effort.analysts_rounds, seconds)


def scanning(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure what reads the whole ledger, or the logins of a day."""
    with servers.database("scans").connect() as admin:
        return scans.scans(admin, effort.growth_rows // 10)


def export_speed(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure the export of a table."""
    return export.speed(servers, effort.export_rows, effort.export_rounds)


def export_ingest(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure what an export costs the function."""
    rows, seconds = effort.export_rows, effort.analysts_seconds
    return export.ingest(servers, rows, effort.export_rounds, seconds)


def vault_batches(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure what the vault adds to a batch."""
    return vault.batches(servers, effort.vault_rounds, effort.vault_values)


def vault_fold(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure how many sealed values are folded in a second."""
    return vault.fold(servers, effort.vault_fold_batches, effort.vault_values)


def resalting(servers: BenchServers, effort: Effort) -> list[Row]:
    """Measure how many rows get the tokens of a later salt in a second."""
    return resalt.resalt(servers, effort.resalt_rows)


@dataclass(frozen=True)
class Measurement:
    """A measurement and its conditions, which stand beside its figures."""

    measure: Callable[[BenchServers, Effort], list[Row]]
    fsync: str
    tls: str  # of the connections between function and Postgres

    def run(self, servers: BenchServers, effort: Effort) -> dict[str, Any]:
        """Measure under these conditions; return the figures with the conditions."""
        servers.set_fsync(self.fsync)
        conditions = {"fsync": servers.fsync, "tls": self.tls}
        return conditions | {"rows": self.measure(servers, effort)}


# With fsync=on, the wait for the disk is added to both sides of a ratio and hides a difference. So
# growth is measured without it. A cold start and a count of round trips do not depend on it.
MEASUREMENTS = {
    "speed": Measurement(speed, fsync="on", tls="no TLS"),
    "throughput": Measurement(throughput, fsync="on", tls="no TLS"),
    "throughput_without_fsync": Measurement(throughput, fsync="off", tls="no TLS"),
    "cold_start": Measurement(cold_start, fsync="off", tls="TLS where the row says so"),
    "growth": Measurement(growth, fsync="off", tls="no TLS"),
    "round_trips": Measurement(round_trips, fsync="off", tls="TLS"),
    "refused_rows": Measurement(refused_rows, fsync="on", tls="no TLS"),
    "scans": Measurement(scanning, fsync="off", tls="no TLS"),
    "analysts": Measurement(analysts_endpoints, fsync="on", tls="TLS to Postgres"),
    "analysts_comparisons": Measurement(analysts_comparisons, fsync="on", tls="TLS to Postgres"),
    "analysts_ingest": Measurement(analysts_ingest, fsync="on", tls="no TLS"),
    "export": Measurement(export_speed, fsync="on", tls="TLS to Postgres"),
    "export_ingest": Measurement(export_ingest, fsync="on", tls="TLS to Postgres for the export"),
    "vault": Measurement(vault_batches, fsync="on", tls="no TLS"),
    "vault_fold": Measurement(vault_fold, fsync="on", tls="no TLS"),
    "resalt": Measurement(resalting, fsync="on", tls="no TLS"),
}
