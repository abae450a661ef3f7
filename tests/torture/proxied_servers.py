"""The servers: Postgres and Secrets Manager, each behind a proxy."""

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

import psycopg
from botocore.client import BaseClient
from psycopg import sql

from dev import local_system, processes
from dev.local_system import DATABASE, Services
from torture import RESULTS, messages
from torture.generations import Generations
from torture.network import Proxy
from torture.vault import BROKER, Vault

WRITER = "login_writer"
LOGS = RESULTS / "servers"
SESSION_TIMEOUT_S = 60
SESSIONS = f"""
SELECT pid, state, wait_event_type, wait_event, backend_start::text
FROM pg_stat_activity WHERE usename = '{WRITER}'
"""

# The name of the sessions of migrate.
MIGRATE_NAME = "torture-migrate"

# Every password and salt starts with this, and nothing else does: one search finds all of them.
SECRET = "torture-secret-"

# Postgres logs everything, because its log is searched for raw values. A short deadlock_timeout
# ends a deadlock before the invocation's deadline.
SETTINGS = {
    "log_statement": "all",
    "log_error_verbosity": "verbose",
    "deadlock_timeout": "100ms",
    "track_commit_timestamp": "on",
}

# Keeps some transactions open for longer, so that more faults hit a transaction.
SLOW_TRIGGER = """
CREATE FUNCTION sleep_sometimes() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF random() < 0.1 THEN
        PERFORM pg_sleep(random() * 0.06);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER sleep_sometimes AFTER INSERT ON user_logins EXECUTE FUNCTION sleep_sometimes();
"""

# The partition of a day that is long over. It stays empty, because each row must have a message.
OLD_PARTITION = "user_logins_2020_01_01"
CREATE_OLD_PARTITION = f"""
CREATE TABLE {OLD_PARTITION} (LIKE user_logins INCLUDING CONSTRAINTS);
ALTER TABLE user_logins ATTACH PARTITION {OLD_PARTITION}
FOR VALUES FROM ('2020-01-01') TO ('2020-01-02');
"""


@dataclass
class ProxiedServers:
    """The servers that a function uses, and the faults that break them at the moment."""

    services: Services
    name: str
    generations: Generations
    vault: Vault
    secrets_manager: BaseClient
    postgres_proxy: Proxy
    secrets_proxy: Proxy
    active_faults: set[str] = field(default_factory=set)
    # Whether the secret has a later salt that the database has not accepted yet.
    resalt_pending: bool = False
    _password: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a function, with the most verbose log."""
        return self.services.emulator.environment | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.secrets_proxy.port}",
            "SALT_SECRET_ID": f"{self.name}/salt",
            "DATABASE_SECRET_ID": f"{self.name}/database",
            "DATABASE_CA_BUNDLE": str(self.services.postgres.certificate_authority),
            "RUST_LOG": "trace",
            **self.vault.public_key,
        }

    @property
    def migrate_environment(self) -> dict[str, str]:
        """The environment of migrate, which reaches the servers without a proxy."""
        server = self.services.postgres
        options = {"sslmode": "require", "application_name": MIGRATE_NAME}
        return self.services.emulator.environment | {
            "DATABASE_URL": server.url(database=DATABASE, **options),
            "DATABASE_CA_BUNDLE": str(server.certificate_authority),
            "SALT_SECRET_ID": f"{self.name}/salt",
            "RUST_LOG": "trace",
            **self.vault.settings,
        }

    def connect(self) -> psycopg.Connection:
        """Connect as the superuser, without the proxy, and able to write to a read-only server."""
        return self.services.postgres.connect(
            DATABASE, options="-cdefault_transaction_read_only=off"
        )

    def connect_broker(self) -> psycopg.Connection:
        """Connect as a member of login_vault."""
        server = self.services.postgres
        url = server.url(BROKER, self.vault.password, DATABASE, sslmode="require")
        options = "-cstatement_timeout=5s"
        return psycopg.connect(url, autocommit=True, connect_timeout=5, options=options)

    def execute(self, *statements: str) -> None:
        """Execute statements, each in a transaction of its own."""
        with self.connect() as admin:
            for statement in statements:
                admin.execute(statement)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute a query and return its rows."""
        with self.connect() as admin:
            return admin.execute(statement).fetchall()

    def drop_old_day(self) -> bool:
        """Add an old day, and run migrate, which drops it; return whether it is gone."""
        if not self._has_old_day():
            self.execute(CREATE_OLD_PARTITION)
        # It may fail while other runs of migrate are at work.
        with suppress(subprocess.CalledProcessError):
            local_system.migrate(self.services.postgres, LOGIN_RETENTION_DAYS="16")
        return not self._has_old_day()

    def _has_old_day(self) -> bool:
        return self.query(f"SELECT to_regclass('{OLD_PARTITION}') IS NOT NULL") == [(True,)]

    def kill_postgres(self) -> None:
        """Kill the server with SIGKILL."""
        self.services.postgres.stop(signal.SIGKILL)

    def start_postgres(self) -> None:
        """Start the server again."""
        self.services.postgres.start()

    def fill_disk(self) -> None:
        """Let no file of the server grow."""
        self._disk_full.touch()

    def free_disk(self) -> None:
        """Let files grow again, and start the server if it has crashed."""
        self._disk_full.unlink()
        if not processes.alive(self.services.postgres.process):
            self.start_postgres()

    def prepare_full_disk(self) -> None:
        """Restart the server with a library that can simulate a full disk."""
        server = self.services.postgres
        library = server.directory / "full_disk.so"
        source = Path(__file__).with_name("full_disk.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        server.environment = {"LD_PRELOAD": str(library), "FULL_DISK": str(self._disk_full)}
        server.restart()

    @property
    def _disk_full(self) -> Path:
        return self.services.postgres.directory / "disk-is-full"

    def change_password(self) -> None:
        """Change the writer's password, but not yet the secret."""
        self._password = new_secret()
        with self.connect() as admin:
            admin.execute("SET log_statement = 'none'")  # keeps the password out of the log
            alter = sql.SQL("ALTER ROLE {} PASSWORD {}")
            admin.execute(alter.format(sql.Identifier(WRITER), sql.Literal(self._password)))

    def store_password(self) -> None:
        """Store the writer's password in the secret."""
        self.secrets_manager.put_secret_value(
            SecretId=f"{self.name}/database", SecretString=self._credentials()
        )

    def store_salt(self, secret: str | None = None) -> None:
        """Store the salts in the secret, or another text."""
        self.secrets_manager.put_secret_value(
            SecretId=f"{self.name}/salt", SecretString=secret or self.generations.secret
        )

    def add_later_salt(self) -> None:
        """Add a later salt to the secret."""
        self.generations.later.append(new_secret())
        self.resalt_pending = True
        self.store_salt()

    def wait_for_writers(self) -> None:
        """Wait until all sessions of functions have ended, so that no row can be added."""
        deadline = monotonic() + SESSION_TIMEOUT_S
        while sessions := self.query(SESSIONS):
            if monotonic() > deadline:
                raise RuntimeError(f"all functions have ended, but sessions are open: {sessions}")
            sleep(0.1)

    def create_secrets(self) -> None:
        """Store the salt and the credentials."""
        for name, text in (
            ("salt", self.generations.secret),
            ("database", self._credentials()),
        ):
            self.secrets_manager.create_secret(Name=f"{self.name}/{name}", SecretString=text)

    def delete_secrets(self) -> None:
        """Delete the secrets: the emulator may outlive this program."""
        for name in ("salt", "database"):
            self.secrets_manager.delete_secret(
                SecretId=f"{self.name}/{name}", ForceDeleteWithoutRecovery=True
            )

    def _credentials(self) -> str:
        return json.dumps(
            {
                "username": WRITER,
                "password": self._password,
                "host": "127.0.0.1",
                "port": self.postgres_proxy.port,
                "dbname": DATABASE,
            }
        )


def new_secret() -> str:
    """Make a password or a salt."""
    return SECRET + secrets.token_urlsafe(32)


@contextmanager
def running() -> Iterator[ProxiedServers]:
    """Start the servers, prepare the database and store the secrets."""
    services = local_system.start_services(LOGS, SETTINGS)
    try:
        local_system.create_database(services.postgres)
        vault = Vault(password=new_secret())
        local_system.migrate(services.postgres, **vault.settings)
        endpoint = urlsplit(services.emulator.endpoint)
        servers = ProxiedServers(
            services,
            name=f"torture-{secrets.token_hex(3)}",
            generations=Generations(new_secret()),
            vault=vault,
            secrets_manager=services.emulator.client("secretsmanager"),
            postgres_proxy=Proxy(("127.0.0.1", services.postgres.port), processes.free_port()),
            secrets_proxy=Proxy((endpoint.hostname, endpoint.port), processes.free_port()),
        )
        servers.prepare_full_disk()
        servers.execute(*messages.REFUSALS.values(), messages.SUPPRESSION, SLOW_TRIGGER)
        with servers.connect() as owner:
            vault.prepare(owner)
        servers.change_password()
        servers.create_secrets()
        try:
            yield servers
        finally:
            servers.delete_secrets()
    finally:
        services.stop()
