"""The servers: Postgres and Secrets Manager, each behind a proxy."""

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
from torture.network import Proxy

WRITER = "login_writer"
LOGS = RESULTS / "servers"
PATIENCE_S = 60

# Every password and salt begins like this, and nothing else does: one search finds them all.
SECRET = "torture-secret-"

# Postgres logs all it can, detects deadlocks at once, and is not waited for.
SETTINGS = {
    "log_statement": "all",
    "log_error_verbosity": "verbose",
    "deadlock_timeout": "100ms",
}

# Keeps transactions open a little, so that more can go wrong with them.
TROUBLE = """
CREATE FUNCTION trouble() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF random() < 0.1 THEN
        PERFORM pg_sleep(random() * 0.06);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER trouble AFTER INSERT ON user_logins EXECUTE FUNCTION trouble();
"""


@dataclass
class ProxiedServers:
    """Everything that a function needs."""

    services: Services
    name: str
    salt: str
    secrets_manager: BaseClient
    postgres_proxy: Proxy
    secrets_proxy: Proxy
    trouble: set[str] = field(default_factory=set)
    _password: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a function, with the most verbose log."""
        return self.services.emulator.environment | {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.secrets_proxy.port}",
            "SALT_SECRET_ID": f"{self.name}/salt",
            "DATABASE_SECRET_ID": f"{self.name}/database",
            "DATABASE_CA_BUNDLE": str(self.services.postgres.certificate_authority),
            "RUST_LOG": "trace",
        }

    def connect(self) -> psycopg.Connection:
        """Connect past the proxy as who may do everything, also while all others may only read."""
        return self.services.postgres.connect(
            DATABASE, options="-cdefault_transaction_read_only=off"
        )

    def execute(self, *statements: str) -> None:
        """Do something to the database, each statement for itself."""
        with self.connect() as admin:
            for statement in statements:
                admin.execute(statement)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self.connect() as admin:
            return admin.execute(statement).fetchall()

    def kill_postgres(self) -> None:
        """Do to the server what a power cut does."""
        self.services.postgres.stop(signal.SIGKILL)

    def start_postgres(self) -> None:
        """Start the server again."""
        self.services.postgres.start()

    def fill_disk(self) -> None:
        """Leave no room for any file of the server's to grow."""
        self._disk_full.touch()

    def free_disk(self) -> None:
        """Make room again, and start the server if it could not go on."""
        self._disk_full.unlink()
        if not processes.alive(self.services.postgres.process):
            self.start_postgres()

    def give_full_disk(self) -> None:
        """Start the server anew, on a disk that can be full."""
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
        """Give the writer another password, which the secret does not have yet."""
        self._password = new_secret()
        with self.connect() as admin:
            admin.execute("SET log_statement = 'none'")  # a password is not for the log
            alter = sql.SQL("ALTER ROLE {} PASSWORD {}")
            admin.execute(alter.format(sql.Identifier(WRITER), sql.Literal(self._password)))

    def store_password(self) -> None:
        """Put the writer's password into the secret."""
        self.secrets_manager.put_secret_value(
            SecretId=f"{self.name}/database", SecretString=self._credentials()
        )

    def store_salt(self, salt: str) -> None:
        """Put a salt into the secret."""
        self.secrets_manager.put_secret_value(SecretId=f"{self.name}/salt", SecretString=salt)

    def wait_for_writers(self) -> None:
        """Wait until no session of a function is left, so that nothing can be written any more."""
        sessions = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{WRITER}'"
        deadline = monotonic() + PATIENCE_S
        while self.query(sessions) != [(0,)]:
            if monotonic() > deadline:
                raise RuntimeError("sessions of functions are open, though all functions ended")
            sleep(0.1)

    def create_secrets(self) -> None:
        """Store the salt and the credentials."""
        for name, text in (("salt", self.salt), ("database", self._credentials())):
            self.secrets_manager.create_secret(Name=f"{self.name}/{name}", SecretString=text)

    def delete_secrets(self) -> None:
        """Delete the secrets, for the emulator may not be ours."""
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
        endpoint = urlsplit(services.emulator.endpoint)
        servers = ProxiedServers(
            services,
            name=f"torture-{secrets.token_hex(3)}",
            salt=new_secret(),
            secrets_manager=services.emulator.client("secretsmanager"),
            postgres_proxy=Proxy(("127.0.0.1", services.postgres.port), processes.free_port()),
            secrets_proxy=Proxy((endpoint.hostname, endpoint.port), processes.free_port()),
        )
        servers.give_full_disk()
        servers.execute(messages.CONSTRAINT, TROUBLE)
        servers.change_password()
        servers.create_secrets()
        try:
            yield servers
        finally:
            servers.delete_secrets()
    finally:
        services.stop()
