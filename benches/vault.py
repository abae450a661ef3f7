"""Measures what the vault adds to a batch, and how fast its values are folded."""

import json
import random
import time
from contextlib import ExitStack
from statistics import median
from typing import Any
from uuid import UUID

import psycopg

from benches import events
from benches.bench_servers import BenchServers, Database

Row = dict[str, Any]

BATCH = 1_000
WARM_UP = 3
# A key of OpenSSL. Nobody has its private key any more, and nothing is opened here.
PUBLIC_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgtR7oTpydduPtSzJvz9DGrx/BK/KYul+8ZgYDD2x8wGApUmDNbEd3iJ5RujVQX/g"
    "FCCn7v+7sCiqYATMbM05iw=="
)
ACCEPT_KEY = """
INSERT INTO vault_keys (public_key, kms_key) VALUES (decode(%s, 'base64'), 'bench')
"""
# An entry for each value, with a random token. Nothing is opened, so a ciphertext is zeros.
FILL = """
INSERT INTO vault_streams (key_id, enc)
SELECT 1, sha256(number::text::bytea) || sha256(('x' || number)::bytea) || '\\x00'
FROM generate_series(1, %(values)s / 1000) AS number;
INSERT INTO vault_sealed (stream_id, key_id, sequence, field, token, ciphertext)
SELECT
    number / 1000 + 1, 1, number %% 1000, 'd', sha256(number::text::bytea),
    decode(repeat('00', 64), 'hex')
FROM generate_series(0, %(values)s - 1) AS number
"""
# As `migrate` does it.
FOLD = "SELECT vault_fold(2500)"


def batches(servers: BenchServers, rounds: int, filled: int) -> list[Row]:
    """Measure batches with and without the vault, and with a vault that has many values."""
    rows = []
    # The full vault first, because Postgres then has files of its WAL that it uses again.
    for stored in (filled, 0):
        database = _database(servers, f"vault_{stored}", stored)
        rows += [
            {"new_percent": percent, "stored_values": stored} | _batches(database, percent, rounds)
            for percent in (100, 2)
        ]
    return rows


def _database(servers: BenchServers, name: str, stored: int) -> Database:
    database = servers.database(name)
    with database.connect() as admin:
        admin.execute(ACCEPT_KEY, [PUBLIC_KEY])
        if stored:
            for statement in FILL.split(";"):
                admin.execute(statement, {"values": stored})
            admin.execute("VACUUM (ANALYZE) vault_sealed, vault_streams")
        admin.execute("CHECKPOINT")
    return database


def _batches(database: Database, new_percent: int, rounds: int) -> Row:
    """Two functions take the same events in turn: one with the vault, one without."""
    rng = random.Random(new_percent)
    with ExitStack() as stack:
        off = stack.enter_context(database.login_etl())
        sealing = stack.enter_context(database.login_etl(VAULT_PUBLIC_KEY=PUBLIC_KEY))
        for function in (off, sealing):
            for _ in range(WARM_UP):
                function.invoke(events.event(BATCH))
        seconds: dict[str, list[float]] = {"off": [], "sealing": []}
        turns = [("off", off), ("sealing", sealing)]
        for _ in range(rounds):
            for name, function in turns:
                seconds[name].append(function.invoke(_event(rng, new_percent)))
            # The one that comes second finds the disk busy with what the first one wrote.
            turns.reverse()
        return {
            "off_ms": median(seconds["off"]) * 1e3,
            "sealing_ms": median(seconds["sealing"]) * 1e3,
            "ratio_to_off": median(seconds["sealing"]) / median(seconds["off"]),
            "off_peak_mib": off.peak_mib,
            "sealing_peak_mib": sealing.peak_mib,
        }


def _event(rng: random.Random, new_percent: int) -> bytes:
    """Make an event in which this share of the logins has a new address and a new device."""
    records = json.loads(events.event(BATCH))["Records"]
    for place, record in enumerate(records):
        if place % 100 < new_percent:
            new = {
                "ip": ".".join(str(rng.randrange(256)) for _ in range(4)),
                "device_id": str(UUID(int=rng.getrandbits(128), version=4)),
            }
            record["body"] = json.dumps(json.loads(record["body"]) | new)
    return json.dumps({"Records": records}, separators=(",", ":")).encode()


def fold(servers: BenchServers, batches: tuple[int, ...], filled: int) -> list[Row]:
    """Fold the values of a few and of many batches, into an empty vault and into a large one."""
    rows = []
    for stored in (filled, 0):
        database, rng = _database(servers, f"vault_fold_{stored}", stored), random.Random(1)
        rows += [_fold(database, rng, count) for count in batches]
    return rows


def _fold(database: Database, rng: random.Random, batches: int) -> Row:
    with database.login_etl(VAULT_PUBLIC_KEY=PUBLIC_KEY) as sealing:
        for _ in range(batches):
            sealing.invoke(_event(rng, 100))
    with database.connect() as admin:
        before = _sealed(admin)
        # After it, Postgres logs each page of the index once as a whole, as in a daily fold.
        admin.execute("CHECKPOINT")
        started = time.perf_counter()
        while admin.execute(FOLD).fetchone()[0]:
            pass
        elapsed_s = time.perf_counter() - started
        values = _sealed(admin) - before
    return {"stored_values": before, "folded_values": values, "values_s": values / elapsed_s}


def _sealed(admin: psycopg.Connection) -> int:
    return admin.execute("SELECT count(*) FROM vault_sealed").fetchone()[0]
