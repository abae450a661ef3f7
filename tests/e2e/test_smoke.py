"""`login-etl smoke` passes on a working stack, and fails on stacks that do not work."""

from dev import stack
from e2e import program
from e2e.driver import Driver, wait_until

MESSAGES = 10


def test_working_stack_passes(driver: Driver) -> None:
    done = _smoke(driver)

    assert done.status == 0, done
    assert done.result == _report(driver, None)
    assert len(driver.users()) == MESSAGES
    assert all(user.startswith("smoke-") for user in driver.users())


def test_messages_left_in_the_queue_are_reported(driver: Driver) -> None:
    driver.execute("ALTER TABLE user_logins RENAME TO elsewhere")
    try:
        done = _smoke(driver, patience_s=2)
        _wait_until_dead(driver)
    finally:
        driver.execute("ALTER TABLE elsewhere RENAME TO user_logins")

    assert done.status == 1, done
    assert done.result == _report(driver, "messages are still in the queue after 2 s")


def test_messages_that_become_no_rows_are_reported(driver: Driver) -> None:
    driver.execute("ALTER TABLE user_logins ADD CONSTRAINT refuse_all CHECK (false)")
    try:
        done = _smoke(driver, patience_s=15)
        _wait_until_dead(driver)
    finally:
        driver.execute("ALTER TABLE user_logins DROP CONSTRAINT refuse_all")

    problem = "a test message failed: RowRefused, Postgres refused the row, SQLSTATE 23514"
    assert done.status == 1, done
    assert done.result == _report(driver, problem)
    assert driver.users() == []


def test_suppressed_rows_are_reported(driver: Driver) -> None:
    driver.execute("CREATE RULE nothing AS ON INSERT TO user_logins DO INSTEAD NOTHING")
    try:
        done = _smoke(driver, patience_s=10)
    finally:
        driver.execute("DROP RULE nothing ON user_logins")

    assert done.status == 1, done
    assert done.result == _report(driver, "only 0 of 10 messages were written")


def test_failing_function_is_reported(driver: Driver) -> None:
    settings = driver.configure(DATABASE_PORT="none")
    try:
        done = _smoke(driver)
    finally:
        driver.configure(**settings)

    assert done.status == 1, done
    assert done.result["problem"].startswith("the function failed: ")
    assert driver.users() == []


def test_people_read_a_sentence(driver: Driver) -> None:
    name = driver.system.stack.name

    done = program.run(driver.system.emulator, "--stack", name, "--yes", "smoke")

    assert (done.status, done.output) == (
        0,
        f"{name} works: 10 messages were written, a bad message was reported\n",
    )


def test_missing_stack_is_named(driver: Driver) -> None:
    done = program.run(driver.system.emulator, "--stack", "login-etl-none", "--yes", "smoke")

    assert (done.status, done.output) == (1, "")
    assert "there is no stack login-etl-none in the region us-east-1" in done.progress


def _smoke(driver: Driver, patience_s: int = 60) -> program.Run:
    shared = ("--stack", driver.system.stack.name, "--yes", "--json")
    return program.run(driver.system.emulator, *shared, "smoke", "--patience", str(patience_s))


def _report(driver: Driver, problem: str | None) -> dict[str, object]:
    return {
        "stack": driver.system.stack.name,
        "works": problem is None,
        "sent": MESSAGES,
        "problem": problem,
    }


def _wait_until_dead(driver: Driver) -> None:
    emulator, queue_url = driver.system.emulator, driver.system.stack.queue_url
    wait_until(lambda: stack.count(emulator, queue_url) == 0, driver.dead_letters)
