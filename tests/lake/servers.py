"""The servers of all tests, and a database and a bucket for each test."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import psycopg

from dev import TARGET, local_system
from dev.lake import BUCKET, Lake
from dev.local_system import Services

PROGRAM = TARGET / "lambda" / "export" / "bootstrap"
TEMPLATE = "exportable"


class Book(NamedTuple):
    """What the books say of a day."""

    rows: int
    ledger_entries: int | None
    bytes: int
    final: bool
    changed: bool


@dataclass(frozen=True)
class Export:
    """A lake and the program that exports to it."""

    lake: Lake
    program: Path = PROGRAM

    def run(self, **variables: str) -> CompletedProcess[str]:
        """Run the export to its end, whatever its exit status."""
        return self.lake.run(self.program, **variables)

    def succeed(self, **variables: str) -> str:
        """Run the export, which must not fail; return what it printed."""
        done = self.run(**variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def connect(self) -> psycopg.Connection:
        """Connect as the owner."""
        return self.lake.postgres.connect(self.lake.database)

    def books(self) -> dict[str, Book]:
        """Read the books."""
        with self.connect() as owner:
            rows = owner.execute(
                "SELECT day::text, rows, ledger_entries, bytes, final, changed FROM lake.exports "
                "WHERE exported_at IS NOT NULL"
            )
            return {day: Book(*book) for day, *book in rows}

    def versions(self) -> dict[str, str]:
        """Return when each object was written last, by key."""
        pages = self.lake.s3.get_paginator("list_objects_v2").paginate(Bucket=self.lake.bucket)
        return {
            each["Key"]: f"{each['LastModified']} {each['ETag']}"
            for page in pages
            for each in page.get("Contents", [])
        }

    def unfinished_uploads(self) -> int:
        """Count the multipart uploads that were begun, and neither completed nor aborted."""
        listed = self.lake.s3.list_multipart_uploads(Bucket=self.lake.bucket)
        return len(listed.get("Uploads", []))


@contextmanager
def running(logs: Path) -> Iterator[Services]:
    """Start Postgres and the emulator, with a migrated database as a template for others."""
    with local_system.running_services(logs) as services:
        local_system.create_database(services.postgres)
        lake = Lake(services.postgres, services.emulator)
        lake.prepare()
        with services.postgres.connect(local_system.DATABASE) as owner:
            # As if the ledger had been there for a month, so that it counts all days that it keeps.
            owner.execute("UPDATE lake.state SET ledger_since = current_date - 30")
        with services.postgres.connect() as admin:
            admin.execute(f"ALTER DATABASE {local_system.DATABASE} RENAME TO {TEMPLATE}")
        yield services


def create(services: Services, program: Path = PROGRAM) -> Export:
    """Create a migrated database without logins, and a bucket without objects."""
    name = f"lake_{secrets.token_hex(4)}"
    with services.postgres.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    lake = Lake(services.postgres, services.emulator, name, f"{BUCKET}-{name[5:]}")
    lake.s3.create_bucket(Bucket=lake.bucket)
    return Export(lake, program)
