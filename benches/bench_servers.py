"""What every measurement needs: the servers, the secrets, a database each, and the functions."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benches import RESULTS, events, function
from benches.function import Function
from dev import local_system
from dev.emulator import REGION
from dev.local_system import MIGRATE, Services
from dev.stack import PACKAGE, read_template

OURS = [PACKAGE / "bootstrap"]
PYTHON = [sys.executable, Path(__file__).with_name("python_function.py")]
FLOOR = [sys.executable, Path(__file__).with_name("floor_function.py")]

WRITER = "login_writer"
SALT_ID = "bench/salt"
DATABASE_ID = "bench/database"

# As a server is in production, but for two things. It waits for the disk only when it is told to:
# what is added to both sides of a ratio makes it look better. And it cleans up when it is told to,
# not in the middle of somebody's turn.
SETTINGS = {"fsync": "off", "full_page_writes": "on", "autovacuum": "off"}
DURABLE = {"fsync": "on"}

# As the template sets it for the function.
_VARIABLES = read_template()["Globals"]["Function"]["Environment"]["Variables"]
ALLOCATOR = {name: _VARIABLES[name] for name in _VARIABLES if name.startswith("MALLOC_")}

# Lambda sets neither; with them a machine's authorities are read from a hundred files more.
AUTHORITIES = {"SSL_CERT_FILE", "SSL_CERT_DIR"}


@dataclass(frozen=True)
class Database:
    """A migrated database, empty at first, and the ways into it."""

    services: Services
    name: str

    @property
    def url(self) -> str:
        """The address for the function, in the clear."""
        return self._url(WRITER)

    def connect(self) -> psycopg.Connection:
        """Connect as its owner, in the clear as the function does; commit each statement."""
        return psycopg.connect(self._url(local_system.SUPERUSER), autocommit=True)

    def ours(self, **settings: str) -> AbstractContextManager[Function]:
        """Run the function."""
        return self._running(OURS, ALLOCATOR | settings)

    def python(self, **settings: str) -> AbstractContextManager[Function]:
        """Run the function in Python."""
        return self._running(PYTHON, settings)

    def floor(self, messages: int) -> AbstractContextManager[Function]:
        """Run the least function."""
        with self.connect() as admin:
            admin.execute("CREATE TABLE IF NOT EXISTS floor (LIKE user_logins)")
            admin.execute(f"GRANT INSERT ON floor TO {WRITER}")
        ready = RESULTS / "ready-rows"
        ready.write_bytes(events.ready_rows(messages))
        return self._running(FLOOR, {"READY_ROWS": str(ready)})

    @property
    def by_secret(self) -> dict[str, str]:
        """The settings of a function that asks for its credentials, and verifies the server."""
        return {
            "DATABASE_SECRET_ID": DATABASE_ID,
            "DATABASE_NAME": self.name,
            "DATABASE_CA_BUNDLE": str(self.services.postgres.certificate_authority),
        }

    def _running(
        self, command: list[str | Path], settings: dict[str, str]
    ) -> AbstractContextManager[Function]:
        where = {} if "DATABASE_SECRET_ID" in settings else {"DATABASE_URL": self.url}
        # Lambda sets the region under both names; Python's SDK knows only the second.
        salt_and_region = {"SALT_SECRET_ID": SALT_ID, "AWS_DEFAULT_REGION": REGION}
        inherited = self.services.emulator.environment
        environment = {name: inherited[name] for name in inherited.keys() - AUTHORITIES}
        return function.running(command, environment | salt_and_region | where | settings)

    def _url(self, user: str) -> str:
        return self.services.postgres.url(user, database=self.name, sslmode="disable")


@dataclass(frozen=True)
class BenchServers:
    """The servers, with a migrated database to copy."""

    services: Services

    def database(self, name: str) -> Database:
        """Make an empty database."""
        with self.services.postgres.connect() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
        return Database(self.services, name)

    @property
    def postgres_version(self) -> str:
        """The version of the server."""
        with self.services.postgres.connect() as admin:
            return admin.info.parameter_status("server_version")

    @contextmanager
    def durable(self) -> Iterator[None]:
        """Have the server wait for the disk for a while."""
        self._restart(SETTINGS | DURABLE)
        try:
            yield
        finally:
            self._restart(SETTINGS)

    def _restart(self, settings: dict[str, str]) -> None:
        self.services.postgres.settings = settings
        self.services.postgres.restart()


@contextmanager
def running() -> Iterator[BenchServers]:
    """Start the servers, migrate a database and store the secrets."""
    services = local_system.start_services(RESULTS / "logs", SETTINGS)
    try:
        _migrate(services)
        with _secrets(services):
            yield BenchServers(services)
    finally:
        services.stop()


def _migrate(services: Services) -> None:
    server = services.postgres
    with server.connect() as admin:
        admin.execute("CREATE DATABASE migrated")
        environment = {"DATABASE_URL": server.url(database="migrated", sslmode="disable")}
        subprocess.run([MIGRATE], check=True, env=environment, stdout=subprocess.DEVNULL)
        # One password for all, so that `url` needs to know no other.
        admin.execute(f"ALTER ROLE {WRITER} PASSWORD '{server.password}'")


@contextmanager
def _secrets(services: Services) -> Iterator[None]:
    """Store the secrets for a while: the emulator may not be ours."""
    credentials = {
        "username": WRITER,
        "password": services.postgres.password,
        "host": "127.0.0.1",
        "port": services.postgres.port,
    }
    secrets = services.emulator.client("secretsmanager")
    texts = {SALT_ID: events.SALT, DATABASE_ID: json.dumps(credentials)}
    for name, text in texts.items():
        secrets.create_secret(Name=name, SecretString=text)
    try:
        yield
    finally:
        for name in texts:
            secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
