"""The lake on this machine: exports a database to the emulator's S3, and reads the objects."""

import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import duckdb
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from dev import stack
from dev.emulator import Emulator
from dev.local_system import DATABASE, MIGRATE
from dev.postgres import Postgres

BUCKET = "login-etl-lake"
PREFIX = "user_logins/"
EXPORT_USER = "login_export"
SECRET_ID = "lake/login_export"
TIMEOUT_S = 600

COUNT = """
SELECT dt, count(*) AS rows
FROM read_parquet(?, hive_partitioning = true, hive_types = {'dt': VARCHAR})
GROUP BY dt
"""


@dataclass(frozen=True)
class Lake:
    """A database that is exported, and the bucket that it is exported to."""

    postgres: Postgres
    emulator: Emulator
    database: str = DATABASE
    bucket: str = BUCKET

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the export."""
        return self.emulator.environment | {
            "DATABASE_SECRET_ID": SECRET_ID,
            "DATABASE_NAME": self.database,
            "DATABASE_CA_BUNDLE": str(self.postgres.certificate_authority),
            "EXPORT_BUCKET": self.bucket,
        }

    @property
    def s3(self) -> BaseClient:
        """A client of the S3 with the bucket."""
        return self.emulator.client("s3")

    def prepare(self) -> None:
        """Create what the export needs, if it is missing: its schema and login, and the bucket."""
        environment = self.emulator.environment | {
            "DATABASE_URL": self.postgres.url(database=self.database, sslmode="require"),
            "DATABASE_CA_BUNDLE": str(self.postgres.certificate_authority),
            "EXPORT": "true",
            "EXPORT_SECRET_ID": _secret(self.postgres, self.emulator),
            "RUST_LOG": "warn",
        }
        subprocess.run([MIGRATE], check=True, env=environment)
        self.s3.create_bucket(Bucket=self.bucket)

    def run(self, program: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the export to its end; variables change its environment."""
        return subprocess.run(
            [program],
            env=self.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )

    def objects(self) -> dict[str, int]:
        """Return the bytes of each object, by key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}

    def download(self, folder: Path) -> Path:
        """Write each object to a file of its key in a new folder; return the folder of the days."""
        for key in self.objects():
            file = folder / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())
        return folder / PREFIX


def count(days: Path) -> dict[str, int]:
    """Return the rows of each day in a folder of days, as DuckDB counts them."""
    if not any(days.glob("*/*.parquet")):
        return {}
    return dict(duckdb.execute(COUNT, [str(days / "*" / "*.parquet")]).fetchall())


def program(folder: Path) -> Path:
    """Copy the program that `make build-export` built."""
    return stack.copy_binary("export", folder)


def _secret(server: Postgres, emulator: Emulator) -> str:
    """Return the secret with the login of the export; create it if it does not exist."""
    credentials = {
        "username": EXPORT_USER,
        "password": secrets.token_urlsafe(24),
        "host": server.host,
        "port": server.port,
    }
    manager = emulator.client("secretsmanager")
    try:
        manager.create_secret(Name=SECRET_ID, SecretString=json.dumps(credentials))
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceExistsException":
            raise
    return SECRET_ID
