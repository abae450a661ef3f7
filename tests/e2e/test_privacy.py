"""Searches all logs, with their metrics, and all traces for raw values and secrets."""

import json

import pytest

from dev import EVENTS, logs
from dev.logins import encodings, raw_values
from e2e.driver import Driver


@pytest.mark.last
def test_logs_contain_no_sensitive_value(session_driver: Driver) -> None:
    system = session_driver.system
    logged = {
        "the function": "\n".join(logs.lines(system.emulator, system.stack)),
        "Postgres": system.postgres.log.read_text(),
    }

    if system.emulator.process is not None:
        logged["the emulator"] = system.emulator.log.read_text()

    assert _found(session_driver, logged) == []
    # The search had input.
    assert "batch done" in logged["the function"]
    assert "CloudWatchMetrics" in logged["the function"]
    assert all(unmasked_user in logged["Postgres"] for unmasked_user in _good_users())


@pytest.mark.last
@pytest.mark.own_localstack("receives traces on this machine's loopback, not a container's")
def test_traces_contain_no_sensitive_value(session_driver: Driver) -> None:
    traces = "\n".join(session_driver.traces)

    assert _found(session_driver, {"X-Ray": traces}) == []
    # The search had input.
    assert '"name":"decode, mask and write"' in traces
    assert '"fault":true' in traces


def _found(driver: Driver, logged: dict[str, str]) -> list[str]:
    """Search texts for every raw value that was sent, and for the secrets."""
    files = [path.read_text() for path in EVENTS.iterdir()]
    sent_values = driver.sent_values.union(*map(raw_values, files))
    secrets = {driver.salt, *driver.system.passwords.values()}
    assert len(sent_values) > 200
    return [
        f"{name} has {value!r}"
        for name, text in logged.items()
        for value in sent_values | secrets
        if any(form in text for form in encodings(value))
    ]


def _good_users() -> list[str]:
    records = json.loads((EVENTS / "good.json").read_text())["Records"]
    return [json.loads(record["body"])["user_id"] for record in records]
