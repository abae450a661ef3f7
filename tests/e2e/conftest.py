"""The system under test, shared by all tests, and the choice of tests for the emulator."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dev import TARGET, demo, stack
from dev.demo import Demo
from dev.emulator import Feature, Kind
from dev.local_system import DATABASE, Services, running, running_services
from dev.processes import exit_on_signals, free_port
from e2e import xray
from e2e.deployment import Database
from e2e.driver import Driver
from e2e.odd_logins import LATE_LOGINS, ODD_LOGINS

# The most verbose logs, so that test_privacy.py searches everything that could be logged.
VERBOSE_POSTGRES = {"log_statement": "all", "log_error_verbosity": "verbose"}
VERBOSE_FUNCTION = "trace"

# Of an emulator that was not started by these tests.
ENDPOINT = os.environ.get("E2E_ENDPOINT_URL")
# test_localstack.py runs these tests again, beside those that started it.
LOGS = TARGET / ("e2e-endpoint" if ENDPOINT else "e2e")
ROLLUP_LOGS = TARGET / "e2e-rollups"
LEFT_OUT = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def session_driver() -> Iterator[Driver]:
    """Start the system, and stop it after the last test."""
    traces: list[str] = []
    with (
        xray.daemon(traces) as address,
        running(LOGS, VERBOSE_POSTGRES, LogFilter=VERBOSE_FUNCTION) as system,
    ):
        driver = Driver(system, traces=traces)
        # Lambda sets this and runs the daemon; an emulator does neither.
        driver.configure(AWS_XRAY_DAEMON_ADDRESS=address)
        yield driver


@pytest.fixture
def driver(session_driver: Driver) -> Driver:
    """Return the system with empty tables and queues."""
    system = session_driver.system
    session_driver.execute("TRUNCATE user_logins, processed_messages, processed_fifo_messages")
    sqs = system.emulator.client("sqs")
    for url in (system.stack.queue_url, system.stack.dead_letter_queue_url):
        if stack.count(system.emulator, url):
            sqs.purge_queue(QueueUrl=url)
    return replace(session_driver, started_at=datetime.now(UTC))


@pytest.fixture(scope="module")
def services(request: pytest.FixtureRequest) -> Iterator[Services]:
    """Start servers for a module: a stack's roles belong to the whole Postgres."""
    name = request.module.__name__.rpartition("test_")[2].replace("_", "-")
    with running_services(TARGET / f"e2e-{name}") as services:
        yield services


@pytest.fixture(scope="session")
def rollups() -> Iterator[Demo]:
    """Roll up generated logins, odd logins, and logins that arrived after the first roll-up."""
    with demo.running(20_000, logs=ROLLUP_LOGS) as made:
        with made.postgres.connect(DATABASE) as admin:
            admin.execute("DROP SCHEMA analytics CASCADE")
            admin.execute(ODD_LOGINS)
            demo.roll_up(made.postgres)
            admin.execute(LATE_LOGINS)
        demo.roll_up(made.postgres)
        yield made


@pytest.fixture(scope="session")
def analysts_api(rollups: Demo) -> Iterator[str]:
    """Run the API and the page over these logins; yield their address."""
    with demo.serving(rollups.postgres, free_port(), logs=ROLLUP_LOGS) as address:
        yield address


@pytest.fixture
def database(services: Services) -> Iterator[Database]:
    """Create an empty database; delete it, and the stack, at the end."""
    database = Database(services)
    try:
        yield database
    finally:
        database.drop()


def pytest_configure() -> None:
    """Stop the servers also when a signal ends the tests."""
    exit_on_signals()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of the shared system, deselect those of other emulators, and sort.

    The tests of the whole log run last.
    """
    for item in items:
        if "session_driver" in getattr(item, "fixturenames", ()):
            item.add_marker("shared_system")
    if _emulator() is not Kind.MINISTACK:
        once = [item for item in items if item.get_closest_marker("without_emulator")]
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in once]
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


def _emulator() -> Kind:
    return Kind(os.environ.get("E2E_EMULATOR", Kind.MINISTACK))


def _reason_to_leave_out(item: pytest.Item) -> str | None:
    kind = _emulator()
    if missing := _needs(item) & ~kind.features:
        return f"{kind} does not have {missing.name}"
    if item.get_closest_marker("as_root") and os.geteuid() != 0:
        return "only root can act as another user"
    own = item.get_closest_marker("own_localstack")
    return own.args[0] if own and ENDPOINT else None


def _needs(item: pytest.Item) -> Feature:
    needs = Feature(0)
    for marker in item.iter_markers("needs"):
        needs |= marker.args[0]
    return needs
