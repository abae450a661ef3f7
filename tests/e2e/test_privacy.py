"""The search of everything that was logged, metrics included, and of all traces."""

import json

import pytest

from dev import EVENTS, logs
from dev.logins import disguises, raw_values
from e2e.driver import Driver


@pytest.mark.last
def test_logs_contain_no_sensitive_value(everything: Driver) -> None:
    system = everything.system
    logged = {
        "the function": "\n".join(logs.lines(system.emulator, system.stack)),
        "Postgres": system.postgres.log.read_text(),
    }

    if system.emulator.process is not None:
        logged["the emulator"] = system.emulator.log.read_text()

    assert _found(everything, logged) == []
    # The search had somewhere to find it.
    assert "batch done" in logged["the function"]
    assert "CloudWatchMetrics" in logged["the function"]
    assert all(stored_in_the_clear in logged["Postgres"] for stored_in_the_clear in _good_users())


@pytest.mark.last
@pytest.mark.own_localstack("receives traces on this machine's loopback, not a container's")
def test_traces_contain_no_sensitive_value(everything: Driver) -> None:
    traces = "\n".join(everything.traces)

    assert _found(everything, {"X-Ray": traces}) == []
    # The search had somewhere to find it.
    assert '"name":"decode, mask and write"' in traces
    assert '"fault":true' in traces


def _found(driver: Driver, logged: dict[str, str]) -> list[str]:
    """Search texts for every raw value that the system was shown, and for its secrets."""
    files = [path.read_text() for path in EVENTS.iterdir()]
    shown = driver.shown.union(*map(raw_values, files))
    secrets = {driver.salt, *driver.system.passwords.values()}
    assert len(shown) > 200
    return [
        f"{name} has {value!r}"
        for name, text in logged.items()
        for value in shown | secrets
        if any(form in text for form in disguises(value))
    ]


def _good_users() -> list[str]:
    records = json.loads((EVENTS / "good.json").read_text())["Records"]
    return [json.loads(record["body"])["user_id"] for record in records]
