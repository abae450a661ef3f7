"""The servers that every measurement needs, and a database for each measurement."""

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
from dev import demo, local_system, stack
from dev.emulator import REGION
from dev.local_system import MIGRATE, Services
from dev.stack import PACKAGE, read_template

LOGIN_ETL = [PACKAGE / "bootstrap"]
PYTHON_FUNCTION = [sys.executable, Path(__file__).with_name("python_function.py")]
COPY_FUNCTION = [sys.executable, Path(__file__).with_name("copy_function.py")]

WRITER = "login_writer"
SALT_ID = "bench/salt"
DATABASE_ID = "bench/database"
API_DATABASE_ID = "bench/api-database"

# Each measurement sets fsync. Autovacuum is off, because it would slow down some rounds and not
# others. Everything else is as in production.
#
# The manual of Postgres advises a cache of a quarter of the memory; the default is 128 MB:
# https://www.postgresql.org/docs/current/runtime-config-resource.html
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum": "off",
    "shared_buffers": "2GB",
}

# As the template sets it for the function.
_VARIABLES = read_template()["Globals"]["Function"]["Environment"]["Variables"]
ALLOCATOR = {name: _VARIABLES[name] for name in _VARIABLES if name.startswith("MALLOC_")}

# Lambda sets neither. With these set, a cold start would read a hundred more certificate files.
CERTIFICATE_VARIABLES = {"SSL_CERT_FILE", "SSL_CERT_DIR"}


@dataclass(frozen=True)
class Database:
    """A migrated database, empty at first, and the functions that write to it."""

    services: Services
    name: str

    @property
    def url(self) -> str:
        """The URL for the functions, without TLS."""
        return self._url(WRITER)

    @property
    def owner_url(self) -> str:
        """The URL for `migrate`, without TLS."""
        return self._url(local_system.SUPERUSER)

    def connect(self) -> psycopg.Connection:
        """Connect as the superuser, without TLS; each statement is a transaction of its own."""
        return psycopg.connect(self.owner_url, autocommit=True)

    def login_etl(self, **settings: str) -> AbstractContextManager[Function]:
        """Run the function."""
        return self._running(LOGIN_ETL, ALLOCATOR | settings)

    def python_function(self, **settings: str) -> AbstractContextManager[Function]:
        """Run the Python function."""
        return self._running(PYTHON_FUNCTION, settings)

    def api(self) -> AbstractContextManager[Function]:
        """Run the API's function, which fetches its credentials and verifies TLS."""
        secret = {"DATABASE_SECRET_ID": API_DATABASE_ID}
        return self._running([stack.binary("api")], ALLOCATOR | self.secret_settings | secret)

    def copy_function(self, messages: int) -> AbstractContextManager[Function]:
        """Run the COPY function, which writes the rows of this many messages for every event."""
        self.create_copy_table()
        ready = RESULTS / "ready-rows"
        ready.write_bytes(events.ready_rows(messages))
        return self._running(COPY_FUNCTION, {"READY_ROWS": str(ready)})

    def create_copy_table(self) -> None:
        """Create the table that the COPY function and the bare COPY write to: it has no ledger."""
        with self.connect() as admin:
            admin.execute("CREATE TABLE IF NOT EXISTS copied_logins (LIKE user_logins)")
            admin.execute(f"GRANT INSERT ON copied_logins TO {WRITER}")

    @property
    def secret_settings(self) -> dict[str, str]:
        """The settings for a function that fetches its credentials and verifies TLS."""
        return {
            "DATABASE_SECRET_ID": DATABASE_ID,
            "DATABASE_NAME": self.name,
            "DATABASE_CA_BUNDLE": str(self.services.postgres.certificate_authority),
        }

    def _running(
        self, command: list[str | Path], settings: dict[str, str]
    ) -> AbstractContextManager[Function]:
        url = {} if "DATABASE_SECRET_ID" in settings else {"DATABASE_URL": self.url}
        # Lambda sets the region in two variables; Python's SDK reads only the second.
        salt_and_region = {"SALT_SECRET_ID": SALT_ID, "AWS_DEFAULT_REGION": REGION}
        inherited = self.services.emulator.environment
        environment = {name: inherited[name] for name in inherited.keys() - CERTIFICATE_VARIABLES}
        return function.running(command, environment | salt_and_region | url | settings)

    def _url(self, user: str) -> str:
        return self.services.postgres.url(user, database=self.name, sslmode="disable")


@dataclass(frozen=True)
class BenchServers:
    """Postgres and the AWS emulator, with a migrated template for databases."""

    services: Services

    def database(self, name: str) -> Database:
        """Create an empty database."""
        with self.services.postgres.connect() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
        return Database(self.services, name)

    @property
    def postgres_version(self) -> str:
        """The version of Postgres, without the distribution's suffix."""
        with self.services.postgres.connect() as admin:
            return admin.info.parameter_status("server_version").split()[0]

    @property
    def fsync(self) -> str:
        """The value of fsync that Postgres runs with, `on` or `off`."""
        with self.services.postgres.connect() as admin:
            return admin.execute("SHOW fsync").fetchone()[0]

    def set_fsync(self, fsync: str) -> None:
        """Set Postgres's fsync; a change restarts the server."""
        postgres = self.services.postgres
        if self.fsync != fsync:
            postgres.settings = SETTINGS | {"fsync": fsync}
            postgres.restart()


@contextmanager
def running() -> Iterator[BenchServers]:
    """Start the servers, migrate the template database and store the secrets."""
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
        environment = {
            "DATABASE_URL": server.url(database="migrated", sslmode="disable"),
            "ANALYSTS": "true",
        }
        subprocess.run([MIGRATE], check=True, env=environment, stdout=subprocess.DEVNULL)
        # `url` uses the superuser's password for every user.
        admin.execute(f"ALTER ROLE {WRITER} PASSWORD '{server.password}'")
    demo.let_api_log_in(server, "migrated")


@contextmanager
def _secrets(services: Services) -> Iterator[None]:
    """Store the secrets, and delete them at the end: the emulator may outlive this program."""
    credentials = {
        "username": WRITER,
        "password": services.postgres.password,
        "host": "127.0.0.1",
        "port": services.postgres.port,
    }
    secrets = services.emulator.client("secretsmanager")
    texts = {
        SALT_ID: events.SALT,
        DATABASE_ID: json.dumps(credentials),
        API_DATABASE_ID: json.dumps(credentials | {"username": local_system.API_USER}),
    }
    for name, text in texts.items():
        secrets.create_secret(Name=name, SecretString=text)
    try:
        yield
    finally:
        for name in texts:
            secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
