"""`migrate` on a server of its own: roles belong to the whole server."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from dev import TARGET
from dev.local_system import running_services
from dev.postgres import Postgres
from dev.stack import binary


@pytest.fixture
def server() -> Iterator[Postgres]:
    """Start a server with the database `logins`, whose owner may not create roles."""
    with running_services(TARGET / "e2e-roles") as services:
        with services.postgres.connect() as connection:
            connection.execute("CREATE ROLE owner LOGIN PASSWORD 'owner'")
            connection.execute("CREATE DATABASE logins OWNER owner")
        yield services.postgres


def migrate(server: Postgres, user: str, password: str | None = None) -> tuple[int, list[str]]:
    """Run `migrate`, and return its exit code and its errors."""
    url = server.url(user, password, "logins", sslmode="disable")
    program = [str(binary("migrate"))]
    done = subprocess.run(program, env={"DATABASE_URL": url}, stdout=subprocess.PIPE, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, [line["error"] for line in lines if "error" in line]


def test_missing_roles_are_named_without_createrole(server: Postgres) -> None:
    code, errors = migrate(server, "owner", "owner")

    assert code == 1
    assert errors == [
        "the database is not ready: there is no role login_writer, and owner may not create roles: "
        "CREATE ROLE login_writer LOGIN; there is no role login_reader, and owner may not create "
        "roles: CREATE ROLE login_reader NOLOGIN"
    ]


def test_roles_of_an_administrator_suffice(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("CREATE ROLE login_writer LOGIN")
        connection.execute("CREATE ROLE login_reader")

    first = migrate(server, "owner", "owner")
    second = migrate(server, "owner", "owner")

    assert [first, second] == [(0, []), (0, [])]


def test_owner_with_createrole_creates_the_roles(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("ALTER ROLE owner CREATEROLE")

    outcome = migrate(server, "owner", "owner")

    assert outcome == (0, [])
    with server.connect("logins") as connection:
        roles = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'login_%' ORDER BY 1"
        assert connection.execute(roles).fetchall() == [("login_reader",), ("login_writer",)]
        # The owner was a member of login_writer only for the proof.
        members = "SELECT FROM pg_auth_members WHERE member = 'owner'::regrole AND NOT admin_option"
        assert connection.execute(members).fetchall() == []


def test_writer_in_the_owners_role_is_no_obstacle(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("ALTER ROLE owner CREATEROLE")
        connection.execute("CREATE ROLE login_writer LOGIN IN ROLE owner")

    outcome = migrate(server, "owner", "owner")

    assert outcome == (0, [])
