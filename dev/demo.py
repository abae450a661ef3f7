"""Makes a database of logins with rings to find, rolls it up, and serves the page over it.

The skew is that of a real product: most devices have one user, a household shares an address and
perhaps a tablet, thousands of users share the address of a mobile carrier, and a terminal in a shop
has too many users to be a ring. The rings of `RINGS` are planted between them. The same seed on the
same day makes the same rows.
"""

import random
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate, product
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import sql

from dev import ROOT, TARGET, local_system, logins, postgres, processes
from dev.local_system import API_USER, DATABASE, MIGRATE
from dev.postgres import LOOPBACK, Postgres

CREATE_API_LOGIN = ROOT / "src" / "analytics" / "create_api_login.sql"
ANALYST = "analyst"
LOGS = TARGET / "demo"
MIN_ROWS = 10_000

SALT = "a demo has no secrets, so this salt is public"
DAYS = 60
LOGINS_PER_USER = 12
HOUSEHOLDS = {1: 55, 2: 27, 3: 11, 4: 7}  # the weight of each number of users
CARRIER_ADDRESSES = 20
TERMINALS = 3
# Many more than the 50 users above which a device connects nothing.
TERMINAL_USERS = 150
# Newest first: most users update their app within weeks.
VERSIONS = {"5012000": 50, "5011003": 22, "5011000": 12, "5010000": 9, "4009003": 6, r"\N": 1}
NULL = r"\N"

COPY = """
COPY user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
) FROM STDIN
"""

# As many entries as each day has logins. Those of today end now.
LEDGER = """
INSERT INTO processed_messages (slot, sent_at, message_id)
SELECT
    (create_date - DATE '1970-01-01') %% 32,
    midnight + LEAST(INTERVAL '23 hours', now() - midnight) * random(),
    gen_random_uuid()
FROM user_logins
CROSS JOIN LATERAL (SELECT create_date::timestamp AT TIME ZONE 'UTC' AS midnight) AS day
WHERE create_date > %(today)s::date - 15
"""

Pairs = list[tuple[int, int]]  # the numbers of a user and of a device that the user logs in with


@dataclass(frozen=True)
class Ring:
    """A planted ring, and the least of its device tokens, which names it in the view `rings`."""

    shape: str
    users: int
    devices: int
    ring: str


@dataclass(frozen=True)
class Demo:
    """A running Postgres with logins and their rollups."""

    postgres: Postgres
    rings: list[Ring]
    analyst_password: str

    @property
    def url(self) -> str:
        """The URL of the database for an analyst, without the password."""
        authority = str(self.postgres.certificate_authority)
        return self.postgres.url(
            ANALYST, "", DATABASE, sslmode="verify-full", sslrootcert=authority
        )

    def connect(self) -> psycopg.Connection:
        """Connect as an analyst."""
        return psycopg.connect(self.url, password=self.analyst_password, autocommit=True)


def star(users: int) -> Pairs:
    """Let all users share one device."""
    return [(user, 0) for user in range(users)]


def chain(users: int) -> Pairs:
    """Let each two neighbours share a device."""
    return [(device + end, device) for device in range(users - 1) for end in (0, 1)]


def circle(users: int) -> Pairs:
    """Close a chain by a device that its ends share."""
    return [*chain(users), (0, users - 1), (users - 1, users - 1)]


def mesh(users: int, devices: int) -> Pairs:
    """Let each user log in with each device."""
    return list(product(range(users), range(devices)))


def bridge(users: int) -> Pairs:
    """Connect two stars by a third device."""
    return [*star(users), *((users + user, 1) for user in range(users)), (0, 2), (users, 2)]


RINGS = {
    "40 users on one device": star(40),
    "12 users on one device": star(12),
    "7 users on one device": star(7),
    "a chain of 8 users": chain(8),
    "a chain of 20 users": chain(20),
    "a circle of 6 users": circle(6),
    "a circle of 15 users": circle(15),
    "9 users, each on 3 devices": mesh(9, 3),
    "6 users, each on 5 devices": mesh(6, 5),
    "25 users, each on 2 devices": mesh(25, 2),
    "2 groups of 10 users, connected by a device": bridge(10),
    "2 groups of 16 users, connected by a device": bridge(16),
}


@contextmanager
def running(rows: int, seed: int = 1, logs: Path = LOGS) -> Iterator[Demo]:
    """Start a Postgres with a database of logins and rollups; remove both at the end."""
    directory = local_system.make_directory()
    shutil.rmtree(logs, ignore_errors=True)
    server = None
    try:
        server = postgres.create(directory / "postgres", logs / "postgres.log")
        local_system.create_database(server)
        with server.connect(DATABASE) as admin:
            rings = fill(admin, rows, seed)
        roll_up(server)
        yield Demo(server, rings, local_system.create_analyst(server))
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def fill(
    admin: psycopg.Connection, rows: int, seed: int = 1, today: date | None = None
) -> list[Ring]:
    """Write this many logins, and ledger entries for those of the last 15 days."""
    today = today or datetime.now(UTC).date()
    rng = random.Random(seed)
    rings, planted = _plant(rng)
    lines, weights = _usual_logins(rng, rows // LOGINS_PER_USER)
    cumulative = list(accumulate(weights))

    def choose(count: int) -> list[str]:
        return rng.choices(lines, cum_weights=cumulative, k=count)

    left = rows - sum(map(len, planted.values()))
    dated = left - rows // 10_000
    shares = {age: _share(rng, today - timedelta(age)) for age in reversed(range(DAYS))}
    total = sum(shares.values())
    with admin.cursor() as cursor, cursor.copy(COPY) as copy:
        for age, share in shares.items():
            count = int(dated * share / total)
            left -= count
            day = (today - timedelta(age)).isoformat()
            copy.write(_dated(rng, [*choose(count), *planted[age]], day))
        # Some rows have no day: their table is older than the column.
        copy.write(_dated(rng, choose(left), NULL))
    admin.execute(LEDGER, {"today": today})
    admin.execute("ANALYZE user_logins, processed_messages")
    return rings


def roll_up(server: Postgres, database: str = DATABASE) -> None:
    """Run the migrate program until it has rolled up every day."""
    environment = {
        "DATABASE_URL": server.url(database=database, sslmode="require"),
        "DATABASE_CA_BUNDLE": str(server.certificate_authority),
        "ANALYSTS": "true",
        "RUST_LOG": "warn",
    }
    with server.connect(database) as admin:
        days_left = None
        while days_left != 0:
            subprocess.run([MIGRATE], check=True, env=environment)
            [days_left] = admin.execute("SELECT days_left FROM analytics.freshness").fetchone()


@contextmanager
def serving(
    server: Postgres, port: int, database: str = DATABASE, logs: Path = LOGS
) -> Iterator[str]:
    """Run the API and the page over rollups, and stop it at the end. Yield its address."""
    let_api_log_in(server, database)
    api = local_system.start_api(server, server.password, port, logs / "api.log", database)
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        processes.stop(api)


def let_api_log_in(server: Postgres, database: str) -> None:
    """Create the API's role, as the migrate program does; its password is the superuser's."""
    with server.connect(database) as admin:
        admin.execute("SET search_path = analytics, public, pg_temp")
        admin.execute(CREATE_API_LOGIN.read_text())
        role = sql.Identifier(API_USER), sql.Literal(server.password)
        admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(*role))


def _plant(rng: random.Random) -> tuple[list[Ring], dict[int, list[str]]]:
    """Make the logins of the rings, by the age of their day.

    Each user logs in twice with each device, within the 28 days that the view `rings` covers.
    """
    rings, planted = [], defaultdict(list)
    for number, (shape, pairs) in enumerate(RINGS.items()):
        users = {user: _user_id(rng) for user, _ in pairs}
        devices = {device: _device(900_000_000 + number * 10_000 + device) for _, device in pairs}
        addresses = [_address(f"192.0.2.{2 * number + end}") for end in (0, 1)]
        rings.append(Ring(shape, len(users), len(devices), min(devices.values())))
        for user, device in pairs:
            for age in rng.sample(range(1, 20), 2):
                line = _line(users[user], "android", rng.choice(addresses), devices[device], "ID")
                planted[age].append(line)
    return rings, planted


def _usual_logins(rng: random.Random, users: int) -> tuple[list[str], list[float]]:
    """Make a line for each device and address that a user logs in with, and its weight."""
    lines, weights = [], []

    def add(weight: float, *columns: str) -> None:
        lines.append(_line(*columns))
        weights.append(weight)

    carriers = [_address(f"198.51.100.{number}") for number in range(CARRIER_ADDRESSES)]
    carrier_weights = [1 / (number + 1) for number in range(CARRIER_ADDRESSES)]
    terminals = [
        (_address(f"198.51.101.{number}"), _device(800_000_000 + number))
        for number in range(TERMINALS)
    ]
    share_at_terminals = max(0.02, TERMINALS * TERMINAL_USERS / users)
    made = 0
    while made < users:
        [size] = rng.choices(list(HOUSEHOLDS), list(HOUSEHOLDS.values()))
        home = _address(f"100.{made >> 16}.{made >> 8 & 255}.{made & 255}")
        tablet = _device(500_000_000 + made) if size > 1 and rng.random() < 0.3 else None
        [locale] = rng.choices(["RU", "ID", "VN", "BR", "DE", NULL], [30, 25, 15, 12, 13, 5])
        for _ in range(size):
            user = _user_id(rng)
            [system] = rng.choices(["android", "ios", NULL], [70, 29, 1])
            phone = _device(made)
            made += 1
            # A few users log in often.
            weight = min(rng.paretovariate(1.3), 40)
            add(weight, user, system, home, phone, locale)
            if rng.random() < 0.6:
                [carrier] = rng.choices(carriers, carrier_weights)
                add(weight / 2, user, system, carrier, phone, locale)
            if tablet:
                add(weight / 4, user, "android", home, tablet, locale)
            if rng.random() < share_at_terminals:
                add(1, user, "android", *rng.choice(terminals), locale)
            if rng.random() < 0.02:
                add(weight / 4, user, NULL, NULL, NULL, locale)
    return lines, weights


def _share(rng: random.Random, day: date) -> float:
    """Return the weight of a day: more logins at weekends, and some noise."""
    return (1.3 if day.weekday() >= 5 else 1) * rng.uniform(0.9, 1.1)


def _dated(rng: random.Random, lines: list[str], day: str) -> str:
    """Add a version and a day to each line."""
    ends = [f"\t{version}\t{day}\n" for version in VERSIONS]
    chosen = rng.choices(ends, list(VERSIONS.values()), k=len(lines))
    return "".join(map(str.__add__, lines, chosen))


def _line(*columns: str) -> str:
    return "\t".join(columns)


def _user_id(rng: random.Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


def _device(number: int) -> str:
    digits = f"{number:09}"
    return logins.token(SALT, "device_id", f"{digits[:3]}-{digits[3:5]}-{digits[5:]}")


def _address(text: str) -> str:
    return logins.token(SALT, "ip", text)
