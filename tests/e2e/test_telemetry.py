"""The lines of the function's log, and the metrics in them."""

import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from dev import logs, stack
from dev.logins import login, record
from e2e import documented, emf, insights
from e2e.driver import Driver, wait_until
from e2e.insights import SAVED

SCHEMA = json.loads(Path(__file__).with_name("emf-schema.json").read_text())
NO_ID = {"Records": [{"messageId": "", "body": "{}"}]}


def test_batch_is_logged_as_one_line_of_metrics(driver: Driver) -> None:
    good, bad = record(login()), record("not JSON")

    driver.invoke(good, good, bad)
    failed = _line(driver, message_id=bad["messageId"])
    done = _line(driver, message="batch done", request_id=failed["request_id"])

    metrics = {name: done[name] for name in _metrics(done)}
    times = {name: metrics.pop(name) for name in list(metrics) if name.endswith("_ms")}
    assert 0 <= metrics.pop("used_percent") < 100
    assert metrics.pop("cold_start") in {0, 1}
    assert metrics == {
        "messages": 3,
        "written": 1,
        "duplicates": 1,
        "suppressed": 0,
        "unparsed_ips": 0,
        "failed": 1,
        "failed_percent": 33.3,
        "refused": 0,
        "batch_failed": 0,
        "database_error": 0,
    }
    assert {"oldest_ms", "decode_ms", "write_ms", "elapsed_ms"} <= set(times)
    assert all(time >= 0 for time in times.values())
    assert times["decode_ms"] + times["write_ms"] <= times["elapsed_ms"]
    texts = {name for name in done if name not in metrics and name not in times}
    assert {"timestamp", "level", "message", "request_id", "function", "_aws"} <= texts
    assert (done["level"], done["function"]) == ("INFO", driver.system.stack.function)


def test_failed_message_is_logged_without_its_value(driver: Driver) -> None:
    bad = record(login(app_version="1.2.beta"))

    driver.invoke(bad)
    failed = _line(driver, message_id=bad["messageId"])

    assert failed.pop("timestamp")
    assert failed.pop("request_id")
    assert failed == {
        "level": "WARN",
        "message": "message failed",
        "message_id": bad["messageId"],
        "reason": "BadVersion",
        "field": "app_version",
        "receive_count": 1,
        "queue": "login-queue",
        "error": "app_version is not a version of one to three numbers",
        "target": "login_etl::telemetry::batch",
    }


def test_failures_are_counted_by_reason_and_error_type(
    driver: Driver,
) -> None:
    bad = [record("not JSON"), record("nor this"), record([])]

    driver.invoke(*bad)
    driver.invoke_event(NO_ID)
    request_id = _line(driver, message_id=bad[0]["messageId"])["request_id"]
    by_reason = _lines(driver, message="failures by reason", request_id=request_id)
    batch = _line(driver, error_type="MissingMessageId")

    assert {line["reason"]: line["failed"] for line in by_reason} == {
        "NotJson": 2,
        "NotAnObject": 1,
    }
    assert {tuple(_dimensions(line)) for line in by_reason} == {(("function", "reason"),)}
    assert _dimensions(batch) == [("function",), ("function", "error_type")]
    assert (batch["level"], batch["batch_failed"], batch["database_error"]) == ("ERROR", 1, 0)


def test_database_failure_is_counted_as_database_error(driver: Driver) -> None:
    driver.execute("ALTER TABLE user_logins RENAME TO elsewhere")
    try:
        driver.invoke(record(login()))
    finally:
        driver.execute("ALTER TABLE elsewhere RENAME TO user_logins")
    batch = _line(driver, error_type="DatabaseRefused", sqlstate="42P01")

    assert (batch["database_error"], batch["messages"], batch["level"]) == (1, 1, "ERROR")


def test_users_with_many_tokens_are_counted_not_named(driver: Driver) -> None:
    driver.execute(
        """
        INSERT INTO user_logins (user_id, masked_ip, masked_device_id, create_date)
        SELECT user_id, user_id || number, '', (now() AT TIME ZONE 'UTC')::date - age
        FROM (VALUES ('guesser', 101, 0), ('before', 101, 1), ('long ago', 101, 2), ('few', 100, 0))
            AS guesses (user_id, tokens, age), generate_series(1, tokens) AS number
        """
    )

    counted = _line_of_migrate(driver, "tokens counted")

    assert counted.pop("timestamp")
    assert counted.pop("request_id")
    assert _dimensions(counted) == [("function",)]
    assert _metrics(counted) == {"users_with_many_tokens"}
    del counted["_aws"]
    assert counted == {
        "level": "INFO",
        "message": "tokens counted",
        "function": driver.system.stack.migrate_function,
        "users_with_many_tokens": 2,
    }


def test_uncountable_tokens_do_not_fail_migrate(driver: Driver) -> None:
    # A table of a user's own, whose days cannot be compared with dates.
    driver.execute("ALTER TABLE user_logins RENAME TO elsewhere")
    driver.execute("CREATE TABLE user_logins (LIKE elsewhere)")
    driver.execute("ALTER TABLE user_logins ALTER create_date TYPE text")
    try:
        refused = _line_of_migrate(driver, "tokens were not counted")
    finally:
        driver.execute("DROP TABLE user_logins")
        driver.execute("ALTER TABLE elsewhere RENAME TO user_logins")

    assert refused["level"] == "WARN"
    assert "SQLSTATE 42883" in refused["error"]


@pytest.mark.last
def test_every_line_with_metrics_is_valid_emf(session_driver: Driver) -> None:
    lines = [line for line in _all(session_driver) if "_aws" in line]

    assert lines
    for line in lines:
        Draft7Validator(SCHEMA).validate(line)
        # Rules of the specification that the schema does not contain.
        found = list(emf.metrics(line))
        assert len(_metrics(line)) <= 100
        assert all(isinstance(value, int | float) for metric in found for value in metric.values)
        assert all(value for metric in found for value in metric.dimensions.values())


@pytest.mark.last
@pytest.mark.parametrize("name", sorted(SAVED.keys() - insights.OF_ANALYSTS - insights.OF_VAULT))
def test_saved_query_reads_only_logged_fields(session_driver: Driver, name: str) -> None:
    there = {field for line in _all(session_driver) for field in line}

    # Only a panic has the field `place`, and no test here panics. A unit test covers it.
    assert insights.fields(SAVED[name]) - there <= {"place"}


@pytest.mark.last
def test_saved_queries_find_the_matching_lines(session_driver: Driver) -> None:
    lines = list(session_driver.log_lines())
    # The newest: the queries show at most 1,000 lines, and the log may be in another order.
    known = max(_lines(session_driver, message="message failed"), key=itemgetter("timestamp"))

    failed = insights.run(SAVED["failed messages"], lines)
    reasons = insights.run(SAVED["reasons"], lines)
    batches = insights.run(SAVED["failed batches"], lines)
    slow = insights.run(SAVED["slow batches"], lines)
    invocation = insights.run(
        SAVED["one invocation"].replace("put the request id here", known["request_id"]), lines
    )

    assert known["message_id"] in {line["message_id"] for line in failed}
    assert all(line["reason"] for line in failed)
    assert {"reason": "BadVersion", "field": "app_version"}.items() <= next(
        line.items() for line in reasons if line["reason"] == "BadVersion"
    )
    assert "MissingMessageId" in {line["error_type"] for line in batches}
    assert slow == sorted(slow, key=lambda line: -line["elapsed_ms"])
    assert {"batch done", "message failed"} <= {line["message"] for line in invocation}


@pytest.mark.last
def test_documented_metrics_are_those_written(session_driver: Driver) -> None:
    written = {name for line in _all(session_driver) if "_aws" in line for name in _metrics(line)}

    # test_sealed_values.py reads the metric of a function with a vault.
    assert written | {"sealed"} == set(documented.rows("metric"))


def _line(driver: Driver, **fields: str) -> dict[str, Any]:
    """Wait for a line of this test with these fields; return the last."""
    wait_until(lambda: bool(_lines(driver, **fields)), lambda: fields)
    return _lines(driver, **fields)[-1]


def _line_of_migrate(driver: Driver, message: str) -> dict[str, Any]:
    """Run migrate until its log has this line: MiniStack loses the log of some runs."""

    def is_logged() -> bool:
        stack.migrate(driver.system.emulator, driver.system.stack)
        return bool(_lines(driver, message=message))

    wait_until(is_logged, lambda: message)
    return _lines(driver, message=message)[-1]


def _lines(driver: Driver, **fields: str) -> list[dict[str, Any]]:
    return [line for line in _all(driver) if fields.items() <= line.items()]


def _all(driver: Driver) -> list[dict[str, Any]]:
    return [logs.fields(line) for line in driver.log_lines()]


def _metrics(line: dict[str, Any]) -> set[str]:
    return {metric.name for metric in emf.metrics(line)}


def _dimensions(line: dict[str, Any]) -> list[tuple[str, ...]]:
    return sorted({tuple(metric.dimensions) for metric in emf.metrics(line)})
