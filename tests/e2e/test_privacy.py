"""Searches all logs, with their metrics, and all traces for raw values and secrets."""

import json
import re

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
    assert '"name":"decode"' in traces
    assert '"fault":true' in traces


@pytest.mark.last
@pytest.mark.own_localstack("receives traces on this machine's loopback, not a container's")
def test_xray_permits_every_name(session_driver: Driver) -> None:
    """X-Ray drops a subsegment whose name has another character, and answers no datagram.

    https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
    """
    documents = [json.loads(trace.splitlines()[1]) for trace in session_driver.traces]

    subsegments = [part for document in documents for part in document["subsegments"]]
    names = {part["name"] for part in documents + subsegments}
    keys = {key for document in documents for key in document["annotations"]}
    assert {"batch", "read", "decode", "connect", "write"} <= names
    assert [name for name in names if not re.fullmatch(r"[\w\s.:/%&#=+\\\-@]{1,200}", name)] == []
    assert [key for key in keys if not re.fullmatch(r"[A-Za-z0-9_]{1,500}", key)] == []


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
