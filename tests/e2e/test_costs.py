"""The measured figures with which dev/costs.py computes."""

import json
import tomllib

import pytest

from dev import ROOT, logs, stack
from dev.logins import login, record
from e2e import emf
from e2e.driver import Driver, wait_until

MEASURED = tomllib.loads((ROOT / "dev" / "prices.toml").read_text())["measured"]
BATCHES = 2


@pytest.fixture
def lines(driver: Driver) -> list[str]:
    """Write the first batch of a process and a second one; return the lines with metrics."""
    driver.configure()
    for _ in range(BATCHES):
        driver.invoke(*(record(login()) for _ in range(100)))
    stack.migrate(driver.system.emulator, driver.system.stack)

    def written() -> list[str]:
        return [line for line in driver.log_lines() if '"_aws"' in line]

    wait_until(lambda: len(written()) == BATCHES + 1, written)
    return written()


def test_line_is_as_long_as_stated(lines: list[str]) -> None:
    warm = [len(line.encode()) for line in lines if '"cold_start":0' in line]

    # Numbers and the function's name have different lengths.
    assert warm == [pytest.approx(MEASURED["line_bytes"], rel=0.05)]


def test_healthy_day_has_the_stated_metrics(lines: list[str]) -> None:
    metrics = {
        (metric.name, json.dumps(metric.dimensions))
        for line in lines
        for metric in emf.metrics(logs.fields(line))
    }

    assert len(metrics) == MEASURED["metrics"]
