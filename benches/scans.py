"""The statements of `migrate` and of the export that read the whole ledger, or the logins of a day.

`make simulate` computes with these figures (dev/simulate/figures.toml).
"""

import time
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from dev import ROOT

FILL = Path(__file__).with_name("fill.sql")
ROUNDS = 3
COUNT_LEDGER = ROOT / "src" / "ledger" / "count_days.sql"
MANY_TOKENS = ROOT / "src" / "schema" / "users_with_many_tokens.sql"
# No partition and no index can be left out.
NO_ROWS = "SELECT count(*) FROM user_logins WHERE app_version < 0"


def scans(admin: psycopg.Connection, rows: int) -> list[dict[str, Any]]:
    """Fill an empty database with logins of today, and measure each statement."""
    admin.execute(FILL.read_text(), {"rows": rows})
    admin.execute("VACUUM (ANALYZE) user_logins, processed_messages")
    # The roll-up and the export count with a single process.
    admin.execute("SET max_parallel_workers_per_gather = 0")
    return [
        {
            "statement": name,
            "rows": rows,
            "median_ms": seconds * 1e3,
            "rows_s": rows / seconds,
            "bytes_of_row": _bytes(admin, table) / rows,
        }
        for name, table, seconds in (
            ("count the ledger", "processed_messages", _median_s(admin, COUNT_LEDGER.read_text())),
            ("find no row", "user_logins", _median_s(admin, NO_ROWS)),
            (
                "find users with many tokens",
                "user_logins",
                _median_s(admin, MANY_TOKENS.read_text()),
            ),
        )
    ]


def _median_s(admin: psycopg.Connection, statement: str) -> float:
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with admin.transaction(force_rollback=True):
            admin.execute(statement)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def _bytes(admin: psycopg.Connection, table: str) -> int:
    """Return the size of a table with its partitions and indexes."""
    query = """
        SELECT sum(pg_total_relation_size(relid))
        FROM (
            SELECT %(t)s::regclass AS relid UNION SELECT relid FROM pg_partition_tree(%(t)s)
        ) AS part
    """
    return int(admin.execute(query, {"t": table}).fetchone()[0])
