"""The runbook in docs/operations.md: each `errorType` is caused, found and repaired."""

import re
from typing import Any

import pytest

from dev import logs
from dev.emulator import Feature
from dev.logins import failed, login, record
from e2e import documented, emf, insights
from e2e.cloudwatch import ALARMS
from e2e.driver import Driver, wait_until
from e2e.incidents import BY_ERROR_TYPE

NEEDS = {"SecretsUnavailable": Feature.ROLES}
# Nothing here can take the random numbers away from a process.
WITHOUT_INCIDENT = {"ValuesNotSealed"}
MALFORMED_EVENTS: dict[str, Any] = {
    "MalformedEvent": {"Records": "none"},
    "MissingMessageId": {"Records": [{"body": "{}"}]},
}


def test_runbook_lists_exactly_the_templates_alarms() -> None:
    assert set(documented.rows("alarm")) == set(ALARMS)


def test_saved_queries_named_in_texts_exist() -> None:
    named = set.union(*map(documented.queries, documented.rows("alarm").values()))
    described = {
        query
        for alarm in ALARMS.values()
        for query in re.findall(r'quer(?:y|ies) "([^"]+)"', alarm["AlarmDescription"])
    }

    assert named
    assert described
    assert named | described <= set(insights.SAVED)


def test_every_documented_error_type_has_an_incident() -> None:
    incidents = set(BY_ERROR_TYPE) | set(MALFORMED_EVENTS)
    assert set(documented.rows("errorType")) == incidents | WITHOUT_INCIDENT


@pytest.mark.parametrize(
    "error_type",
    [
        pytest.param(error_type, marks=pytest.mark.needs(NEEDS.get(error_type, Feature(0))))
        for error_type in BY_ERROR_TYPE
    ],
)
def test_incident_is_found_and_mended_by_the_runbook(driver: Driver, error_type: str) -> None:
    assert driver.invoke(record(login())) == failed()
    before = len(_found(driver, error_type))

    with BY_ERROR_TYPE[error_type](driver):
        during_incident = driver.invoke(record(login()))
    afterwards = driver.invoke(record(login()))

    assert during_incident == {"errorType": error_type}
    assert afterwards == failed()
    wait_until(lambda: len(_found(driver, error_type)) == before + 1, lambda: error_type)
    assert _breached_alarms(driver, error_type) == _expected(error_type)


@pytest.mark.parametrize("error_type", MALFORMED_EVENTS)
def test_malformed_event_is_found_by_the_runbook(driver: Driver, error_type: str) -> None:
    before = len(_found(driver, error_type))

    answer = driver.invoke_event(MALFORMED_EVENTS[error_type])

    assert answer == {"errorType": error_type}
    wait_until(lambda: len(_found(driver, error_type)) == before + 1, lambda: error_type)
    assert _breached_alarms(driver, error_type) == _expected(error_type)


def _expected(error_type: str) -> set[str]:
    """Return the alarms that a batch with this error type must raise."""
    if error_type == "DatabaseTimedOut":
        return {"database-errors", "near-timeout"}
    if error_type.startswith("Database"):
        return {"database-errors"}
    return {"salt-changed"} if error_type == "SaltChanged" else set()


def _breached_alarms(driver: Driver, error_type: str) -> set[str]:
    """Return the alarms whose threshold the last batch with this error type has exceeded."""
    line = _found(driver, error_type)[0]
    return {
        name
        for name, alarm in ALARMS.items()
        if alarm["Namespace"] == "login-etl" and _exceeds(line, alarm)
    }


def _exceeds(line: dict[str, Any], alarm: dict[str, Any]) -> bool:
    """Return whether a line's value of the alarm's metric, with its dimensions, is too high."""
    function = {"Ref": "IngestFunction"}
    dimensions = {
        dimension["Name"]: line["function"]
        if dimension["Value"] == function
        else dimension["Value"]
        for dimension in alarm["Dimensions"]
    }
    return isinstance(alarm["Threshold"], int) and any(
        max(metric.values) > alarm["Threshold"]
        for metric in emf.metrics(line)
        if (metric.name, metric.dimensions) == (alarm["MetricName"], dimensions)
    )


def _found(driver: Driver, error_type: str) -> list[dict[str, Any]]:
    """Query the log for failed batches, the last batch first."""
    lines = logs.lines(driver.system.emulator, driver.system.stack)
    found = insights.run(insights.SAVED["failed batches"], lines)
    return [line for line in found if line["error_type"] == error_type]
