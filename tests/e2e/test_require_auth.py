"""The programs log in only by the methods that `require_auth` permits, as libpq does."""

import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from select import select
from threading import Thread
from typing import Self

import psycopg
import pytest
import trustme

from dev import local_system, postgres
from dev.postgres import LOOPBACK, Postgres

pytestmark = pytest.mark.without_emulator

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

AUTHENTICATION_OK = b"R" + struct.pack("!ii", 8, 0)
SCRAM = b"R" + struct.pack("!ii", 23, 10) + b"SCRAM-SHA-256\0\0"
SCRAM_WITH_BINDING = b"R" + struct.pack("!ii", 42, 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"

# What a server sends first: https://www.postgresql.org/docs/current/protocol-message-formats.html
REQUESTS = {
    "password": b"R" + struct.pack("!ii", 8, 3),
    "md5": b"R" + struct.pack("!ii", 12, 5) + b"salt",
    # The login succeeds at once, and the server waits for statements.
    "none": AUTHENTICATION_OK + b"K" + struct.pack("!iii", 12, 1, 1) + b"Z\0\0\0\5I",
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
        refused = _migrate(server, "login_writer", through=impostor)

    assert refused.returncode != 0
    assert impostor.user == b"login_writer"
    assert impostor.received == b""


@pytest.mark.parametrize("hides_binding", [False, True], ids=["as-it-is", "hidden"])
def test_login_is_not_forwarded_over_tls(
    server: Postgres, tmp_path: Path, *, hides_binding: bool
) -> None:
    with _Relay(server, tmp_path, with_tls=True, hides_binding=hides_binding) as relay:
        refused = _migrate(server, _role("scram-sha-256"), through=relay)

    assert (relay.logins, relay.hidden) == (0, hides_binding)
    assert "Postgres refused the login, SQLSTATE 28000" in refused.stdout


def test_login_is_forwarded_without_tls_unless_bound(server: Postgres, tmp_path: Path) -> None:
    with _Relay(server, tmp_path, with_tls=False) as relay:
        forwarded = _migrate(server, _role("scram-sha-256"), through=relay)
    with _Relay(server, tmp_path, with_tls=False) as relay:
        refused = _migrate(server, _role("scram-sha-256"), through=relay, channel_binding="require")

    assert forwarded.returncode == 0
    assert _refusal(refused) == "the server does not offer channel binding, which is required"
    assert relay.logins == 0


class _Listener:
    """Accepts one connection with TLS, in a thread."""

    def __init__(self, authority: Path, tls: ssl.SSLContext) -> None:
        self.authority, self.tls = authority, tls
        self.listener = socket.create_server((LOOPBACK, 0))
        self.port = self.listener.getsockname()[1]
        self.thread = Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(10)
        self.listener.close()
        assert not self.thread.is_alive()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(5)
        assert connection.recv(len(SSL_REQUEST)) == SSL_REQUEST
        connection.sendall(b"S")
        # The client may end the connection before it has received everything.
        with self.tls.wrap_socket(connection, server_side=True) as stream, suppress(OSError):
            self._serve(stream)

    def _serve(self, client: ssl.SSLSocket) -> None:
        raise NotImplementedError


class _Impostor(_Listener):
    """A server with another server's certificate, which records what a client sends to log in."""

    def __init__(self, server: Postgres, request: bytes, fragment: int) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        data = server.directory / "data"
        tls.load_cert_chain(data / "server.pem", data / "server.key")
        super().__init__(server.certificate_authority, tls)
        self.request, self.fragment = request, fragment
        self.user, self.received = b"", b""

    def _serve(self, client: ssl.SSLSocket) -> None:
        fields = client.recv(4096)[8:].split(b"\0")
        self.user = fields[fields.index(b"user") + 1]
        for start in range(0, len(self.request), self.fragment):
            client.sendall(self.request[start : start + self.fragment])
        while received := client.recv(4096):
            self.received += received


class _Relay(_Listener):
    """A proxy with a trusted certificate of its own, which forwards a login to the server."""

    def __init__(
        self, server: Postgres, directory: Path, *, with_tls: bool, hides_binding: bool = False
    ) -> None:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(LOOPBACK).configure_cert(tls)
        authority.cert_pem.write_to_path(directory / "ca.pem")
        super().__init__(directory / "ca.pem", tls)
        self.server, self.with_tls, self.hides_binding = server, with_tls, hides_binding
        self.logins, self.hidden = 0, False

    def _serve(self, client: ssl.SSLSocket) -> None:
        with self._connect() as server:
            while True:
                for source in select([client, server], [], [], 5)[0]:
                    received = source.recv(1 << 16)
                    if not received:
                        return
                    if source is client:
                        server.sendall(received)
                    else:
                        self.logins += AUTHENTICATION_OK in received
                        client.sendall(self._edit(received))

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((LOOPBACK, self.server.port), timeout=5)
        if not self.with_tls:
            return connection
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        return unverified.wrap_socket(connection)

    def _edit(self, received: bytes) -> bytes:
        if self.hides_binding and received == SCRAM_WITH_BINDING:
            self.hidden = True
            return SCRAM
        return received


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
    role: str,
    *,
    password: str = PASSWORD,
    through: _Listener | None = None,
    **options: str,
) -> subprocess.CompletedProcess[str]:
    url = server.url(role, password, sslmode="require", **options)
    authority = server.certificate_authority
    if through is not None:
        url = url.replace(f":{server.port}/", f":{through.port}/")
        authority = through.authority
    return subprocess.run(
        [local_system.MIGRATE],
        check=False,
        env={"DATABASE_URL": url, "DATABASE_CA_BUNDLE": str(authority)},
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
