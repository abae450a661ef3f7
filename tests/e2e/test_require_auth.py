"""The programs log in only by the methods that `require_auth` permits, as libpq does."""

import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread

import psycopg
import pytest

from dev import local_system, postgres
from dev.postgres import LOOPBACK, Postgres

METHODS = {"none": "trust", "password": "password", "md5": "md5", "scram-sha-256": "scram-sha-256"}
REQUIREMENTS = [
    *METHODS,
    "password,md5",
    "scram-sha-256,none",
    "!none",
    "!password,!md5",
    "!none,!password,!md5,!scram-sha-256",
]
PASSWORD = "correct horse"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)

# What a server sends first: https://www.postgresql.org/docs/current/protocol-message-formats.html
REQUESTS = {
    "password": b"R" + struct.pack("!ii", 8, 3),
    "md5": b"R" + struct.pack("!ii", 12, 5) + b"salt",
    # The login succeeds at once, and the server waits for statements.
    "none": b"R" + struct.pack("!ii", 8, 0) + b"K" + struct.pack("!iii", 12, 1, 1) + b"Z\0\0\0\5I",
    # A later method must not be permitted because of an earlier message.
    "notice": b"N\0\0\0\5\0" + b"R" + struct.pack("!ii", 8, 3),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Start a Postgres with a superuser for each method, because its tests replace pg_hba.conf."""
    directory = local_system.make_directory()
    started = postgres.create(directory / "postgres", directory / "postgres.log")
    rules = directory / "postgres" / "data" / "pg_hba.conf"
    with started.connect() as admin:
        for method, rule in METHODS.items():
            encryption = "md5" if method == "md5" else "scram-sha-256"
            admin.execute(f"SET password_encryption = '{encryption}'")
            role = _role(method)
            admin.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
            rules.write_text(f"hostssl all {role} all {rule}\n{rules.read_text()}")
        admin.execute("SELECT pg_reload_conf()")
    yield started
    started.stop()
    shutil.rmtree(directory)


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_methods_equal_those_of_libpq(server: Postgres, requirement: str) -> None:
    permitted = {method: _libpq_accepts(server, method, requirement) for method in METHODS}

    accepted = {
        method: _refusal(_migrate(server, _role(method), require_auth=requirement)) is None
        for method in METHODS
    }

    assert accepted == permitted


def test_only_scram_is_permitted_by_default(server: Postgres) -> None:
    refusals = {method: _refusal(_migrate(server, _role(method))) for method in METHODS}

    assert refusals == {
        "none": "the server requires no password: configure scram-sha-256 in pg_hba.conf or in the"
        " connection pooler, or permit none by require_auth in DATABASE_URL",
        "password": "the server requires the password in clear text: configure scram-sha-256 in"
        " pg_hba.conf or in the connection pooler, or permit password by require_auth in"
        " DATABASE_URL",
        "md5": "the server requires the password as an MD5 hash: set the password again with"
        " password_encryption = scram-sha-256, or permit md5 by require_auth in DATABASE_URL",
        "scram-sha-256": None,
    }


def test_url_without_password_permits_all_methods(server: Postgres) -> None:
    refusals = {
        method: _refusal(_migrate(server, _role(method), password="")) for method in METHODS
    }

    no_password = "the server requires a password, and DATABASE_URL has none"
    assert refusals == {
        "none": None,
        "password": no_password,
        "md5": no_password,
        "scram-sha-256": no_password,
    }


@pytest.mark.parametrize("fragment", [1, 64])
@pytest.mark.parametrize("request_name", REQUESTS)
def test_impostor_with_trusted_certificate_gets_nothing(
    server: Postgres, request_name: str, fragment: int
) -> None:
    with _Impostor(server, REQUESTS[request_name], fragment) as impostor:
        refused = _migrate(server, "login_writer", port=impostor.port)

    assert refused.returncode != 0
    assert impostor.user == b"login_writer"
    assert impostor.received == b""


class _Impostor:
    """A server with another server's certificate, which records what a client sends to log in."""

    def __init__(self, server: Postgres, request: bytes, fragment: int) -> None:
        self.request, self.fragment = request, fragment
        self.user, self.received = b"", b""
        data = server.directory / "data"
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(data / "server.pem", data / "server.key")
        self.listener = socket.create_server((LOOPBACK, 0))
        self.port = self.listener.getsockname()[1]
        self.thread = Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "_Impostor":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(10)
        self.listener.close()
        assert not self.thread.is_alive()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(5)
        assert connection.recv(len(SSL_REQUEST)) == SSL_REQUEST
        connection.sendall(b"S")
        with self.tls.wrap_socket(connection, server_side=True) as stream:
            startup = stream.recv(4096)
            fields = startup[8:].split(b"\0")
            self.user = fields[fields.index(b"user") + 1]
            # The client may end the connection before it has received everything.
            with suppress(OSError):
                for start in range(0, len(self.request), self.fragment):
                    stream.sendall(self.request[start : start + self.fragment])
                while received := stream.recv(4096):
                    self.received += received


def _role(method: str) -> str:
    """Return the superuser whom the server lets in by this method."""
    return "by_" + method.replace("-", "_")


def _libpq_accepts(server: Postgres, method: str, requirement: str) -> bool:
    url = server.url(_role(method), PASSWORD, sslmode="require", require_auth=requirement)
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


def _migrate(
    server: Postgres,
    user: str,
    *,
    password: str = PASSWORD,
    port: int | None = None,
    **options: str,
) -> subprocess.CompletedProcess[str]:
    url = server.url(user, password, sslmode="require", **options)
    if port is not None:
        url = url.replace(f":{server.port}/", f":{port}/")
    environment = {"DATABASE_URL": url, "DATABASE_CA_BUNDLE": str(server.certificate_authority)}
    return subprocess.run(
        [local_system.MIGRATE],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )


def _refusal(migrated: subprocess.CompletedProcess[str]) -> str | None:
    """Return why the program refused to log in; none if it migrated the database."""
    if migrated.returncode == 0:
        return None
    _, _, cause = migrated.stdout.partition("Postgres cannot be reached: ")
    cause, _, _ = cause.partition('"')
    assert cause, migrated.stdout
    return cause
