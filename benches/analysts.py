"""The measurements of the analysts' rollups, API and page, over the logins of `make demo`."""

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from benches import RESULTS, load
from benches.bench_servers import BenchServers, Database
from benches.ingest import BATCH, alone_and_beside
from benches.load import Load, request
from dev import demo, local_system, processes

Row = dict[str, Any]

CLIENTS = 16
SAMPLE = 500
FASTAPI_API = Path(__file__).with_name("fastapi_api.py")

# The owner of the table may create it: docs/analysts.md, "Indexes".
INDEX = "CREATE INDEX ON user_logins USING brin (create_date)"

# The query of docs/message-format.md, and the same for the API.
PLAIN_DUPLICATES = """
SELECT masked_device_id, count(*) AS logins, count(DISTINCT user_id) AS users
FROM user_logins
WHERE masked_device_id IS NOT NULL
GROUP BY masked_device_id
HAVING count(DISTINCT user_id) > 1
ORDER BY users DESC
"""
DUPLICATES = request("/v1/duplicates?field=device_id&period=all")

# The counts of a day, without storing them.
PLAIN_DAY = """
SELECT field, token, user_id, count(*)
FROM user_logins
CROSS JOIN LATERAL (
    VALUES ('device_id', masked_device_id), ('ip', masked_ip)
) AS masked (field, token)
WHERE create_date = %s
GROUP BY field, token, user_id
"""
LATE_LOGIN = """
WITH late AS (
    INSERT INTO user_logins SELECT * FROM user_logins WHERE create_date = %(day)s LIMIT 1
)
INSERT INTO processed_messages (slot, sent_at, message_id)
VALUES ((%(day)s::date - DATE '1970-01-01') %% 32, %(day)s, gen_random_uuid())
"""


@dataclass(frozen=True)
class Sample:
    """The values in the requests, from a database of logins."""

    tokens: list[str]
    devices: list[str]
    popular: list[str]
    rings: list[str]
    users: list[str]

    @classmethod
    def of(cls, database: Database) -> "Sample":
        """Choose values at random, the same in every run."""

        def choose(query: str) -> list[str]:
            with database.connect() as admin:
                values = sorted(value for (value,) in admin.execute(query))
            return random.Random(1).sample(values, min(SAMPLE, len(values)))

        tokens = "SELECT DISTINCT token FROM analytics.token_period"
        return cls(
            choose(tokens),
            choose(f"{tokens} WHERE field = 'device_id' AND period = '28d'"),
            choose("SELECT DISTINCT token FROM analytics.popular_token_day"),
            choose("SELECT ring FROM analytics.rings"),
            choose("SELECT DISTINCT user_id FROM analytics.token_user_day"),
        )


@dataclass(frozen=True)
class Endpoint:
    """An endpoint with the requests to send."""

    name: str
    requests: Callable[[Sample], list[bytes]]
    # Whether FastAPI's API has it too.
    has_peer: bool = True


ENDPOINTS = [
    Endpoint("style.css: no database", lambda _: [request("/style.css")], has_peer=False),
    Endpoint("freshness", lambda _: [request("/v1/freshness")]),
    Endpoint(
        "duplicates",
        lambda _: [
            request(f"/v1/duplicates?field={field}&period={period}&limit=100")
            for field in ("device_id", "ip")
            for period in ("1d", "7d", "28d", "all")
        ],
    ),
    Endpoint("rings", lambda _: [request("/v1/rings?limit=100")]),
    Endpoint(
        "a ring",
        lambda sample: [request(f"/v1/rings/{ring}") for ring in sample.rings],
        has_peer=False,
    ),
    Endpoint(
        "devices of a ring",
        lambda sample: [request(f"/v1/rings/{ring}/devices?limit=100") for ring in sample.rings],
        has_peer=False,
    ),
    Endpoint(
        "users of a ring",
        lambda sample: [request(f"/v1/rings/{ring}/members?limit=100") for ring in sample.rings],
        has_peer=False,
    ),
    Endpoint("a token", lambda sample: [request(f"/v1/tokens/{token}") for token in sample.tokens]),
    Endpoint(
        "days of a token",
        lambda sample: [request(f"/v1/tokens/{token}/daily") for token in sample.tokens],
        has_peer=False,
    ),
    Endpoint(
        "users of a token",
        lambda sample: [request(f"/v1/tokens/{token}/users?limit=100") for token in sample.tokens],
    ),
    Endpoint(
        "users of a popular token",
        lambda sample: [request(f"/v1/tokens/{token}/users?limit=100") for token in sample.popular],
        has_peer=False,
    ),
    Endpoint(
        "neighbours",
        lambda sample: [request(f"/v1/tokens/{token}/neighbours") for token in sample.devices],
        has_peer=False,
    ),
    Endpoint(
        "neighbours, depth 3",
        lambda sample: [
            request(f"/v1/tokens/{token}/neighbours?depth=3") for token in sample.devices
        ],
        has_peer=False,
    ),
    Endpoint(
        "daily",
        lambda _: [
            request(f"/v1/daily?days=28&by={by}")
            for by in ("all", "device_type", "locale", "app_version")
        ],
    ),
    Endpoint(
        "tokens of a user",
        lambda sample: [
            request("/v1/users/search", json.dumps({"user_id": user})) for user in sample.users
        ],
    ),
    Endpoint("page: overview", lambda _: [request("/", accept="text/html")], has_peer=False),
    Endpoint(
        "page: a ring",
        lambda sample: [request(f"/rings/{ring}", accept="text/html") for ring in sample.rings],
        has_peer=False,
    ),
    Endpoint(
        "page: a device",
        lambda sample: [
            request(f"/tokens/{token}", accept="text/html") for token in sample.devices
        ],
        has_peer=False,
    ),
    Endpoint(
        "raw: logins of a token, 1 day",
        lambda sample: [
            request(f"/v1/tokens/{token}/logins?days=1&limit=100") for token in sample.tokens
        ],
    ),
    Endpoint(
        "raw: logins of a user, 1 day",
        lambda sample: [
            request("/v1/logins/search", json.dumps({"user_id": user, "days": 1}))
            for user in sample.users
        ],
    ),
]


def endpoints(servers: BenchServers, rows: tuple[int, int], seconds: float) -> list[Row]:
    """Measure each endpoint with many clients, on a smaller and on a larger database."""
    databases = [rolled_up(servers, each) for each in rows]
    samples = [Sample.of(database) for database in databases]
    with (
        _api(databases[0]) as small,
        _api(databases[1]) as large,
        _fastapi_api(databases[1]) as peer,
    ):
        measured = []
        for endpoint in ENDPOINTS:
            of_small, of_large = (endpoint.requests(sample) for sample in samples)
            measured.append(
                _row(
                    endpoint.name,
                    _load(small, of_small, seconds),
                    _load(large, of_large, seconds),
                    _load(peer, of_large, seconds) if endpoint.has_peer else None,
                )
            )
        return measured


def _load(port: int, requests: list[bytes], seconds: float) -> Load:
    """Measure after a warm-up, in which the server opens its connections to Postgres."""
    load.run(port, requests, CLIENTS, seconds / 5)
    return load.run(port, requests, CLIENTS, seconds)


def _row(name: str, small: Load, large: Load, peer: Load | None) -> Row:
    return {
        "endpoint": name,
        "p50_ms": large.percentile_ms(50),
        "p99_ms": large.percentile_ms(99),
        "requests_s": large.requests_s,
        "kib": large.largest_answer / 1024,
        "p50_to_smaller": large.percentile_ms(50) / small.percentile_ms(50),
        "clients_cores": large.cpu_s / large.elapsed_s,
        "fastapi_p50_ms": peer.percentile_ms(50) if peer else "",
        "fastapi_p99_ms": peer.percentile_ms(99) if peer else "",
        "fastapi_requests_s": peer.requests_s if peer else "",
    }


def comparisons(servers: BenchServers, rows: int, rounds: int) -> list[Row]:
    """Compare what the rollups save, and what they cost, with plain queries; take turns."""
    database = rolled_up(servers, rows)
    with _api(database) as port, database.connect() as admin:
        [day] = admin.execute("SELECT through - 3 FROM analytics.freshness").fetchone()
        measured = [
            [
                _seconds(lambda: admin.execute(PLAIN_DUPLICATES).fetchall()),
                load.run(port, [DUPLICATES], 1, 0.2).percentile_ms(50) / 1e3,
                _seconds(lambda: admin.execute(PLAIN_DAY, [day]).fetchall()),
                _changed_day_s(database, day),
            ]
            for _ in range(rounds)
        ]
    plain, api, group_by, changed = (median(each) for each in zip(*measured, strict=True))
    return [
        {
            "comparison": "duplicate devices: the plain query / the API",
            "plain_ms": plain * 1e3,
            "rollups_ms": api * 1e3,
            "ratio": plain / api,
        },
        {
            "comparison": "a changed day: its roll-up / a plain GROUP BY",
            "plain_ms": group_by * 1e3,
            "rollups_ms": changed * 1e3,
            "ratio": changed / group_by,
        },
    ]


def ingest(servers: BenchServers, rows: int, rounds: int, seconds: float) -> list[Row]:
    """Measure batches of 100 while days are rolled up, over and over, and while not; take turns."""
    database = rolled_up(servers, rows)

    def roll_up() -> None:
        demo.roll_up(database.services.postgres, database.name)

    without, during = alone_and_beside(roll_up, database, rounds, seconds)
    return [
        {
            "batch": BATCH,
            "without_roll_up_s": without,
            "during_roll_up_s": during,
            "slower_by": without / during,
        }
    ]


def rolled_up(servers: BenchServers, rows: int) -> Database:
    """Return the database with this many logins; make it when it is first needed."""
    name = f"rolled_up_{rows}"
    database = Database(servers.services, name)
    with servers.services.postgres.connect() as admin:
        if admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return database
    servers.database(name)
    with database.connect() as admin:
        # The first roll-up of a schema reads days that the ledger does not have.
        admin.execute("DROP SCHEMA analytics CASCADE")
        demo.fill(admin, rows)
        admin.execute(INDEX)
        demo.roll_up(servers.services.postgres, name)
        # Autovacuum is off.
        admin.execute("VACUUM (ANALYZE)")
    return database


@contextmanager
def _api(database: Database) -> Iterator[int]:
    port = processes.free_port()
    with demo.serving(database.services.postgres, port, database.name, RESULTS / "logs"):
        yield port


@contextmanager
def _fastapi_api(database: Database) -> Iterator[int]:
    server, port, log = database.services.postgres, processes.free_port(), RESULTS / "fastapi.log"
    url = server.url(
        local_system.API_USER,
        database=database.name,
        sslmode="verify-full",
        sslrootcert=str(server.certificate_authority),
    )
    command = [sys.executable, FASTAPI_API, str(port)]
    process = processes.start(command, log=log, cwd=RESULTS, env={"DATABASE_URL": url})
    try:
        processes.wait_until(lambda: processes.listens(process, port), "FastAPI", process, log)
        yield port
    finally:
        processes.stop(process)


def _changed_day_s(database: Database, day: date) -> float:
    """Return the seconds that a roll-up takes longer if one login of the day is new."""
    roll_up = lambda: demo.roll_up(database.services.postgres, database.name)  # noqa: E731
    roll_up()
    unchanged_s = _seconds(roll_up)
    with database.connect() as admin:
        admin.execute(LATE_LOGIN, {"day": day})
    return _seconds(roll_up) - unchanged_s


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
