"""Logins of many days, with texts that a format could corrupt, and their entries in the ledger."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import psycopg
from analysts.sample import HOSTILE_LOCALES, HOSTILE_TYPES, HOSTILE_USERS, ODD_DAYS

from dev import demo
from dev.logins import Row, token

SALT = "the tests have no secrets, so this salt is public"
# Two days for which no calendar may be in doubt, both long before the ledger.
OLDEST_DAYS = [date(1, 1, 1), date(1969, 12, 31)]
INTEGERS = [None, 0, -1, 2_147_483_647, -2_147_483_648]

LEDGER = """
INSERT INTO processed_messages (slot, sent_at, message_id)
SELECT
    (%(day)s::date - DATE '1970-01-01') %% 32,
    %(day)s::timestamp AT TIME ZONE 'UTC' + number * INTERVAL '1 microsecond',
    gen_random_uuid()
FROM generate_series(1, %(entries)s) AS number
"""


def today() -> date:
    """Return the day of the newest logins."""
    return datetime.now(UTC).date()


def fill(owner: psycopg.Connection, rows: int, seed: int = 1) -> None:
    """Write this many usual logins, and some hostile ones, into an empty table."""
    now = today()
    demo.fill(owner, rows, seed, now)
    # The ledger keeps a day more than the demo fills.
    day = now - timedelta(15)
    count = "SELECT count(*) FROM user_logins WHERE create_date = %s"
    [entries] = owner.execute(count, [day]).fetchone()
    owner.execute(LEDGER, {"day": day, "entries": entries})
    write(owner, hostile(now - timedelta(1)), in_ledger=True)
    for day in [now - timedelta(40), *OLDEST_DAYS]:
        write(owner, hostile(day), in_ledger=False)
    # No file has these days.
    with owner.cursor() as cursor, cursor.copy(_COPY) as copy:
        for day in ODD_DAYS:
            copy.write_row((*login("odd", now)[:-1], day))


def write(owner: psycopg.Connection, rows: Iterable[Row], *, in_ledger: bool = True) -> None:
    """Write logins of one day, and their entries in the ledger, in one transaction."""
    written = list(rows)
    with owner.transaction():
        with owner.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in written:
                copy.write_row(row)
        if in_ledger:
            day = written[0].create_date
            owner.execute(LEDGER, {"day": day, "entries": len(written)})


def login(name: str, day: date) -> Row:
    """Make a login of a user and a device of this name."""
    return Row(name, "android", token(SALT, "ip", name), device(name), "RU", 2_003_000, day)


def device(name: str) -> str:
    """Return the token of a device."""
    return token(SALT, "device_id", name)


def hostile(day: date) -> list[Row]:
    """Make logins with odd texts, blanks, nulls and numbers."""
    rows = [
        Row(user, HOSTILE_TYPES[number % 3], None, device(user), locale, INTEGERS[number % 5], day)
        for number, user in enumerate(HOSTILE_USERS)
        for locale in HOSTILE_LOCALES[number % 2 :: 2]
    ]
    return [
        *rows,
        Row(None, None, None, None, None, None, day),
        Row("", "", "", "", "", 0, day),
        # A table that is older than login-etl may have values that are no tokens.
        Row("older", "x" * 32, "ü" * 256, "😀" * 256, "w" * 32, 1, day),
    ]


_COPY = f"COPY user_logins ({', '.join(Row._fields)}) FROM STDIN"
