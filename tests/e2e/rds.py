"""Simulates IAM authentication of RDS in front of an ordinary Postgres.

RDS requires a token from members of `rds_iam`, as a cleartext password over TLS, and lets a service
verify it (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html). Here
Postgres sends the password to an LDAP server in this module, which compares it with the token that
botocore makes (https://www.postgresql.org/docs/current/auth-ldap.html).
"""

import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock, Thread
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import psycopg
from botocore.credentials import Credentials
from botocore.session import Session

from dev.postgres import Postgres

VALIDITY = timedelta(minutes=15)
DATE = "%Y%m%dT%H%M%SZ"

# Postgres sends only LDAP's bind request (https://www.rfc-editor.org/rfc/rfc4511).
BIND_REQUEST, BIND_RESPONSE = 0x60, 0x61
SEQUENCE, INTEGER, ENUMERATED, OCTETS = 0x30, 0x02, 0x0A, 0x04
SUCCESS, INVALID_CREDENTIALS = 0, 49
PREFIX, SUFFIX = "cn=", ",dc=rds"

_clock = Lock()


@dataclass(frozen=True)
class Server:
    """The region, host and port of a database, which its tokens contain."""

    region: str
    host: str
    port: int


@dataclass
class TokenVerifier:
    """Verifies tokens for a server, with the keys and the policy of their owners."""

    server: Server
    keys: dict[str, Credentials] = field(default_factory=dict)
    # Whether the policy allows a login as this user.
    allows: Callable[[str], bool] = lambda _user: True
    # Added to the current time.
    clock_offset: timedelta = timedelta(0)
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def accepts(self, user: str, token: str) -> bool:
        """Verify a token, and record it."""
        valid = self._is_valid(user, token)
        (self.accepted if valid else self.refused).append(token)
        return valid

    def _is_valid(self, user: str, token: str) -> bool:
        try:
            query = parse_qs(urlsplit(f"https://{token}").query)
            keys = self.keys[query["X-Amz-Credential"][0].split("/")[0]]
            signed_at = datetime.strptime(query["X-Amz-Date"][0], DATE).replace(tzinfo=UTC)
        except (KeyError, ValueError):
            return False
        age = datetime.now(UTC) + self.clock_offset - signed_at
        expected = token_at(signed_at, keys, self.server, user)
        return timedelta(0) < age < VALIDITY and token == expected and self.allows(user)


def token_at(when: datetime, keys: Credentials, server: Server, user: str) -> str:
    """Return the token that botocore makes at this time."""
    session = Session()
    session.set_credentials(keys.access_key, keys.secret_key, keys.token)
    client = session.create_client("rds", region_name=server.region)
    with _clock, patch("botocore.auth.get_current_datetime", lambda: when):
        return client.generate_db_auth_token(server.host, server.port, user)


@contextmanager
def verifying_tokens(postgres: Postgres, verifier: TokenVerifier) -> Iterator[None]:
    """Let Postgres authenticate the members of `rds_iam` with this verifier."""
    rules = postgres.directory / "data" / "pg_hba.conf"
    before = rules.read_text()
    with _LdapServer(("127.0.0.1", 0), _LdapSession) as directory:
        directory.verifier = verifier
        Thread(target=directory.serve_forever, daemon=True).start()
        rds_iam_rules = (
            f"hostssl all +rds_iam all ldap ldapserver=127.0.0.1 "
            f'ldapport={directory.server_address[1]} ldapprefix="{PREFIX}" ldapsuffix="{SUFFIX}"\n'
            "hostnossl all +rds_iam all reject\n"
        )
        try:
            with postgres.connect() as admin:
                admin.execute("CREATE ROLE rds_iam")
                rules.write_text(rds_iam_rules + before)
                _reload(admin)
            yield
        finally:
            rules.write_text(before)
            with postgres.connect() as admin:
                _reload(admin)
                admin.execute("DROP ROLE rds_iam")
            directory.shutdown()


def _reload(admin: psycopg.Connection) -> None:
    """Reload pg_hba.conf; a server that was built without LDAP ends the tests."""
    wrong = "SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL"
    if error := admin.execute(wrong).fetchone():
        raise SystemExit(f"Postgres must be built with LDAP, as distributions build it: {error[0]}")
    admin.execute("SELECT pg_reload_conf()")


class _LdapServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    verifier: TokenVerifier


class _LdapSession(socketserver.StreamRequestHandler):
    server: _LdapServer

    def handle(self) -> None:
        """Answer bind requests, until another request arrives."""
        while message := _read(self.rfile):
            _, number, message = _split_element(message)
            operation, fields, _ = _split_element(message)
            if operation != BIND_REQUEST:
                return
            _, _version, fields = _split_element(fields)
            _, name, fields = _split_element(fields)
            _, password, _ = _split_element(fields)
            user = name.decode().removeprefix(PREFIX).removesuffix(SUFFIX)
            valid = self.server.verifier.accepts(user, password.decode())
            code = bytes([SUCCESS if valid else INVALID_CREDENTIALS])
            # Empty: the matched name and the message.
            result = _element(ENUMERATED, code), _element(OCTETS), _element(OCTETS)
            self.wfile.write(
                _element(SEQUENCE, _element(INTEGER, number), _element(BIND_RESPONSE, *result))
            )


def _read(stream: object) -> bytes:
    """Read the content of the next message; empty at the end of the stream."""
    head = stream.read(2)
    if len(head) < 2:
        return b""
    length = head[1]
    if length & 0x80:
        length = int.from_bytes(stream.read(length & 0x7F))
    return stream.read(length)


def _split_element(octets: bytes) -> tuple[int, bytes, bytes]:
    """Split off the first element; return its tag, its content and the rest."""
    tag, length, rest = octets[0], octets[1], octets[2:]
    if length & 0x80:
        size = length & 0x7F
        length, rest = int.from_bytes(rest[:size]), rest[size:]
    return tag, rest[:length], rest[length:]


def _element(tag: int, *content: bytes) -> bytes:
    """Encode a short element."""
    octets = b"".join(content)
    return bytes([tag, len(octets)]) + octets
