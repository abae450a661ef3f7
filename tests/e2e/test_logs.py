"""`login-etl logs --failed` shows what failed, in the functions' own words only."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import time
from uuid import uuid4

from dev import stack
from dev.logins import login, record
from e2e import program
from e2e.driver import Driver, wait_until

FOREIGN = "message failed: 203.0.113.99 \x1b[2J"


def test_failed_messages_and_batches_are_shown(driver: Driver) -> None:
    bad, worse = record(login(user_id=...)), record("no login")
    driver.invoke(bad, worse)
    driver.invoke_event({"Records": [{"body": "{}"}]})
    ids = {bad["messageId"], worse["messageId"]}

    def shown() -> list[dict[str, str]]:
        return _logs(driver).result["lines"]

    def are_shown() -> bool:
        lines = shown()
        return ids <= {line.get("message_id") for line in lines} and "MissingMessageId" in {
            line.get("error_type") for line in lines
        }

    wait_until(are_shown, shown)
    done = _logs(driver)
    causes = {(one["message"], one["reason"], one["field"]) for one in done.result["causes"]}
    assert done.status == 1
    assert {
        ("message failed", "MissingField", "user_id"),
        ("message failed", "NotJson", None),
        ("batch failed", "MissingMessageId", None),
    } <= causes


def test_failed_start_shows_its_setting(driver: Driver) -> None:
    # MiniStack drops what a function writes before it fails to start.
    start = subprocess.run(
        [stack.binary("bootstrap")], env={}, stdout=subprocess.PIPE, text=True, check=False
    )

    with _more_lines(driver, *start.stdout.splitlines()):
        lines = _logs(driver).result["lines"]

    errors = {line["error"] for line in lines if line["message"] == "startup failed"}
    assert "SALT_SECRET_ID is not set" in errors


def test_foreign_lines_are_not_shown(driver: Driver) -> None:
    line = {"timestamp": f"{datetime.now(UTC):%FT%TZ}", "message": "message failed"}
    lines = (
        FOREIGN,
        json.dumps(line | {"message": FOREIGN}),
        json.dumps(line | {"message_id": "ours", "body": "203.0.113.99"}),
        json.dumps(line | {"message_id": "\x1b[31m\u202e"}),
    )

    with _more_lines(driver, *lines):
        shown, table = _logs(driver), _logs(driver, json_output=False)

    printed = shown.output + table.output
    assert "203.0.113.99" not in printed
    assert not {"\x1b", "\u202e"} & set(printed)
    assert "| ours " in table.output
    assert "\\u001b[31m\\u202e" in table.output
    assert "\\u001b[31m\\u202e" in shown.output


def test_older_lines_are_left_out(driver: Driver) -> None:
    shared = ("--stack", driver.system.stack.name)

    done = program.run(driver.system.emulator, *shared, "logs", "--failed", "--since", "0s")

    assert (done.status, done.output) == (
        0,
        f"Nothing failed in {driver.system.stack.name} in this time; --since looks back further.\n",
    )


@contextmanager
def _more_lines(driver: Driver, *lines: str) -> Iterator[None]:
    """Put lines into the log of the function, and delete them: other tests read this log."""
    logs, group = driver.system.emulator.client("logs"), driver.system.stack.log_group
    stream = {"logGroupName": group, "logStreamName": f"more-{uuid4()}"}
    logs.create_log_stream(**stream)
    try:
        events = [{"timestamp": int(time() * 1000), "message": line} for line in lines]
        logs.put_log_events(**stream, logEvents=events)
        yield
    finally:
        logs.delete_log_stream(**stream)


def _logs(driver: Driver, *, json_output: bool = True) -> program.Run:
    shared = ["--stack", driver.system.stack.name, *(["--json"] if json_output else [])]
    return program.run(driver.system.emulator, *shared, "logs", "--failed", "--since", "1h")
