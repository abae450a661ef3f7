"""What RDS does for IAM, in front of a Postgres that knows nothing of it.

RDS asks the members of `rds_iam` for a token, in the clear and through TLS, and has somebody else
judge it (https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html). So
does Postgres here: it takes what it is given to an LDAP server
(https://www.postgresql.org/docs/current/auth-ldap.html), which is ours, and has botocore make the
token that it should be.
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

# Of LDAP (https://www.rfc-editor.org/rfc/rfc4511) a bind is all that Postgres needs.
BIND_REQUEST, BIND_RESPONSE = 0x60, 0x61
SEQUENCE, INTEGER, ENUMERATED, OCTETS = 0x30, 0x02, 0x0A, 0x04
SUCCESS, INVALID_CREDENTIALS = 0, 49
PREFIX, SUFFIX = "cn=", ",dc=rds"

_clock = Lock()


@dataclass(frozen=True)
class Server:
    """Where a database is."""

    region: str
    host: str
    port: int


@dataclass
class Judge:
    """Tells which tokens are good for a server: it knows all keys, and what they allow."""

    server: Server
    keys: dict[str, Credentials] = field(default_factory=dict)
    # Whether a policy allows to log in as this user.
    allows: Callable[[str], bool] = lambda _user: True
    # How far its clock is ahead of everybody else's.
    ahead: timedelta = timedelta(0)
    accepted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def lets_in(self, user: str, token: str) -> bool:
        """Judge a token, and remember it."""
        good = self._is_good(user, token)
        (self.accepted if good else self.refused).append(token)
        return good

    def _is_good(self, user: str, token: str) -> bool:
        try:
            query = parse_qs(urlsplit(f"https://{token}").query)
            keys = self.keys[query["X-Amz-Credential"][0].split("/")[0]]
            signed_at = datetime.strptime(query["X-Amz-Date"][0], DATE).replace(tzinfo=UTC)
        except (KeyError, ValueError):
            return False
        age = datetime.now(UTC) + self.ahead - signed_at
        good = token_at(signed_at, keys, self.server, user)
        return timedelta(0) < age < VALIDITY and token == good and self.allows(user)


def token_at(when: datetime, keys: Credentials, server: Server, user: str) -> str:
    """Have botocore make the token that it would have made then."""
    session = Session()
    session.set_credentials(keys.access_key, keys.secret_key, keys.token)
    client = session.create_client("rds", region_name=server.region)
    with _clock, patch("botocore.auth.get_current_datetime", lambda: when):
        return client.generate_db_auth_token(server.host, server.port, user)


@contextmanager
def judging(postgres: Postgres, judge: Judge) -> Iterator[None]:
    """Have a Postgres ask this judge about the members of `rds_iam`, and them alone."""
    rules = postgres.directory / "data" / "pg_hba.conf"
    before = rules.read_text()
    with _Directory(("127.0.0.1", 0), _Session) as directory:
        directory.judge = judge
        Thread(target=directory.serve_forever, daemon=True).start()
        ours = (
            f"hostssl all +rds_iam all ldap ldapserver=127.0.0.1 "
            f'ldapport={directory.server_address[1]} ldapprefix="{PREFIX}" ldapsuffix="{SUFFIX}"\n'
            "hostnossl all +rds_iam all reject\n"
        )
        try:
            with postgres.connect() as admin:
                admin.execute("CREATE ROLE rds_iam")
                rules.write_text(ours + before)
                _reload(admin)
            yield
        finally:
            rules.write_text(before)
            with postgres.connect() as admin:
                _reload(admin)
                admin.execute("DROP ROLE rds_iam")
            directory.shutdown()


def _reload(admin: psycopg.Connection) -> None:
    """Read the rules again; what this build cannot do, it says."""
    wrong = "SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL"
    if error := admin.execute(wrong).fetchone():
        raise SystemExit(f"A Postgres with LDAP is needed, as distributions build it: {error[0]}")
    admin.execute("SELECT pg_reload_conf()")


class _Directory(socketserver.ThreadingTCPServer):
    daemon_threads = True
    judge: Judge


class _Session(socketserver.StreamRequestHandler):
    server: _Directory

    def handle(self) -> None:
        """Answer each bind, until there is something else."""
        while message := _read(self.rfile):
            _, number, message = _take(message)
            operation, fields, _ = _take(message)
            if operation != BIND_REQUEST:
                return
            _, _version, fields = _take(fields)
            _, name, fields = _take(fields)
            _, password, _ = _take(fields)
            user = name.decode().removeprefix(PREFIX).removesuffix(SUFFIX)
            good = self.server.judge.lets_in(user, password.decode())
            code = bytes([SUCCESS if good else INVALID_CREDENTIALS])
            # Nobody's name, and no text.
            result = _put(ENUMERATED, code), _put(OCTETS), _put(OCTETS)
            self.wfile.write(_put(SEQUENCE, _put(INTEGER, number), _put(BIND_RESPONSE, *result)))


def _read(stream: object) -> bytes:
    """Read the content of the next message; nothing if there is none."""
    head = stream.read(2)
    if len(head) < 2:
        return b""
    length = head[1]
    if length & 0x80:
        length = int.from_bytes(stream.read(length & 0x7F))
    return stream.read(length)


def _take(octets: bytes) -> tuple[int, bytes, bytes]:
    """Take the first element apart: its tag, its content, and what follows."""
    tag, length, rest = octets[0], octets[1], octets[2:]
    if length & 0x80:
        size = length & 0x7F
        length, rest = int.from_bytes(rest[:size]), rest[size:]
    return tag, rest[:length], rest[length:]


def _put(tag: int, *content: bytes) -> bytes:
    """Put a short element together."""
    octets = b"".join(content)
    return bytes([tag, len(octets)]) + octets
