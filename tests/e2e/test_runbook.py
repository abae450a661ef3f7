"""The runbook in the README: each `errorType` is made, found, and mended as it says."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest

from e2e import ROOT, insights, logs
from e2e.driver import Driver, wait_until
from e2e.emulator import Shows
from e2e.logins import failed, login, record
from e2e.sandbox import DATABASE, MIGRATE
from e2e.stack import read_template

README = (ROOT / "README.md").read_text()
RESOURCES = read_template()["Resources"]
ALARMS = {
    one["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): one["Properties"]
    for one in RESOURCES.values()
    if one["Type"] == "AWS::CloudWatch::Alarm"
}
END_SESSIONS = """
SELECT count(pg_terminate_backend(pid, 5000))
FROM pg_stat_activity
WHERE usename = 'login_writer'
"""

Trouble = Callable[[Driver], AbstractContextManager[None]]


def test_every_alarm_of_the_template_has_its_row_and_no_other() -> None:
    assert set(_rows("alarm")) == set(ALARMS)


def test_the_runbook_names_saved_queries_that_there_are() -> None:
    saved = {
        one["Properties"]["Name"]["Fn::Sub"].removeprefix("${AWS::StackName}/")
        for one in RESOURCES.values()
        if one["Type"] == "AWS::Logs::QueryDefinition"
    }
    rows = _rows("alarm").values()

    named = {query for row in rows for query in row.split("`") if f"query `{query}`" in row}
    described = {
        query
        for alarm in ALARMS.values()
        for query in alarm["AlarmDescription"].split('"')[1::2]
        if not query.startswith("migrate")
    }

    assert named
    assert described
    assert named | described <= saved


def test_every_error_type_has_a_trouble_here() -> None:
    assert set(_rows("errorType")) == set(TROUBLES) | set(NO_EVENTS)


@contextmanager
def _no_server(driver: Driver) -> Iterator[None]:
    driver.sandbox.postgres.stop()
    try:
        yield
    finally:
        driver.sandbox.postgres.start()


def _changed(trouble: str, mended: str) -> Trouble:
    """Return the trouble that one statement makes and another one mends, in new sessions."""

    @contextmanager
    def change(driver: Driver) -> Iterator[None]:
        driver.execute(trouble)
        driver.query(END_SESSIONS)
        try:
            yield
        finally:
            driver.execute(mended)
            driver.query(END_SESSIONS)

    return change


def _locked(lock_timeout: str) -> Trouble:
    """Return the trouble of a lock that somebody holds, with or without a limit to the wait."""

    @contextmanager
    def lock(driver: Driver) -> Iterator[None]:
        driver.execute(f"ALTER ROLE login_writer SET lock_timeout = '{lock_timeout}'")
        driver.query(END_SESSIONS)
        with psycopg.connect(driver.sandbox.url("postgres")) as somebody:
            somebody.execute("LOCK TABLE user_logins")
            yield
        driver.execute("ALTER ROLE login_writer RESET lock_timeout")
        driver.query(END_SESSIONS)

    return lock


@contextmanager
def _another_salt(driver: Driver) -> Iterator[None]:
    driver.execute("UPDATE salt_fingerprint SET fingerprint = 'of another salt'")
    yield
    sandbox = driver.sandbox
    environment = sandbox.emulator.environment | {
        "SALT_SECRET_ID": sandbox.stack.salt_id,
        "DATABASE_URL": sandbox.postgres.url(database=DATABASE, sslmode="require"),
        "DATABASE_CA_BUNDLE": str(sandbox.postgres.certificate_authority),
        "RUST_LOG": "warn",
    }
    subprocess.run([MIGRATE, "accept-salt"], check=True, env=environment | {"PATH": os.defpath})


@contextmanager
def _no_secret(driver: Driver) -> Iterator[None]:
    """Have a login refused, and forbid to look whether the password is another one now."""
    iam = driver.sandbox.emulator.client("iam")
    functions = driver.sandbox.emulator.client("lambda")
    name = functions.get_function_configuration(FunctionName=driver.sandbox.stack.function)["Role"]
    policy = {"RoleName": name.split("/")[-1], "PolicyName": "ingest"}
    whole = iam.get_role_policy(**policy)["PolicyDocument"]
    poor = json.loads(json.dumps(whole))
    poor["Statement"] = [one for one in poor["Statement"] if one["Sid"] != "ReadTheSecrets"]
    iam.put_role_policy(**policy, PolicyDocument=json.dumps(poor))
    try:
        with TROUBLES["DatabaseLoginRefused"](driver):
            yield
    finally:
        iam.put_role_policy(**policy, PolicyDocument=json.dumps(whole))


TROUBLES: dict[str, Trouble] = {
    "DatabaseUnreachable": _no_server,
    "DatabaseLoginRefused": _changed(
        "ALTER ROLE login_writer NOLOGIN", "ALTER ROLE login_writer LOGIN"
    ),
    "DatabaseOutOfConnections": _changed(
        "ALTER ROLE login_writer CONNECTION LIMIT 0", "ALTER ROLE login_writer CONNECTION LIMIT -1"
    ),
    "DatabaseTimedOut": _locked("0"),
    "DatabaseDeadlock": _locked("100ms"),
    "DatabaseRefused": _changed(
        "REVOKE INSERT ON user_logins FROM login_writer",
        "GRANT INSERT ON user_logins TO login_writer",
    ),
    "SaltChanged": _another_salt,
    "SecretsUnavailable": _no_secret,
}
NEEDS = {"SecretsUnavailable": Shows.ROLES}
NO_EVENTS: dict[str, Any] = {
    "MalformedEvent": {"Records": "none"},
    "MissingMessageId": {"Records": [{"body": "{}"}]},
}


@pytest.mark.parametrize(
    "error_type",
    [
        pytest.param(error_type, marks=pytest.mark.needs(NEEDS.get(error_type, Shows(0))))
        for error_type in TROUBLES
    ],
)
def test_a_trouble_is_found_as_the_runbook_says_and_when_it_is_mended_all_is_well(
    driver: Driver, error_type: str
) -> None:
    assert driver.invoke(record(login())) == failed()
    before = len(_found(driver, error_type))

    with TROUBLES[error_type](driver):
        while_it_lasts = driver.invoke(record(login()))
    afterwards = driver.invoke(record(login()))

    assert while_it_lasts == {"errorType": error_type}
    assert afterwards == failed()
    wait_until(lambda: len(_found(driver, error_type)) == before + 1, lambda: error_type)
    assert _alarmed(driver, error_type) == _expected(error_type)


@pytest.mark.parametrize("error_type", NO_EVENTS)
def test_what_is_no_event_is_found_as_the_runbook_says(driver: Driver, error_type: str) -> None:
    before = len(_found(driver, error_type))

    answer = driver.invoke_with(NO_EVENTS[error_type])

    assert answer == {"errorType": error_type}
    wait_until(lambda: len(_found(driver, error_type)) == before + 1, lambda: error_type)
    assert _alarmed(driver, error_type) == _expected(error_type)


def _expected(error_type: str) -> set[str]:
    """Name the alarms on our own metrics that a failed batch moves."""
    if error_type == "DatabaseTimedOut":
        return {"database-errors", "near-timeout"}
    if error_type.startswith("Database"):
        return {"database-errors"}
    return {"salt-changed"} if error_type == "SaltChanged" else set()


def _alarmed(driver: Driver, error_type: str) -> set[str]:
    """Name the alarms whose threshold the last batch that failed in this way has passed."""
    line = _found(driver, error_type)[0]
    return {
        name
        for name, alarm in ALARMS.items()
        if alarm["Namespace"] == "login-etl" and _passes(line, alarm)
    }


def _passes(line: dict[str, Any], alarm: dict[str, Any]) -> bool:
    """Compare what a line says with an alarm on the very metric, its dimensions included."""
    function = {"Ref": "IngestFunction"}
    dimensions = {
        one["Name"]: line["function"] if one["Value"] == function else one["Value"]
        for one in alarm["Dimensions"]
    }
    written = {
        metric["Name"]
        for directive in line["_aws"]["CloudWatchMetrics"]
        for names in directive["Dimensions"]
        for metric in directive["Metrics"]
        if {name: line[name] for name in names} == dimensions
    }
    return (
        alarm["MetricName"] in written
        and isinstance(alarm["Threshold"], int)
        and line[alarm["MetricName"]] > alarm["Threshold"]
    )


def _found(driver: Driver, error_type: str) -> list[dict[str, Any]]:
    """Ask the log for failed batches, the last one first."""
    query = RESOURCES["FailedBatchesQuery"]["Properties"]["QueryString"]
    lines = logs.lines(driver.sandbox.emulator, driver.sandbox.stack)
    return [line for line in insights.run(query, lines) if line["error_type"] == error_type]


def _rows(heading: str) -> dict[str, str]:
    """Read the runbook's table with this heading: its rows by the names in their first column."""
    runbook = README.split("\n### Runbook\n")[1]
    table = runbook.replace(f"| `{heading}` |", f"| {heading} |").split(f"\n| {heading} |")[1]
    rows = [line for line in table.split("\n\n")[0].splitlines()[2:] if line.startswith("|")]
    return {name: row for row in rows for name in row.split("|")[1].split("`")[1::2]}
