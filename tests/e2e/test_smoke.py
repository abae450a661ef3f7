"""The smoke test passes on a working stack, and fails on stacks that do not work."""

import pytest

from deploy.smoke import MESSAGES, SmokeError, check_stack
from dev import stack
from dev.emulator import Feature
from e2e.driver import Driver, wait_until

pytestmark = pytest.mark.needs(Feature.LOG_GROUPS)


def test_working_stack_passes(driver: Driver) -> None:
    _run_smoke_test(driver)

    assert len(driver.users()) == MESSAGES
    assert all(user.startswith("smoke-") for user in driver.users())


def test_messages_left_in_the_queue_are_reported(driver: Driver) -> None:
    driver.execute("ALTER TABLE user_logins RENAME TO elsewhere")
    try:
        with pytest.raises(SmokeError, match="messages are still in the queue"):
            _run_smoke_test(driver, patience_s=2)
        _wait_until_dead(driver)
    finally:
        driver.execute("ALTER TABLE elsewhere RENAME TO user_logins")


def test_messages_that_become_no_rows_are_reported(driver: Driver) -> None:
    driver.execute("ALTER TABLE user_logins ADD CONSTRAINT refuse_all CHECK (false)")
    try:
        with pytest.raises(SmokeError, match="only 0 of 10 messages were written"):
            _run_smoke_test(driver, patience_s=15)
    finally:
        driver.execute("ALTER TABLE user_logins DROP CONSTRAINT refuse_all")


def _run_smoke_test(driver: Driver, patience_s: float = 60) -> None:
    check_stack(driver.system.emulator.client, driver.system.stack.name, patience_s)


def _wait_until_dead(driver: Driver) -> None:
    emulator, queue_url = driver.system.emulator, driver.system.stack.queue_url
    wait_until(lambda: stack.count(emulator, queue_url) == 0, driver.dead_letters)
