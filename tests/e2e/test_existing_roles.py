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


def test_powers_of_existing_roles_are_refused(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("CREATE ROLE app CREATEDB")
        connection.execute("CREATE ROLE team IN ROLE app")
        connection.execute("CREATE ROLE harmless")
        connection.execute(
            "CREATE ROLE login_writer LOGIN SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS "
            "IN ROLE owner, team, pg_read_all_data, harmless"
        )
        connection.execute("CREATE ROLE login_reader CREATEDB IN ROLE login_writer")

    code, errors = migrate(server, "owner", "owner")

    attributes = ["BYPASSRLS", "CREATEDB", "CREATEROLE", "REPLICATION", "SUPERUSER"]
    refused = [
        ("login_reader", "has the attribute CREATEDB", "ALTER ROLE login_reader NOCREATEDB"),
        *(
            ("login_writer", f"has the attribute {name}", f"ALTER ROLE login_writer NO{name}")
            for name in attributes
        ),
        ("login_reader", "is a member of login_writer", "REVOKE login_writer FROM login_reader"),
        *(
            ("login_writer", f"is a member of {group}", f"REVOKE {group} FROM login_writer")
            for group in ("owner", "pg_read_all_data", "team")
        ),
    ]
    assert code == 1
    assert errors == [
        "the database is not ready: "
        + "; ".join(
            f"{role} {problem}, which gives it more rights than it needs: {remedy}"
            for role, problem, remedy in refused
        )
    ]
    with server.connect() as connection:
        for *_, remedy in refused:
            connection.execute(remedy)
    assert migrate(server, "owner", "owner") == (0, [])


def test_settings_of_the_writer_are_removed(server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("ALTER ROLE owner CREATEROLE")
    assert migrate(server, "owner", "owner") == (0, [])
    with server.connect() as connection:
        connection.execute("ALTER ROLE login_writer PASSWORD 'writer'")
    with server.connect("logins", user="login_writer", password="writer") as writer:
        writer.execute("ALTER ROLE login_writer SET default_transaction_read_only = on")
        writer.execute("ALTER ROLE login_writer SET search_path = pg_temp")

    assert migrate(server, "owner", "owner") == (0, [])

    with server.connect("logins", user="login_writer", password="writer") as writer:
        shown = [
            writer.execute(f"SHOW {name}").fetchone()
            for name in ("default_transaction_read_only", "search_path")
        ]
    assert shown == [("off",), ('"$user", public',)]
