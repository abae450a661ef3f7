"""Messages from the queue become rows, through the event-source mapping."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from dev import EVENTS
from dev.emulator import Feature
from dev.logins import Row, login, row
from e2e import function
from e2e.driver import Driver


def test_100_messages_give_99_rows_1_dead_letter(
    driver: Driver,
) -> None:
    bodies = (EVENTS / "login-queue.jsonl").read_text().splitlines()
    logins = [body for body in map(json.loads, bodies) if "user_id" in body]
    sent_at = datetime.now(UTC)

    driver.send(*bodies)
    driver.wait_for(rows=99, dead_letters=1)

    # Around midnight, rows may have two dates.
    stored = [Row(*columns) for columns in driver.rows()]
    assert {each.create_date for each in stored} <= {sent_at.date(), datetime.now(UTC).date()}
    expected = sorted(row(body, driver.salt, sent_at) for body in logins)
    assert sorted(each._replace(create_date=sent_at.date()) for each in stored) == expected
    [dead] = driver.dead_letters()
    assert json.loads(dead["Body"]) == {"foo": "oops_wrong_msg_type", "bar": "123"}
    assert driver.reason(dead["MessageId"]) == "MissingField"


@pytest.mark.needs(Feature.ROLES)
def test_unreadable_salt_loses_no_message(driver: Driver) -> None:
    bodies = [json.dumps(login()) for _ in range(25)]

    with _no_access_to_the_salt(driver):
        driver.send(*bodies)
        driver.wait_for(rows=0, dead_letters=25)
    driver.redrive()
    driver.wait_for(rows=25, dead_letters=0)

    assert driver.users() == sorted(json.loads(body)["user_id"] for body in bodies)


@contextmanager
def _no_access_to_the_salt(driver: Driver) -> Iterator[None]:
    """Remove the salt from the role's policy, and restore it at the end."""
    system = driver.system

    def without_the_salt(statements: function.Statements) -> function.Statements:
        [secrets] = [statement for statement in statements if statement["Sid"] == "ReadTheSecrets"]
        secrets["Resource"].remove(system.stack.salt_id)
        return statements

    with function.policy(system.emulator, system.stack, without_the_salt):
        driver.configure()  # restarts the function, which then reads the salt
        yield
