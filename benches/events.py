"""Events as Lambda sends them, and rows as Postgres takes them."""

import hashlib
import json
import random
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import cache
from time import time_ns
from typing import Any
from uuid import UUID, uuid4

from dev import logins

SALT = "0123456789abcdef0123456789abcdef"

# The messages of a batch were sent within this time. Functions that keep up with their queue take a
# batch as soon as they have written the last batch, which takes 0.5 to 50 ms.
SPREAD_MS = 50

_LARGEST_BATCH = 10_000
_EPOCH = date(2000, 1, 1)  # Postgres counts days from here


def event(messages: int) -> bytes:
    """Make an event whose message ids are new."""
    now = time_ns() // 1_000_000
    records = (
        f"{head}{uuid4()}{middle}{now - random.randrange(SPREAD_MS)}{tail}"
        for head, middle, tail in _templates()[:messages]
    )
    return f'{{"Records":[{",".join(records)}]}}'.encode()


def event_with_refused_rows(messages: int, refused_percent: int) -> tuple[bytes, int]:
    """Make an event in which this share of the logins has the locale XX; return their number too.

    These logins are spread over the batch.
    """
    records = json.loads(event(messages))["Records"]
    # The factor spreads the refused rows, so that they are not next to each other.
    refused = [record for place, record in enumerate(records) if place * 37 % 100 < refused_percent]
    for record in refused:
        record["body"] = json.dumps(json.loads(record["body"]) | {"locale": "XX"})
    return json.dumps({"Records": records}).encode(), len(refused)


@cache
def ready_rows(messages: int) -> bytes:
    """Encode the rows of an event for `COPY … (FORMAT binary)`.

    See https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4.
    """
    now = datetime.now(UTC)
    rows = (logins.row(body, SALT, now) for body in _bodies()[:messages])
    encoded = (struct.pack(">h", len(row)) + b"".join(map(_encode, row)) for row in rows)
    return struct.pack(">11sii", b"PGCOPY\n\xff\r\n\0", 0, 0) + b"".join(encoded) + b"\xff\xff"


@cache
def _templates() -> list[tuple[str, str, str]]:
    """Cut each record into the texts before, between and after its message id and its time."""
    return [tuple(_record(body).split("@")) for body in _bodies()]


@cache
def _bodies() -> list[dict[str, Any]]:
    """Make the bodies, the same in every run and of the same shape as those in events/."""
    return list(_make_bodies(random.Random(1)))


def _make_bodies(rng: random.Random) -> Iterator[dict[str, Any]]:
    for _ in range(_LARGEST_BATCH):
        yield logins.login(
            user_id=str(UUID(int=rng.getrandbits(128), version=4)),
            app_version=f"{rng.randrange(10)}.{rng.randrange(10)}.{rng.randrange(10)}",
            device_type=rng.choice(["android", "ios"]),
            ip=".".join(str(rng.randrange(1, 255)) for _ in range(4)),
            locale=rng.choice([None, "RU", "ID"]),
            device_id=f"{rng.randrange(1000):03}-{rng.randrange(100):02}-{rng.randrange(10000):04}",
        )


def _record(body: dict[str, Any]) -> str:
    text = json.dumps(body)
    attributes = {
        "ApproximateReceiveCount": "1",
        "SentTimestamp": "@",
        "SenderId": "AIDACKCEVSQ6C2EXAMPLE",
        "ApproximateFirstReceiveTimestamp": "1773791997151",
    }
    record = logins.record(
        text,
        messageId="@",
        receiptHandle="AQEB" + hashlib.sha512(text.encode()).hexdigest() + "==",
        attributes=attributes,
        md5OfBody=hashlib.md5(text.encode()).hexdigest(),
    )
    return json.dumps(record, separators=(",", ":"))


def _encode(value: str | int | date | None) -> bytes:
    match value:
        case None:
            return struct.pack(">i", -1)
        case int():
            return struct.pack(">ii", 4, value)
        case date():
            return struct.pack(">ii", 4, (value - _EPOCH).days)
        case str():
            return struct.pack(">i", len(value)) + value.encode()
