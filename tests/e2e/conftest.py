"""One system for all tests, empty at the start of each; and which tests the emulator allows."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dev import TARGET, stack
from dev.emulator import Feature, Kind
from dev.local_system import running
from dev.processes import exit_on_signals
from e2e import xray
from e2e.driver import Driver

# What a log could say is said: by the function, and by Postgres of every statement and parameter.
LOUD_POSTGRES = {"log_statement": "all", "log_error_verbosity": "verbose"}
LOUD_FUNCTION = "trace"


@pytest.fixture(scope="session")
def everything() -> Iterator[Driver]:
    """Start the system, and stop it when the last test is done."""
    traces: list[str] = []
    with (
        xray.daemon(traces) as address,
        running(TARGET / "e2e", LOUD_POSTGRES, LogFilter=LOUD_FUNCTION) as system,
    ):
        driver = Driver(system, traces=traces)
        # Lambda sets it, and runs the daemon; an emulator does not.
        driver.configure(AWS_XRAY_DAEMON_ADDRESS=address)
        yield driver


@pytest.fixture
def driver(everything: Driver) -> Driver:
    """Return the system with empty tables and queues."""
    system = everything.system
    everything.execute("TRUNCATE user_logins, processed_messages")
    sqs = system.emulator.client("sqs")
    for url in (system.stack.queue_url, system.stack.dead_letter_queue_url):
        if stack.count(system.emulator, url):
            sqs.purge_queue(QueueUrl=url)
    return replace(everything, began=datetime.now(UTC))


def pytest_configure() -> None:
    """Stop what was started also where the tests are ended from outside."""
    exit_on_signals()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this emulator cannot show; search all logs when all else has logged."""
    features = Kind(os.environ.get("E2E_EMULATOR", Kind.MINISTACK)).features
    left_out = [item for item in items if _needs(item) not in features]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def _needs(item: pytest.Item) -> Feature:
    needs = Feature(0)
    for marker in item.iter_markers("needs"):
        needs |= marker.args[0]
    return needs
