"""The examples in message-format.md and privacy.md: queries, a token, and message bodies."""

import json
import os
import re
import subprocess
from time import time

import psycopg
import pytest

from dev import ROOT, TARGET
from dev.emulator import REGION
from dev.logins import failed, login, record, token
from e2e.driver import Driver

AWS = TARGET / "tools" / "deploy" / "bin"
ADDRESS = "199.172.111.135"


def test_devices_query_finds_duplicates(driver: Driver) -> None:
    _log_in(driver, "device_id", "593-47-5928", "users share this device")
    query = _blocks("message-format", "Duplicate devices", "sql")[0]

    found = _as_analyst(driver, query)

    assert found == [(token(driver.salt, "device_id", "593-47-5928"), 3, 2)]


def test_addresses_query_finds_duplicates(driver: Driver) -> None:
    _log_in(driver, "ip", ADDRESS, "users share this address")
    query = _blocks("privacy", "Duplicate addresses", "sql")[0]

    found = _as_analyst(driver, query)

    assert found == [(token(driver.salt, "ip", ADDRESS), 3, 2)]


def test_guesses_of_a_sender_are_found(driver: Driver) -> None:
    now = {"attributes": {"SentTimestamp": f"{time() * 1000:.0f}"}}
    guesses = [login(user_id="a sender", ip=f"203.0.113.{number}") for number in range(101)]
    assert driver.invoke(*(record(guess, **now) for guess in guesses)) == failed()
    [query] = _blocks("privacy", "Who must not hold what", "sql")

    found = _as_analyst(driver, query)

    assert [(user, addresses) for user, _, addresses, _ in found] == [("a sender", 101)]


def test_view_for_one_analyst_has_other_tokens(driver: Driver) -> None:
    _log_in(driver, "ip", ADDRESS, "users in a view")
    statements = _blocks("privacy", "A view for one analyst", "sql")[0]
    tokens = "SELECT masked_ip, masked_device_id FROM {} ORDER BY user_id, create_date"
    with driver.system.connect("postgres") as database:
        database.execute("CREATE ROLE anna")
        try:
            database.execute(statements)
            in_table = database.execute(tokens.format("user_logins")).fetchall()
            database.execute("SET ROLE anna")
            in_view = database.execute(tokens.format("for_anna.user_logins")).fetchall()
            hidden = ("user_logins", "for_anna.key")
            refused = [_sqlstate(database, f"SELECT FROM {name}") for name in hidden]
        finally:
            database.execute("RESET ROLE")
            database.execute("DROP SCHEMA for_anna CASCADE")
            database.execute("DROP EXTENSION pgcrypto")
            database.execute("DROP ROLE anna")

    assert refused == ["42501", "42501"]
    assert _equalities(in_view) == _equalities(in_table)
    assert not _tokens(in_view) & _tokens(in_table)
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in _tokens(in_view))


def test_openssl_computes_the_token_in_the_row(driver: Driver) -> None:
    assert driver.invoke(record(login(ip=ADDRESS))) == failed()
    [script] = _blocks("privacy", "Verify a token", "sh")

    printed = _run(driver, script, SALT_SECRET_ID=driver.system.stack.salt_id)

    [(masked_ip,)] = driver.query("SELECT masked_ip FROM user_logins")
    assert ADDRESS in script
    assert printed.split()[-1] == masked_ip


@pytest.mark.parametrize("heading", ["The body", "Nested objects"])
def test_example_bodies_become_equal_rows(driver: Driver, heading: str) -> None:
    bodies = [json.loads(body) for body in _blocks("message-format", heading, "json")]

    answer = driver.invoke(*(record(body) for body in bodies))

    assert answer == failed()
    rows = driver.rows()
    # The examples under a heading are spellings of one login.
    assert rows == [rows[0]] * len(bodies)


def _log_in(driver: Driver, field: str, value: str, user: str) -> None:
    """Let two users share a value, one of them twice; a third user has none of it."""
    shared = {field: value}
    bodies = [
        login(user_id=f"{user} 1", **shared),
        login(user_id=f"{user} 1", **shared),
        login(user_id=f"{user} 2", **shared),
        login(),
        login(**{field: None}),
        login(**{field: None}),
    ]
    assert driver.invoke(*map(record, bodies)) == failed()


def _sqlstate(database: psycopg.Connection, statement: str) -> str | None:
    with pytest.raises(psycopg.Error) as refused:
        database.execute(statement)
    return refused.value.sqlstate


def _tokens(rows: list[tuple[str | None, ...]]) -> set[str]:
    return {value for row in rows for value in row if value is not None}


def _equalities(rows: list[tuple[str | None, ...]]) -> list[tuple[int | None, ...]]:
    """Replace each token by the number of its first occurrence in its column."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return [
        tuple(
            None if value is None else column.index(value)
            for value, column in zip(row, columns, strict=True)
        )
        for row in rows
    ]


def _as_analyst(driver: Driver, query: str) -> list[tuple[object, ...]]:
    with driver.system.connect("analyst") as database:
        return database.execute(query).fetchall()


def _run(driver: Driver, script: str, **variables: str) -> str:
    """Run a script with the AWS command line that the Makefile installs, on the emulator."""
    environment = driver.system.emulator.environment | variables
    environment |= {"AWS_DEFAULT_REGION": REGION, "PATH": f"{AWS}:{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout


def _blocks(document: str, heading: str, language: str) -> list[str]:
    """Read the fenced blocks in a language under a heading."""
    text = (ROOT / "docs" / f"{document}.md").read_text()
    section = re.split(r"^#+ ", text.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.+?)^```", section, re.DOTALL | re.MULTILINE)
