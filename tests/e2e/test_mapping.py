"""How Lambda's event-source mapping treats batches, answers and the order of messages."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep, time
from uuid import uuid4

import pytest

from dev import logs, stack
from dev.emulator import Feature
from dev.logins import failed, login, raw_values, record
from e2e.driver import Driver, wait_until
from e2e.mappings import arn, function_that_answers, mapped, queue, redrive_policy

# The answers that fail the whole batch, except an answer that is not JSON: LocalStack treats
# that as success. https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
MALFORMED = {
    "an id that is not of this batch": {"batchItemFailures": [{"itemIdentifier": "stranger"}]},
    "an empty id": {"batchItemFailures": [{"itemIdentifier": ""}]},
    "an id that is null": {"batchItemFailures": [{"itemIdentifier": None}]},
    "a key that is misspelt": {"batchItemFailures": [{"itemIdentifer": "stranger"}]},
}

# LocalStack ignores a window that is not longer than the longest poll of SQS, which is 20 s.
WINDOW_S = 21

needs_python = pytest.mark.own_localstack(
    "deploys a function that this machine's Python runs, and a container does not have it"
)


@pytest.mark.needs(Feature.BAD_ANSWERS)
@needs_python
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_answer_fails_the_batch(driver: Driver, name: str) -> None:
    assert _outcome(driver, MALFORMED[name]) == {"deleted": 0, "dead": 3}


@pytest.mark.needs(Feature.BAD_ANSWERS)
@needs_python
def test_answer_without_failures_deletes_the_batch(driver: Driver) -> None:
    assert _outcome(driver, failed()) == {"deleted": 3, "dead": 0}


def test_odd_message_ids_are_returned_unchanged(driver: Driver) -> None:
    ids = ["null", " ", '"', "\\", "ü", "\u0000", "x" * 1000, "[]", "stranger"]
    bad = [record("no login", messageId=message_id) for message_id in ids]

    answer = driver.invoke(*bad, record(login()))

    assert answer == failed(*bad)


@pytest.mark.needs(Feature.BATCHES)
def test_fifty_messages_arrive_as_one_batch(driver: Driver) -> None:
    before = _batches(driver)
    function = driver.system.stack.function

    with queue(driver) as url:
        _send(driver, url, [login() for _ in range(50)])
        started = monotonic()
        with mapped(driver, url, function, size=50, window_s=WINDOW_S):
            wait_until(lambda: len(driver.rows()) == 50, driver.users)
            elapsed_s = monotonic() - started

    _wait_for_batches(driver, before, [50])
    # A full batch does not wait for the end of its window.
    assert elapsed_s < WINDOW_S


@pytest.mark.needs(Feature.BATCHES)
def test_messages_in_one_window_make_one_batch(driver: Driver) -> None:
    before = _batches(driver)
    function = driver.system.stack.function

    with queue(driver) as url, mapped(driver, url, function, size=50, window_s=WINDOW_S):
        for _ in range(3):
            _send(driver, url, [login()])
            sleep(1)
        within_the_window = driver.rows()
        wait_until(lambda: len(driver.rows()) == 3, driver.users)

    assert within_the_window == []
    _wait_for_batches(driver, before, [3])


@pytest.mark.needs(Feature.BATCHES)
def test_fifo_group_with_failure_keeps_its_order(driver: Driver) -> None:
    first, refused, later, other = bodies = [login() for _ in range(4)]
    groups = ["a", "a", "a", "b"]
    refusal = f"ADD CONSTRAINT temporary CHECK (user_id <> '{refused['user_id']}')"

    driver.execute(f"ALTER TABLE user_logins {refusal}")
    try:
        with _fifo_queue(driver) as url:
            ids = _send_in_order(driver, url, groups, bodies)
            reason = driver.reason(ids[1]), driver.reason(ids[2])
            wait_until(lambda: len(driver.rows()) >= 2, driver.users)
            while_refused = driver.users()
            driver.execute("ALTER TABLE user_logins DROP CONSTRAINT temporary")
            wait_until(lambda: len(driver.rows()) >= 4, driver.users)
    finally:
        driver.execute("ALTER TABLE user_logins DROP CONSTRAINT IF EXISTS temporary")

    assert reason == ("RowRefused", "HeldBack")
    assert while_refused == sorted([first["user_id"], other["user_id"]])
    # No message of the group was written in an earlier transaction than the messages before it.
    written = "SELECT user_id FROM user_logins ORDER BY xmin::text::bigint, user_id"
    in_order = [user for (user,) in driver.query(written) if user != other["user_id"]]
    assert in_order == [first["user_id"], refused["user_id"], later["user_id"]]


def test_written_fifo_dead_letter_adds_no_row(driver: Driver) -> None:
    lost, unwritten = bodies = [login() for _ in range(2)]
    function = driver.system.stack.function
    sent_at = str(round(time() * 1000) - 60_000)

    with (
        queue(driver, FifoQueue="true") as dead_letters,
        queue(driver, FifoQueue="true", **redrive_policy(driver, dead_letters, 1)) as url,
    ):
        ids = _send_in_order(driver, url, ["a", "b"], bodies)
        driver.execute("ALTER TABLE user_logins ADD CONSTRAINT temporary CHECK (false)")
        try:
            with mapped(driver, url, function):
                _wait_for_count(driver, dead_letters, 2)
        finally:
            driver.execute("ALTER TABLE user_logins DROP CONSTRAINT temporary")
        # One message was written, but each of its answers was lost until MaxReceiveCount. Then SQS
        # gave it a new SentTimestamp.
        attributes = {"SentTimestamp": sent_at, "MessageGroupId": "a"}
        first_delivery = record(
            lost, messageId=ids[0], eventSourceARN=arn(driver, url), attributes=attributes
        )
        assert driver.invoke(first_delivery) == failed()
        with mapped(driver, dead_letters, function):
            _wait_for_count(driver, dead_letters, 0)

    assert driver.users() == sorted([lost["user_id"], unwritten["user_id"]])


def _wait_for_count(driver: Driver, url: str, messages: int) -> None:
    emulator = driver.system.emulator
    wait_until(lambda: stack.count(emulator, url) == messages, lambda: stack.count(emulator, url))


def _outcome(driver: Driver, answer: object) -> dict[str, int]:
    """Send 3 messages to a function with this answer; count deleted messages and dead letters."""
    emulator = driver.system.emulator
    with (
        function_that_answers(driver, json.dumps(answer)) as function,
        queue(driver) as dead_letters,
        queue(driver, **redrive_policy(driver, dead_letters, deliveries=1)) as url,
        mapped(driver, url, function),
    ):
        _send(driver, url, ["one", "two", "three"])
        wait_until(lambda: stack.count(emulator, url) == 0, lambda: stack.count(emulator, url))
        dead = stack.count(emulator, dead_letters)
    return {"deleted": 3 - dead, "dead": dead}


@contextmanager
def _fifo_queue(driver: Driver) -> Iterator[str]:
    """Create a FIFO queue that is mapped to the function, and delete it at the end."""
    with queue(driver, FifoQueue="true") as url, mapped(driver, url, driver.system.stack.function):
        yield url


def _send(driver: Driver, url: str, bodies: list[object]) -> None:
    """Send messages to a queue of the test."""
    texts = [json.dumps(body) for body in bodies]
    driver.sent_values.update(*map(raw_values, texts))
    for _ids in stack.send(driver.system.emulator, url, texts):
        pass


def _send_in_order(driver: Driver, url: str, groups: list[str], bodies: list[dict]) -> list[str]:
    """Send messages to a FIFO queue in one call; return their ids."""
    driver.sent_values.update(*map(raw_values, map(json.dumps, bodies)))
    entries = [
        {
            "Id": str(place),
            "MessageBody": json.dumps(body),
            "MessageGroupId": group,
            "MessageDeduplicationId": str(uuid4()),
        }
        for place, (group, body) in enumerate(zip(groups, bodies, strict=True))
    ]
    sqs = driver.system.emulator.client("sqs")
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    return [sent["MessageId"] for sent in answer["Successful"]]


def _batches(driver: Driver) -> Counter[int]:
    """Count the logged batches of each size."""
    return Counter(logs.batches(driver.system.emulator, driver.system.stack))


def _wait_for_batches(driver: Driver, before: Counter[int], sizes: list[int]) -> None:
    """Wait until the log has batches of these sizes; it may arrive late."""
    wait_until(
        lambda: _batches(driver) - before == Counter(sizes), lambda: _batches(driver) - before
    )
