"""What the table and each reader of the lake must agree on: a summary of each day.

A row is hashed as a whole, so that no reader can exchange two values. An SQL engine computes the
whole summary itself; for the others, Python hashes the texts that the engine wrote.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import psycopg

from dev.logins import Row

COLUMNS = Row._fields
SEPARATOR, NULL = "\x1f", "\x1e"


class Day(NamedTuple):
    """The summary of a day."""

    rows: int
    hashes: int  # the sum of 60 bits of the MD5 of each row
    nulls: tuple[int, ...]  # of each column
    least: tuple[str | None, ...]
    greatest: tuple[str | None, ...]


Summary = dict[str, Day]


def query(source: str, day: str, number: Callable[[str], str], text: str = "VARCHAR") -> str:
    """Write the query of a summary in the dialect of an engine.

    `number` turns 15 hexadecimal digits into a number; `text` is the type of a text.
    """
    texts = ", ".join(f"coalesce(CAST({column} AS {text}), chr(30))" for column in COLUMNS)
    digits = f"substr(md5(concat_ws(chr(31), {texts})), 1, 15)"
    aggregates = [f"sum({number(digits)})"]
    aggregates += [f"count(*) - count({column})" for column in COLUMNS]
    aggregates += [f"CAST(min({column}) AS {text})" for column in COLUMNS]
    aggregates += [f"CAST(max({column}) AS {text})" for column in COLUMNS]
    return f"SELECT {day}, count(*), {', '.join(aggregates)} FROM {source} GROUP BY {day}"


def of_rows(rows: Iterable[Sequence[Any]]) -> Summary:
    """Turn the rows of the query into a summary."""
    width = len(COLUMNS)
    return {
        str(day): Day(
            int(count),
            int(hashes),
            tuple(map(int, rest[:width])),
            tuple(rest[width : 2 * width]),
            tuple(rest[2 * width :]),
        )
        for day, count, hashes, *rest in rows
    }


def of_table(owner: psycopg.Connection) -> Summary:
    """Summarize the rows of user_logins that belong in the lake, in one statement."""
    statement = query(
        "user_logins WHERE create_date BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'",
        "create_date::text",
        lambda digits: f"('x' || {digits})::bit(60)::bigint",
    )
    return of_rows(owner.execute(statement).fetchall())


def sums_of_hashes(days: Sequence[str], rows: Sequence[str]) -> dict[str, int]:
    """Add up the hashes of rows, each a text of its values."""
    sums = dict.fromkeys(days, 0)
    for day, row in zip(days, rows, strict=True):
        sums[day] += int(hashlib.md5(row.encode()).hexdigest()[:15], 16)
    return sums


def of_json(printed: str) -> Summary:
    """Turn the last line that a reader printed, the rows of the query as JSON, into a summary."""
    return of_rows(json.loads(printed.splitlines()[-1]))
