"""The database is away while a failed update is rolled back; the documented commands continue."""

import json
from collections.abc import Iterator

import pytest

from dev import TARGET, stack
from dev.emulator import Feature
from dev.local_system import running_services
from e2e import documented
from e2e.commands import run
from e2e.deployment import STACK, Database

pytestmark = pytest.mark.needs(Feature.CUSTOM_RESOURCES)

CONTINUE, SKIP = documented.commands("If a later deployment fails", "deployment.md")


@pytest.fixture
def stuck() -> Iterator[Database]:
    """Deploy a stack, and update it with a newer schema while Postgres is stopped."""
    with running_services(TARGET / "e2e-stuck-rollbacks") as services:
        database = Database(services)
        database.deploy()
        template = json.loads(database.template)
        template["Resources"]["Schema"]["Properties"]["Version"] += 1
        services.postgres.stop()
        try:
            status = database.update(json.dumps(template))
            assert status == "UPDATE_ROLLBACK_FAILED"
            yield database
        finally:
            services.postgres.start()


def test_rollback_continues_when_database_is_back(stuck: Database) -> None:
    stuck.postgres.start()

    run(stuck.emulator, STACK, CONTINUE)

    assert _status(stuck) == "UPDATE_ROLLBACK_COMPLETE"
    assert stuck.stores_login("after")


def test_rollback_skips_migrate_while_database_is_away(stuck: Database) -> None:
    run(stuck.emulator, STACK, SKIP)

    assert _status(stuck) == "UPDATE_ROLLBACK_COMPLETE"
    stuck.postgres.start()
    assert stuck.stores_login("after")


def _status(database: Database) -> str:
    """Wait until the rollback ends."""
    waiter = database.formation.get_waiter("stack_rollback_complete")
    waiter.wait(StackName=STACK, WaiterConfig=stack.WAITER_CONFIG)
    [found] = database.formation.describe_stacks(StackName=STACK)["Stacks"]
    return found["StackStatus"]
