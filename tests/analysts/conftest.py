"""The database, the API and the browser, shared by all tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from analysts import browser, server
from analysts.server import Api, Database
from dev import TARGET
from dev.processes import exit_on_signals

# The most verbose logs, so that the test of the logs searches everything that could be logged.
VERBOSE_POSTGRES = {"log_statement": "all", "log_error_verbosity": "verbose"}


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """Start a Postgres with the sample logins, rolled up."""
    with server.database(TARGET / "analysts", VERBOSE_POSTGRES) as database:
        yield database


@pytest.fixture(scope="session")
def api(database: Database) -> Iterator[Api]:
    """Start the API."""
    with server.running(database, RUST_LOG="trace") as api:
        yield api


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Start Chromium."""
    with browser.running() as chromium:
        yield chromium


def pytest_configure() -> None:
    """Stop the servers also when a signal ends the tests."""
    exit_on_signals()
