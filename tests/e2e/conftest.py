"""One system for all tests, empty at the start of each; and which tests the emulator allows."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dev import TARGET, stack
from dev.emulator import Kind, Shows
from dev.processes import end_in_good_order
from dev.sandbox import running
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
        running(TARGET / "e2e", LOUD_POSTGRES, LogFilter=LOUD_FUNCTION) as sandbox,
    ):
        driver = Driver(sandbox, traces=traces)
        # Lambda sets it, and runs the daemon; an emulator does not.
        driver.configure(AWS_XRAY_DAEMON_ADDRESS=address)
        yield driver


@pytest.fixture
def driver(everything: Driver) -> Driver:
    """Return the system with empty tables and queues."""
    sandbox = everything.sandbox
    everything.execute("TRUNCATE user_logins, processed_messages")
    sqs = sandbox.emulator.client("sqs")
    for url in (sandbox.stack.queue_url, sandbox.stack.dead_letter_queue_url):
        if stack.count(sandbox.emulator, url):
            sqs.purge_queue(QueueUrl=url)
    return replace(everything, began=datetime.now(UTC))


def pytest_configure() -> None:
    """Stop what was started also where the tests are ended from outside."""
    end_in_good_order()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this emulator cannot show; search all logs when all else has logged."""
    shows = Kind(os.environ.get("E2E_EMULATOR", Kind.MINISTACK)).shows
    left_out = [item for item in items if _needs(item) not in shows]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def _needs(item: pytest.Item) -> Shows:
    needs = Shows(0)
    for marker in item.iter_markers("needs"):
        needs |= marker.args[0]
    return needs
