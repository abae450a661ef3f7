"""The system on this machine: Postgres, the emulator, and the stack deployed to them."""

import os
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from dev import TARGET, emulator, postgres, processes, stack, vault
from dev.emulator import Emulator
from dev.postgres import LOOPBACK, SUPERUSER, Postgres
from dev.processes import Process
from dev.stack import Stack

DATABASE = "logins"
API_USER = "login_api"
MIGRATE = TARGET / "lambda" / "migrate" / "bootstrap"

# Short times: a bad message is tried twice and reaches the dead-letter queue after 2 x 3 seconds.
# With the template's defaults that takes more than an hour.
FAST_PARAMETERS = {
    "FunctionTimeout": 3,
    "VisibilityTimeout": 3,
    "MaxReceiveCount": 2,
    "BatchSize": 10,
    "BatchingWindow": 0,
    "MaximumConcurrency": 2,
    "AlarmAgeSeconds": 2,
    # No emulator supports saved queries.
    "SavedQueries": "false",
}


@dataclass
class Services:
    """The two servers, and the directory of their data."""

    directory: Path
    postgres: Postgres
    emulator: Emulator
    # The emulator whose KMS the functions call; None without a vault.
    kms: Emulator | None = None

    def stop(self) -> None:
        """Stop the servers and remove their data."""
        self.emulator.stop()
        if self.kms is not None:
            self.kms.stop()
        self.postgres.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass
class Page:
    """The analysts' API and page, as a plain server: nothing signs requests on this machine."""

    process: Process
    url: str


@dataclass
class LocalSystem:
    """The servers, the deployed stack, and the passwords of the database's users."""

    services: Services
    stack: Stack
    passwords: dict[str, str]
    # None without analysts.
    page: Page | None = None

    @property
    def emulator(self) -> Emulator:
        """The emulator that the stack is deployed to."""
        return self.services.emulator

    @property
    def postgres(self) -> Postgres:
        """The Postgres that the function writes to."""
        return self.services.postgres

    def psql(self, user: str) -> str:
        """Return the command that logs in as a user. Other users can read a program's arguments."""
        url = self._url(user, password="")
        return f"PGPASSWORD={shlex.quote(self.passwords[user])} psql '{url}'"

    def url(self, user: str) -> str:
        """Return the URL with which a client logs in as a user."""
        return self._url(user, self.passwords[user])

    def _url(self, user: str, password: str) -> str:
        return self.postgres.url(
            user,
            password,
            DATABASE,
            sslmode="verify-full",
            sslrootcert=str(self.postgres.certificate_authority),
        )

    def stop(self) -> None:
        """Stop the servers; erase the stack from an emulator that was not started here."""
        if self.page is not None:
            processes.stop(self.page.process)
        if self.emulator.process is None:
            stack.erase(self.emulator, self.stack.name)
        self.services.stop()

    def connect(self, user: str = SUPERUSER) -> psycopg.Connection:
        """Connect to the database that the function writes to."""
        return psycopg.connect(self.url(user), autocommit=True, connect_timeout=5)


@contextmanager
def running(
    logs: Path, settings: dict[str, str] | None = None, **parameters: str | int
) -> Iterator[LocalSystem]:
    """Start the system, and stop it at the end."""
    system = start(logs, settings, **parameters)
    try:
        yield system
    finally:
        system.stop()


def start(
    logs: Path,
    settings: dict[str, str] | None = None,
    *,
    with_vault: bool = False,
    **parameters: str | int,
) -> LocalSystem:
    """Start the system, by choice with a vault; if a part fails, stop the parts that run."""
    services = start_services(logs, settings, with_kms=with_vault)
    # A random name: an emulator that was not started here may have the stack of another run.
    name = f"login-etl-{secrets.token_hex(3)}"
    try:
        if services.kms:
            key = vault.create_key(services.kms)
            parameters |= {"Vault": "true", "VaultKeyArn": key}
        return _deploy(services, name, parameters)
    except BaseException:
        if services.emulator.process is None:
            stack.erase(services.emulator, name)
        services.stop()
        raise


@contextmanager
def running_services(
    logs: Path,
    settings: dict[str, str] | None = None,
    start_emulator: Callable[..., Emulator] = emulator.create,
    *,
    with_kms: bool = False,
) -> Iterator[Services]:
    """Start the two servers, by choice with a KMS for the vault, and stop them at the end."""
    services = start_services(logs, settings, start_emulator, with_kms=with_kms)
    try:
        yield services
    finally:
        services.stop()


def start_services(
    logs: Path,
    settings: dict[str, str] | None = None,
    start_emulator: Callable[..., Emulator] = emulator.create,
    *,
    with_kms: bool = False,
) -> Services:
    """Start the servers; if one fails, stop those before it.

    E2E_DATABASE_HOST is the functions' name for this machine, by default the loopback; and
    E2E_DATABASE_LISTEN the address of this machine that this name stands for.
    """
    directory = make_directory()
    shutil.rmtree(logs, ignore_errors=True)
    # An emulator may log the body of a request.
    logs.mkdir(mode=0o700, parents=True)
    database = kms = None
    try:
        database = postgres.create(
            directory / "postgres",
            logs / "postgres.log",
            settings,
            host=os.environ.get("E2E_DATABASE_HOST", LOOPBACK),
            listen=os.environ.get("E2E_DATABASE_LISTEN"),
        )
        if with_kms:
            kms = vault.start_kms(directory / "kms", logs / "kms.log")
        settings_of_kms = {"AWS_ENDPOINT_URL_KMS": kms.endpoint} if kms else {}
        aws = start_emulator(directory / "emulator", logs / "emulator.log", **settings_of_kms)
    except BaseException:
        for started in (kms, database):
            if started is not None:
                started.stop()
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return Services(directory, database, aws, kms)


def make_directory() -> Path:
    """Make a temporary directory that any user can enter."""
    # Not in TMPDIR where we are root: Postgres runs as another user, who may not enter that.
    directory = Path(tempfile.mkdtemp(prefix="login-etl-", dir=None if os.geteuid() else "/tmp"))
    directory.chmod(0o711)
    return directory


def create_database(server: Postgres) -> None:
    """Create and migrate the database, for callers that deploy no stack."""
    _create_empty(server)
    migrate(server)


def _create_empty(server: Postgres) -> None:
    with server.connect() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _deploy(services: Services, name: str, parameters: dict[str, str | int]) -> LocalSystem:
    """Create an empty database, and the stack that migrates it and writes to it."""
    server = services.postgres
    _create_empty(server)
    deployed = stack.deploy(
        services.emulator,
        name,
        {"username": SUPERUSER, "password": server.password},
        server.certificate_authority,
        {**FAST_PARAMETERS, "DatabaseHost": server.host, "DatabasePort": server.port, **parameters},
    )
    passwords = {
        SUPERUSER: server.password,
        "login_writer": stack.writer_password(services.emulator, deployed),
        "analyst": create_analyst(server),
    }
    return LocalSystem(services, deployed, passwords)


def serve_page(system: LocalSystem, log: Path) -> Page:
    """Start the analysts' API on a loopback port, logged in as the deployed function is."""
    password = stack.api_password(system.emulator, system.stack)
    port = processes.free_port()
    process = start_api(system.postgres, password, port, log)
    return Page(process, f"http://{LOOPBACK}:{port}/")


def start_api(
    server: Postgres,
    password: str,
    port: int,
    log: Path,
    database: str = DATABASE,
    **variables: str,
) -> Process:
    """Start the analysts' API as a plain server, logged in as `login_api`; wait until it listens.

    Variables change its environment.
    """
    environment = {
        "LISTEN": f"{LOOPBACK}:{port}",
        "DATABASE_URL": server.url(API_USER, password, database, sslmode="require"),
        "DATABASE_CA_BUNDLE": str(server.certificate_authority),
        "AWS_EC2_METADATA_DISABLED": "true",
        **variables,
    }
    program = stack.copy_binary("api", log.parent)
    process = processes.start([program], log=log, cwd=log.parent, env=environment)
    processes.wait_until(
        lambda: processes.listens(process, port), "the analysts' API", process, log
    )
    return process


def create_analyst(server: Postgres) -> str:
    """Create a member of login_reader; return the password."""
    password = secrets.token_urlsafe(24)
    with server.connect() as admin:
        admin.execute("SET log_statement = 'none'")  # keeps the password out of the log
        create = sql.SQL("CREATE ROLE analyst LOGIN IN ROLE login_reader PASSWORD {}")
        admin.execute(create.format(sql.Literal(password)))
    return password


def migrate(server: Postgres, **variables: str) -> None:
    """Run the migration program as the owner of the schema, with further variables."""
    if not MIGRATE.exists():
        raise SystemExit("The migrate program is not built. Run: make build")
    environment = {
        "DATABASE_URL": server.url(database=DATABASE, sslmode="require"),
        "DATABASE_CA_BUNDLE": str(server.certificate_authority),
        "RUST_LOG": "warn",
        **variables,
    }
    subprocess.run([MIGRATE], check=True, env=environment)
