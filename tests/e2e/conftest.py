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

# An emulator that somebody else started.
ENDPOINT = os.environ.get("E2E_ENDPOINT_URL")
LEFT_OUT = pytest.StashKey[dict[str, str]]()


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
    reasons = {item: reason for item in items if (reason := _reason_to_leave_out(item))}
    config.hook.pytest_deselected(items=list(reasons))
    config.stash[LEFT_OUT] = {item.name: reason for item, reason in reasons.items()}
    items[:] = [item for item in items if item not in reasons]
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the tests that a running emulator cannot pass, each with its reason."""
    if ENDPOINT and (left_out := config.stash.get(LEFT_OUT, {})):
        terminalreporter.section(f"left out at {ENDPOINT}")
        for name, reason in left_out.items():
            terminalreporter.line(f"{name}: {reason}")


def _reason_to_leave_out(item: pytest.Item) -> str | None:
    kind = Kind(os.environ.get("E2E_EMULATOR", Kind.MINISTACK))
    if missing := _needs(item) & ~kind.features:
        return f"{kind} does not have {missing.name}"
    own = item.get_closest_marker("own_localstack")
    return own.args[0] if own and ENDPOINT else None


def _needs(item: pytest.Item) -> Feature:
    needs = Feature(0)
    for marker in item.iter_markers("needs"):
        needs |= marker.args[0]
    return needs
