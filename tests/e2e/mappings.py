"""Queues and event-source mappings for a test, beside those of the stack."""

import io
import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from botocore.client import BaseClient

from e2e import fixed_answer_function
from e2e.driver import Driver, wait_until

QUEUE_SETTINGS = {"VisibilityTimeout": "2"}


@contextmanager
def queue(driver: Driver, **attributes: str) -> Iterator[str]:
    """Create a queue, and delete it at the end; yield its URL."""
    sqs = driver.system.emulator.client("sqs")
    name = f"{uuid4()}.fifo" if "FifoQueue" in attributes else str(uuid4())
    url = sqs.create_queue(QueueName=name, Attributes=QUEUE_SETTINGS | attributes)["QueueUrl"]
    try:
        yield url
    finally:
        sqs.delete_queue(QueueUrl=url)


def arn(driver: Driver, queue_url: str) -> str:
    """Return the ARN of a queue."""
    sqs = driver.system.emulator.client("sqs")
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    return answer["Attributes"]["QueueArn"]


@contextmanager
def mapped(
    driver: Driver, queue_url: str, function: str, *, size: int = 10, window_s: int = 0
) -> Iterator[None]:
    """Map a queue to a function as the template does, and delete the mapping at the end."""
    functions = driver.system.emulator.client("lambda")
    mapping = functions.create_event_source_mapping(
        EventSourceArn=arn(driver, queue_url),
        FunctionName=function,
        BatchSize=size,
        # For a FIFO queue, AWS refuses the parameter even if it is 0.
        **({"MaximumBatchingWindowInSeconds": window_s} if window_s else {}),
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )
    try:
        _wait_for(functions, mapping["UUID"], "Enabled")
        yield
    finally:
        functions.delete_event_source_mapping(UUID=mapping["UUID"])


@contextmanager
def mapping_disabled(driver: Driver, queue_url: str) -> Iterator[None]:
    """Disable the stack's mapping of a queue, and enable it at the end."""
    functions = driver.system.emulator.client("lambda")
    found = functions.list_event_source_mappings(EventSourceArn=arn(driver, queue_url))
    [mapping] = found["EventSourceMappings"]
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    try:
        _wait_for(functions, mapping["UUID"], "Disabled")
        yield
    finally:
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
        _wait_for(functions, mapping["UUID"], "Enabled")


@contextmanager
def function_that_answers(driver: Driver, answer: str) -> Iterator[str]:
    """Create a function that gives the same answer to every event; yield its name."""
    functions = driver.system.emulator.client("lambda")
    name = f"answers-{uuid4()}"
    functions.create_function(
        FunctionName=name,
        Runtime="provided.al2023",
        Handler="bootstrap",
        Role="arn:aws:iam::000000000000:role/answers",
        Code={"ZipFile": _package()},
        Environment={"Variables": {"ANSWER": answer}},
    )
    functions.get_waiter("function_active_v2").wait(
        FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    try:
        yield name
    finally:
        functions.delete_function(FunctionName=name)


def redrive_policy(driver: Driver, dead_letter_queue_url: str, deliveries: int) -> dict[str, str]:
    """Return the queue attribute that moves a message after this many deliveries."""
    target = arn(driver, dead_letter_queue_url)
    policy = {"deadLetterTargetArn": target, "maxReceiveCount": deliveries}
    return {"RedrivePolicy": json.dumps(policy)}


def _package() -> bytes:
    bootstrap = zipfile.ZipInfo("bootstrap")
    bootstrap.external_attr = 0o755 << 16
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        source = Path(fixed_answer_function.__file__).read_text()
        archive.writestr(bootstrap, f"#!{sys.executable}\n{source}")
    return package.getvalue()


def _wait_for(functions: BaseClient, mapping: str, state: str) -> None:
    def now() -> str:
        return functions.get_event_source_mapping(UUID=mapping)["State"]

    wait_until(lambda: now() == state, now)
