"""The search of everything that was logged, metrics included, and of all traces."""

import json

import pytest

from dev import EVENTS, logs
from dev.logins import disguises, raw_values
from e2e.driver import Driver


@pytest.mark.last
def test_logs_and_traces_contain_no_sensitive_value(
    everything: Driver,
) -> None:
    system = everything.system
    files = [path.read_text() for path in EVENTS.iterdir()]
    shown = everything.shown.union(*map(raw_values, files))
    secrets = {everything.salt, *system.passwords.values()}
    logged = {
        "the function": "\n".join(logs.lines(system.emulator, system.stack)),
        "Postgres": system.postgres.log.read_text(),
        "X-Ray": "\n".join(everything.traces),
    }

    if system.emulator.process is not None:
        logged["the emulator"] = system.emulator.log.read_text()

    found = [
        f"{name} has {value!r}"
        for name, text in logged.items()
        for value in shown | secrets
        if any(form in text for form in disguises(value))
    ]

    assert found == []
    # The search had something to look for, and somewhere to find it.
    assert len(shown) > 200
    assert "batch done" in logged["the function"]
    assert "CloudWatchMetrics" in logged["the function"]
    assert '"name":"decode, mask and write"' in logged["X-Ray"]
    assert '"fault":true' in logged["X-Ray"]
    assert all(stored_in_the_clear in logged["Postgres"] for stored_in_the_clear in _good_users())


def _good_users() -> list[str]:
    records = json.loads((EVENTS / "good.json").read_text())["Records"]
    return [json.loads(record["body"])["user_id"] for record in records]
