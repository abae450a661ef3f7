"""Messages that can never succeed soon leave the queue, through its own redrive policy."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from uuid import uuid4

from dev import logs, stack
from dev.logins import failed, login, raw_values, record
from e2e import function
from e2e.driver import Driver, wait_until
from e2e.function import Statements
from e2e.mappings import arn, mapped, queue, redrive_policy

# Without QUEUE_URL, SQS moves a hopeless message to the dead-letter queue only after 5 x 30 s.
VISIBILITY_S = 30
DELIVERIES = 5
SOON_S = 60


def test_hopeless_messages_soon_are_dead_letters(driver: Driver) -> None:
    refused, good = login(), [login() for _ in range(30)]

    with _refusal_of(driver, refused), _login_queue(driver) as (url, dead_letters):
        [refused_id] = _send(driver, url, [refused])
        bad_ids = _send(driver, url, ["no login"] * 300)
        _send(driver, url, good)
        started = monotonic()
        wait_until(lambda: len(driver.rows()) == len(good), driver.users, SOON_S)
        _wait_for_dead_letters(driver, dead_letters, len(bad_ids))
        elapsed_s = monotonic() - started
        left = stack.count(driver.system.emulator, url)

    deliveries = _deliveries(driver)
    # A refused row waits for its visibility timeout: somebody may drop the constraint meanwhile.
    assert left == 1
    assert deliveries.pop(refused_id) <= 1 + elapsed_s // VISIBILITY_S
    assert deliveries == dict.fromkeys(bad_ids, DELIVERIES)


def test_hopeless_message_soon_frees_its_group(driver: Driver) -> None:
    later = login()

    with _login_queue(driver, FifoQueue="true") as (url, dead_letters):
        _send_to_group(driver, url, "no login")
        _wait_for_dead_letters(driver, dead_letters, 1)
        _send_to_group(driver, url, later)
        wait_until(lambda: bool(driver.rows()), driver.users, SOON_S)

    assert driver.users() == [later["user_id"]]


def test_other_queues_keep_their_visibility_timeout(driver: Driver) -> None:
    with (
        _login_queue(driver),
        queue(driver, VisibilityTimeout=str(VISIBILITY_S)) as other,
        mapped(driver, other, driver.system.stack.function),
    ):
        [message_id] = _send(driver, other, ["no login"])
        driver.reason(message_id)
        sqs = driver.system.emulator.client("sqs")
        visible = sqs.receive_message(QueueUrl=other, WaitTimeSeconds=5)

    assert "Messages" not in visible
    assert _deliveries(driver) == {message_id: 1}


def test_queue_that_refuses_leaves_messages_in_flight(driver: Driver) -> None:
    absent = f"{driver.system.stack.queue_url}-absent"
    account, name = absent.split("/")[-2:]
    bad = record("no login", eventSourceARN=f"arn:aws:sqs:us-east-1:{account}:{name}")
    old = driver.configure(QUEUE_URL=absent)

    try:
        answer = driver.invoke(bad)
        wait_until(lambda: bool(_lines(driver, "messages left in flight")), lambda: "no line")
    finally:
        driver.configure(QUEUE_URL=old.get("QUEUE_URL", ""))

    assert answer == failed(bad)
    [line] = _lines(driver, "messages left in flight")
    assert (line["level"], line["messages"]) == ("WARN", 1)
    [done] = [line for line in _lines(driver, "batch done") if "left_in_flight" in line]
    assert (done["failed"], done["left_in_flight"]) == (1, 1)


@contextmanager
def _login_queue(driver: Driver, **attributes: str) -> Iterator[tuple[str, str]]:
    """Create a queue as the stack's, with a dead-letter queue; yield both URLs."""
    attributes = {"VisibilityTimeout": str(VISIBILITY_S), **attributes}
    fifo = {name: value for name, value in attributes.items() if name == "FifoQueue"}
    with (
        queue(driver, **fifo) as dead_letters,
        queue(driver, **attributes, **redrive_policy(driver, dead_letters, DELIVERIES)) as url,
        _allowed(driver, url),
        mapped(driver, url, driver.system.stack.function),
    ):
        yield url, dead_letters


@contextmanager
def _allowed(driver: Driver, url: str) -> Iterator[None]:
    """Tell the function the URL of its queue, and let it change the visibility of messages."""
    statement = {
        "Sid": "ReturnBadMessages",
        "Effect": "Allow",
        # The star is for MiniStack, which checks the batch's own name.
        "Action": "sqs:ChangeMessageVisibility*",
        "Resource": arn(driver, url),
    }

    def with_the_queue(statements: Statements) -> Statements:
        return [each for each in statements if each["Sid"] != statement["Sid"]] + [statement]

    system = driver.system
    with function.policy(system.emulator, system.stack, with_the_queue):
        old = driver.configure(QUEUE_URL=url)
        try:
            yield
        finally:
            driver.configure(QUEUE_URL=old.get("QUEUE_URL", ""))


@contextmanager
def _refusal_of(driver: Driver, body: dict) -> Iterator[None]:
    """Make Postgres refuse the row of a login."""
    refusal = f"ADD CONSTRAINT temporary CHECK (user_id <> '{body['user_id']}')"
    driver.execute(f"ALTER TABLE user_logins {refusal}")
    try:
        yield
    finally:
        driver.execute("ALTER TABLE user_logins DROP CONSTRAINT temporary")


def _send(driver: Driver, url: str, bodies: list[object]) -> list[str]:
    """Send messages to a queue of the test; return their ids."""
    texts = [json.dumps(body) for body in bodies]
    driver.sent_values.update(*map(raw_values, texts))
    sent = stack.send(driver.system.emulator, url, texts)
    return [message_id for ids in sent for message_id in ids]


def _send_to_group(driver: Driver, url: str, body: object) -> None:
    """Send a message to the group of a FIFO queue."""
    text = json.dumps(body)
    driver.sent_values.update(raw_values(text))
    driver.system.emulator.client("sqs").send_message(
        QueueUrl=url,
        MessageBody=text,
        MessageGroupId="group",
        MessageDeduplicationId=str(uuid4()),
    )


def _wait_for_dead_letters(driver: Driver, url: str, number: int) -> None:
    def dead() -> int:
        return stack.count(driver.system.emulator, url)

    wait_until(lambda: dead() == number, dead, SOON_S)


def _deliveries(driver: Driver) -> dict[str, int]:
    """Count the failed deliveries of each message of this test."""
    return dict(Counter(line["message_id"] for line in _lines(driver, "message failed")))


def _lines(driver: Driver, message: str) -> list[dict]:
    lines = map(logs.fields, driver.log_lines())
    return [line for line in lines if line.get("message") == message]
