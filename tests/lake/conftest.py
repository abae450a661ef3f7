"""The servers, shared by all tests, and an export of its own for each test."""

from collections.abc import Iterator

import pytest

from dev import TARGET
from dev.local_system import Services
from dev.processes import exit_on_signals
from lake import servers
from lake.servers import Export


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Start Postgres and the emulator."""
    with servers.running(TARGET / "lake") as services:
        yield services


@pytest.fixture
def export(services: Services) -> Export:
    """Create a database without logins, and a bucket without objects."""
    return servers.create(services)


def pytest_configure() -> None:
    """Stop the servers also when a signal ends the tests."""
    exit_on_signals()
