"""Kills the export at random moments while late messages arrive; no row may be lost or doubled."""

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import pyarrow.parquet

from lake import sample
from lake.servers import Export

COUNT = "SELECT create_date::text, count(*) FROM user_logins GROUP BY create_date"
# The days that a late message may have: SQS keeps a message for 14 days.
LATE_DAYS = 14
LATE_MESSAGES = 5


@dataclass
class Kills:
    """What happened to the runs."""

    killed: int = 0
    ended: int = 0  # before they were to be killed
    late_messages: int = 0
    # The rows that each day had when a run read it, or later: no object may have another number.
    seen: dict[str, set[int]] = field(default_factory=dict)


def kill(export: Export, kills: int, seed: int) -> Iterator[Kills]:
    """Kill runs until this many were killed, and after each verify the objects that are there.

    A run is killed at a random moment of the time that a run takes which exports everything.
    """
    rng, done = random.Random(seed), Kills()
    remember(export, done)
    whole_s = _duration_s(export)
    while done.killed < kills:
        forget(export)
        process = subprocess.Popen(
            [export.program],
            env=export.lake.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(rng.uniform(0, whole_s))
            done.ended += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done.killed += 1
        verify_objects(export, done)
        write_late(export, rng, done)
        yield done
    export.succeed()


def forget(export: Export) -> None:
    """Mark all days as changed, so that each run has all of them to export."""
    with export.connect() as owner:
        owner.execute("SELECT lake.mark_changed(day) FROM lake.exports")


def remember(export: Export, done: Kills) -> None:
    """Remember how many rows each day has."""
    with export.connect() as owner:
        for day, rows in owner.execute(COUNT):
            done.seen.setdefault(day, set()).add(rows)


def verify_objects(export: Export, done: Kills) -> None:
    """Read each object; it must be whole, and have the rows of its day at some time."""
    with TemporaryDirectory() as folder:
        days = export.lake.download(Path(folder))
        for file in days.glob("*/*.parquet"):
            day = file.parent.name.removeprefix("dt=")
            table = pyarrow.parquet.read_table(file, partitioning=None)
            assert table.num_rows in done.seen[day], day
            assert set(map(str, table["create_date"].unique().to_pylist())) <= {day}


def write_late(export: Export, rng: random.Random, done: Kills) -> None:
    """Write some late messages, as if they were delivered just now."""
    with export.connect() as owner:
        for _ in range(LATE_MESSAGES):
            day = sample.today() - timedelta(rng.randrange(LATE_DAYS))
            done.late_messages += 1
            sample.write(owner, [sample.login(f"late-{done.late_messages}", day)])
    remember(export, done)


def late_rows(files: list[Path]) -> dict[str, int]:
    """Count the rows of each late message in files."""
    found: dict[str, int] = {}
    for file in files:
        for user in pyarrow.parquet.read_table(file, columns=["user_id"])["user_id"].to_pylist():
            if user and user.startswith("late-"):
                found[user] = found.get(user, 0) + 1
    return found


def _duration_s(export: Export) -> float:
    started = perf_counter()
    export.succeed()
    return perf_counter() - started
