"""The database is stopped: shorter, and longer, than messages are redelivered."""

import json
from time import sleep

from dev import stack
from dev.logins import login
from e2e.driver import Driver, wait_until


def test_short_outage_recovers_without_intervention(driver: Driver) -> None:
    bodies = [json.dumps(login()) for _ in range(25)]

    driver.system.postgres.stop()
    try:
        driver.send(*bodies)
        sleep(1)
    finally:
        driver.system.postgres.start()
    driver.wait_for(rows=25)

    assert driver.users() == _users(bodies)


def test_long_outage_is_recovered_by_redrive(driver: Driver) -> None:
    bodies = [json.dumps(login()) for _ in range(25)]

    driver.system.postgres.stop()
    try:
        driver.send(*bodies)
        _wait_for_dead_letters(driver, 25)
    finally:
        driver.system.postgres.start()
    driver.redrive()
    driver.wait_for(rows=25)

    assert driver.users() == _users(bodies)


def _users(bodies: list[str]) -> list[str]:
    return sorted(json.loads(body)["user_id"] for body in bodies)


def _wait_for_dead_letters(driver: Driver, number: int) -> None:
    emulator, deployed = driver.system.emulator, driver.system.stack

    def dead() -> int:
        return stack.count(emulator, deployed.dead_letter_queue_url)

    wait_until(lambda: dead() == number, dead)
