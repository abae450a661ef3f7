"""Measures how fast `migrate resalt` replaces tokens, and how long batches wait for it."""

import hmac
import json
import os
import secrets
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from benches import events
from benches.bench_servers import SALT_ID, BenchServers
from dev.emulator import REGION
from dev.local_system import MIGRATE

FILL = Path(__file__).with_name("fill.sql")
# Makes the salt of the benchmarks the accepted salt, although it made no token of these rows.
PIN = "INSERT INTO salt_fingerprint (fingerprint) VALUES (%s)"


def resalt(servers: BenchServers, rows: int) -> list[dict[str, Any]]:
    """Fill a database with logins of today, and replace their tokens."""
    database = servers.database("resalt")
    client = servers.services.emulator.client("secretsmanager")
    later = json.dumps({"salt": events.SALT, "later_salts": [secrets.token_hex(32)]})
    with database.connect() as admin:
        admin.execute(FILL.read_text(), {"rows": rows})
        digest = hmac.digest(events.SALT.encode(), b"salt:fingerprint", "sha256")
        admin.execute(PIN, [digest.hex()[:16]])
        admin.execute("VACUUM (ANALYZE)")
        admin.execute("CHECKPOINT")
        client.put_secret_value(SecretId=SALT_ID, SecretString=later)
        waits = _Waits(database.connect())
        try:
            started = time.perf_counter()
            subprocess.run(
                [MIGRATE, "resalt"],
                check=True,
                stdout=subprocess.DEVNULL,
                env=servers.services.emulator.environment
                | {
                    "PATH": os.environ["PATH"],
                    "AWS_REGION": REGION,
                    "SALT_SECRET_ID": SALT_ID,
                    "DATABASE_URL": database.owner_url,
                },
            )
            seconds = time.perf_counter() - started
        finally:
            longest = waits.stop()
            client.put_secret_value(SecretId=SALT_ID, SecretString=events.SALT)
    return [
        {"rows": rows, "s": seconds, "rows_s": rows / seconds, "longest_wait_ms": longest * 1e3}
    ]


class _Waits:
    """Locks `user_logins` again and again as a batch does, and notes the longest wait."""

    def __init__(self, session: psycopg.Connection) -> None:
        self._session, self._longest, self._stopped = session, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._wait)
        self._thread.start()

    def stop(self) -> float:
        self._stopped.set()
        self._thread.join()
        self._session.close()
        return self._longest

    def _wait(self) -> None:
        while not self._stopped.wait(0.01):
            started = time.perf_counter()
            with self._session.transaction():
                self._session.execute("LOCK TABLE ONLY user_logins IN ROW EXCLUSIVE MODE")
            self._longest = max(self._longest, time.perf_counter() - started)
