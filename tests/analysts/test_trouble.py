"""A database that is away, slow or locked, and clients that are slow."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from analysts import sample, server
from analysts.server import Answer, Api, Database
from dev.local_system import DATABASE
from dev.postgres import LOOPBACK

DUPLICATES = "/v1/duplicates?field=device_id"
NAMES = [("analytics", "hidden"), ("hidden", "analytics")]
RAW = f"/v1/tokens/{sample.HOSTILE_DEVICE}/logins"
UNAVAILABLE = {
    "type": "urn:login-etl:database-unavailable",
    "title": "The database is not available",
    "status": 503,
    "detail": "try again later",
}
TOO_SLOW = {
    "type": "urn:login-etl:too-slow",
    "title": "The database took too long",
    "status": 503,
    "detail": "narrow the range of days, or try again later",
}


def test_stopped_database_is_unavailable_until_restart(api: Api) -> None:
    api.database.postgres.stop()
    try:
        away = [api.get(DUPLICATES), api.post("/v1/logins/search", {"user_id": "anna"})]
    finally:
        api.database.postgres.start()

    for answer in away:
        assert_problem(answer, UNAVAILABLE)
    assert api.get(DUPLICATES).status == 200


def test_silent_database_is_unavailable(database: Database) -> None:
    # It accepts connections, and never answers.
    with socket.create_server((LOOPBACK, 0), backlog=128) as silent:
        url = f"postgresql://login_api:x@{LOOPBACK}:{silent.getsockname()[1]}/x?sslmode=disable"
        with server.running(database, "silent", DATABASE_URL=url) as api:
            answer = api.get(DUPLICATES)

    assert_problem(answer, UNAVAILABLE)


@pytest.mark.parametrize(
    ("table", "target"), [("analytics.token_period", DUPLICATES), ("user_logins", RAW)]
)
def test_locked_table_is_too_slow(api: Api, table: str, target: str) -> None:
    with api.database.connect() as owner, owner.transaction():
        owner.execute(f"LOCK TABLE {table}")
        answer = api.get(target)

    # On a very slow machine, the API stops waiting before Postgres ends the statement.
    assert_problem(answer, UNAVAILABLE if answer.json == UNAVAILABLE else TOO_SLOW)
    assert api.get(target).status == 200


def test_read_only_database_answers(api: Api) -> None:
    read_only = f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = "
    with changed(api, read_only + "on", read_only + "off"):
        assert api.get(DUPLICATES).status == 200


REFUSED_LOGINS = {
    "no connection left": ("CONNECTION LIMIT 0", "CONNECTION LIMIT -1"),
    "another password": ("PASSWORD 'another'", "PASSWORD '{password}'"),
    "no login": ("NOLOGIN", "LOGIN"),
}


@pytest.mark.parametrize("name", REFUSED_LOGINS)
def test_refused_login_is_unavailable(api: Api, name: str) -> None:
    change, undo = (f"ALTER ROLE login_api {each}" for each in REFUSED_LOGINS[name])
    with changed(api, change, undo.format(password=api.database.password)):
        answer = api.get(DUPLICATES)

    assert_problem(answer, UNAVAILABLE)
    assert api.get(DUPLICATES).status == 200


def test_missing_rollups_are_not_rolled_up_yet(api: Api) -> None:
    hide, show = ("ALTER SCHEMA {} RENAME TO {}".format(*names) for names in NAMES)
    with changed(api, hide, show):
        answer = api.get(DUPLICATES)

    assert_problem(
        answer,
        {
            "type": "urn:login-etl:not-rolled-up",
            "title": "The logins are not rolled up yet",
            "status": 503,
            "detail": "the program migrate rolls them up every hour if it has the setting ANALYSTS",
        },
    )


def test_slow_clients_block_nobody(api: Api) -> None:
    slow = [api.open() for _ in range(300)]
    try:
        for connection in slow[1:]:
            connection.sendall(b"GET /v1/freshness HTTP/1.1\r\nHost:")
        slow[0].sendall(
            b"POST /v1/logins/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"user_id": '
        )
        answer = api.get("/v1/freshness")
        ended = [closes(connection) for connection in slow]
    finally:
        for connection in slow:
            connection.close()

    assert answer.status == 200
    assert all(ended)


def assert_problem(answer: Answer, problem: dict) -> None:
    """Compare a whole answer with a problem document that says when to try again."""
    assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert answer.headers["Retry-After"] == "5"
    assert answer.json == problem


@contextmanager
def changed(api: Api, change: str, undo: str) -> Iterator[None]:
    """Change the database for the next sessions of the API, and undo the change at the end."""
    end_sessions = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'login_api'"
    )
    with api.database.connect() as owner:
        owner.execute("SET log_statement = 'none'")  # keeps the password out of the log
        owner.execute(change)
        owner.execute(end_sessions)
        try:
            yield
        finally:
            owner.execute(undo)
            owner.execute(end_sessions)


def closes(connection: socket.socket) -> bool:
    """Wait until the server closes the connection; return whether it has."""
    connection.settimeout(60)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True
