"""`login-etl redrive` writes what it can, says what failed, and never leaves the mapping on."""

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from time import sleep

import pytest

from dev import stack
from dev.emulator import Emulator
from dev.logins import login
from e2e import program
from e2e.driver import Driver, wait_until
from e2e.slow_mappings import slow_mappings

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
INTERRUPTIONS = 20
BAD = "no login"


@pytest.fixture(autouse=True)
def _off(driver: Driver) -> None:
    """Turn the mapping off: MiniStack creates it off, but says that it is on."""
    functions = driver.system.emulator.client("lambda")
    functions.update_event_source_mapping(UUID=driver.system.stack.redrive_mapping, Enabled=False)
    wait_until(lambda: _state(driver) == "Disabled", lambda: _state(driver))


def test_good_letters_are_written_and_bad_stay(driver: Driver) -> None:
    _dead_letters(driver, json.dumps(login(user_id="late")), BAD, BAD)

    done = _redrive(driver, "--patience", "5")

    assert (done.status, driver.users()) == (1, ["late"]), done
    assert done.result == {
        "stack": driver.system.stack.name,
        "before": 3,
        "left": 2,
        "failed_again": 2,
        "not_tried": 0,
        "reasons": [{"reason": "NotJson", "field": None, "letters": 2}],
        "failed_batches": [],
    }
    assert _state(driver) == "Disabled"
    assert BAD not in done.output + done.progress


def test_table_shows_reasons_and_empty_queue(driver: Driver) -> None:
    deployed = driver.system.stack.name
    _dead_letters(driver, BAD)

    failed = _redrive(driver, "--patience", "3", json_output=False)
    driver.system.emulator.client("sqs").purge_queue(
        QueueUrl=driver.system.stack.dead_letter_queue_url
    )
    empty = _redrive(driver, json_output=False)

    assert "| of them failed again | 1      |" in failed.output
    assert "| NotJson         |       | 1       |                |" in failed.output
    assert (empty.status, empty.output) == (0, f"{deployed} has no dead letters.\n")


def test_letters_of_failed_batches_failed_again(driver: Driver) -> None:
    driver.execute("ALTER TABLE user_logins RENAME TO elsewhere")
    try:
        _dead_letters(driver, json.dumps(login()))
        done = _redrive(driver, "--patience", "3")
    finally:
        driver.execute("ALTER TABLE elsewhere RENAME TO user_logins")

    assert (done.status, done.result["failed_again"], done.result["not_tried"]) == (1, 1, 0)
    assert [batch["error_type"] for batch in done.result["failed_batches"]] == ["DatabaseRefused"]


def test_letters_that_nothing_reads_are_not_tried(driver: Driver) -> None:
    _dead_letters(driver, json.dumps(login()), BAD)

    with slow_mappings(driver.system.emulator.endpoint, broken=True) as slow:
        done = _redrive(driver, "--patience", "3", endpoint=slow.endpoint)

    assert (done.status, done.result["failed_again"], done.result["not_tried"]) == (1, 0, 2)
    assert _state(driver) == "Disabled"


def test_patience_starts_when_mapping_is_on(driver: Driver) -> None:
    _dead_letters(driver, json.dumps(login(user_id="late")))

    with slow_mappings(driver.system.emulator.endpoint, delay_s=6) as slow:
        done = _redrive(driver, "--patience", "3", endpoint=slow.endpoint)

    assert (done.status, done.result["left"], driver.users()) == (0, 0, ["late"])
    assert _state(driver) == "Disabled"


def test_interrupted_redrive_leaves_mapping_off(driver: Driver) -> None:
    seed = Random().randrange(1000)
    random = Random(seed)
    _dead_letters(driver, BAD)
    ends = []

    with slow_mappings(driver.system.emulator.endpoint) as slow:
        for number in range(INTERRUPTIONS):
            sent = random.choice([*SIGNALS])
            process = _start(driver, "--patience", "60", endpoint=slow.endpoint)
            # Each second signal comes while the mapping is being turned on.
            if number % 2:
                wait_until(lambda: bool(slow.changing), lambda: slow.changing)
                after_s = random.uniform(0, 0.5)
            else:
                after_s = random.uniform(0.05, 5)
            sleep(after_s)
            done = program.end(process, sent)
            ends.append(done.status)
            slow.wait()
            told = f"seed {seed}, {number}: {sent.name} after {after_s:.2f} s: {done}"
            # Before the program receives signals, one ends it by itself: nothing is changed then.
            assert done.status in (SIGNALS[sent], -sent), told
            assert _state(driver) == "Disabled", told
            assert ("the mapping is off" in done.progress) == ("mapping of" in done.progress), told
        refused = slow.refused

    assert len(ends) == INTERRUPTIONS
    # The program asked again when the mapping could not be turned off yet.
    assert refused > 0, f"seed {seed}"


def test_second_signal_does_not_end_the_cleanup(driver: Driver) -> None:
    _dead_letters(driver, BAD)

    with slow_mappings(driver.system.emulator.endpoint, delay_s=2) as slow:
        process = _start(driver, "--patience", "60", endpoint=slow.endpoint)
        wait_until(lambda: _state(driver) == "Enabled", lambda: _state(driver))
        process.send_signal(signal.SIGINT)
        sleep(1)
        done = program.end(process, signal.SIGTERM)

    assert done.status == 130
    assert "SIGTERM was received, but the mapping must be turned off first" in done.progress
    assert _state(driver) == "Disabled"


def test_killed_redrive_is_continued_by_the_next(driver: Driver) -> None:
    _dead_letters(driver, BAD)
    process = _start(driver, "--patience", "60")
    wait_until(lambda: _state(driver) == "Enabled", lambda: _state(driver))
    killed = program.end(process, signal.SIGKILL)

    state_after_kill = _state(driver)
    done = _redrive(driver, "--patience", "3")

    assert (killed.status, state_after_kill) == (-signal.SIGKILL, "Enabled")
    assert "an earlier redrive was killed, or another redrive runs" in done.progress
    assert (done.status, done.result["failed_again"]) == (1, 1)
    assert _state(driver) == "Disabled"


def test_mapping_left_on_is_turned_off_without_letters(driver: Driver) -> None:
    functions = driver.system.emulator.client("lambda")
    functions.update_event_source_mapping(UUID=driver.system.stack.redrive_mapping, Enabled=True)
    wait_until(lambda: _state(driver) == "Enabled", lambda: _state(driver))

    done = _redrive(driver)

    assert done.status == 0
    assert _state(driver) == "Disabled"


def test_mapping_left_on_is_turned_off_without_consent(driver: Driver) -> None:
    functions = driver.system.emulator.client("lambda")
    _dead_letters(driver, BAD)
    functions.update_event_source_mapping(UUID=driver.system.stack.redrive_mapping, Enabled=True)
    wait_until(lambda: _state(driver) == "Enabled", lambda: _state(driver))

    refused = program.run(driver.system.emulator, "--stack", driver.system.stack.name, "redrive")

    assert refused.status == 2
    assert _state(driver) == "Disabled"


def test_too_little_reserved_concurrency_is_refused(driver: Driver) -> None:
    _dead_letters(driver, BAD)

    with _reserved(driver, 3):
        few = _redrive(driver)
    with _reserved(driver, 0):
        none = _redrive(driver)

    assert (few.status, few.output, none.status, none.output) == (1, "", 1, "")
    assert (
        "its mappings need 4 during a redrive (2 + 2). Raise ReservedConcurrency to 4"
        in few.progress
    )
    assert "reserved concurrency is 0: somebody clicked Throttle" in none.progress
    assert "mapping of the dead-letter queue on" not in few.progress + none.progress


def test_caller_without_the_right_changes_nothing(driver: Driver) -> None:
    emulator = driver.system.emulator
    _dead_letters(driver, BAD)

    with slow_mappings(emulator.endpoint, denied=True) as proxy:
        done = _redrive(driver, endpoint=proxy.endpoint)

    assert (done.status, done.output) == (1, "")
    assert "UpdateEventSourceMapping failed: AccessDeniedException: not authorized" in done.progress
    assert "turning the mapping of the dead-letter queue off" not in done.progress


def test_nothing_is_done_without_consent(driver: Driver) -> None:
    _dead_letters(driver, BAD)
    arguments = ("--stack", driver.system.stack.name, "redrive", "--patience", "1")

    unasked = program.run(driver.system.emulator, *arguments)
    refused = _answer(driver.system.emulator, arguments, "n\n")
    agreed = _answer(driver.system.emulator, arguments, "y\n")

    assert (unasked.status, unasked.output) == (2, "")
    assert "There is no terminal to ask on, so nothing was done: add --yes." in unasked.progress
    assert (refused.status, refused.output) == (1, "")
    assert "turning the mapping" not in unasked.progress + refused.progress
    assert "turning the mapping of the dead-letter queue on" in agreed.progress


def _dead_letters(driver: Driver, *bodies: str) -> None:
    """Put messages into the dead-letter queue."""
    url = driver.system.stack.dead_letter_queue_url
    list(stack.send(driver.system.emulator, url, list(bodies)))


def _start(
    driver: Driver, *arguments: str, json_output: bool = True, endpoint: str | None = None
) -> subprocess.Popen[str]:
    shared = ["--stack", driver.system.stack.name, "--yes", *(["--json"] if json_output else [])]
    return program.start(driver.system.emulator, *shared, "redrive", *arguments, endpoint=endpoint)


def _redrive(
    driver: Driver, *arguments: str, json_output: bool = True, endpoint: str | None = None
) -> program.Run:
    return program.end(_start(driver, *arguments, json_output=json_output, endpoint=endpoint))


def _state(driver: Driver) -> str:
    functions = driver.system.emulator.client("lambda")
    return functions.get_event_source_mapping(UUID=driver.system.stack.redrive_mapping)["State"]


@contextmanager
def _reserved(driver: Driver, concurrency: int) -> Iterator[None]:
    functions, name = driver.system.emulator.client("lambda"), driver.system.stack.function
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=concurrency)
    try:
        yield
    finally:
        functions.delete_function_concurrency(FunctionName=name)


def _answer(emulator: Emulator, arguments: tuple[str, ...], answer: str) -> program.Run:
    """Run the program on a terminal, and answer its question."""
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [program.PROGRAM, *arguments],
        env=program.environment(emulator),
        stdin=side,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(side)
    os.write(terminal, answer.encode())
    try:
        return program.end(process)
    finally:
        os.close(terminal)
