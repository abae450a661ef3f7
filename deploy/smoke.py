"""Sends test messages through a deployed stack and checks the result: `make smoke ENV=staging`.

Ten good logins go through the real queue. SQS deletes a message only after the function has
reported it as written, and the function's log has the number of rows, so no access to the database
is needed. A bad message would stay in the queue for an hour and then raise an alarm. Instead it is
passed to the function directly, whose answer must name it.

Ten rows remain, whose users are called `smoke-…`. The caller needs permission to describe the
stack, send to the queue and read its attributes, filter the function's log, and invoke the
function.
"""

import argparse
import json
import sys
from collections.abc import Callable
from time import monotonic, sleep, time
from uuid import uuid4

import boto3
from botocore.client import BaseClient

from dev.logins import failed, login, record

Client = Callable[[str], BaseClient]

MESSAGES = 10
# Allows for a cold start, the batching window, and the delays of SQS's counts and of the log.
PATIENCE_S = 300


class SmokeError(Exception):
    """The part of the stack that does not work."""


def check_stack(client: Client, stack: str, patience_s: float = PATIENCE_S) -> None:
    """Send messages through a stack; raise `SmokeError` if they are not written."""
    [found] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
    _check_bad_message(client("lambda"), outputs["FunctionName"])

    started, deadline = time(), monotonic() + patience_s
    _send(client("sqs"), outputs["QueueUrl"])
    _wait(lambda: _count(client("sqs"), outputs["QueueUrl"]) == 0, deadline)
    if _count(client("sqs"), outputs["QueueUrl"]):
        raise SmokeError(f"messages are still in the queue after {patience_s:.0f} s")
    _wait(lambda: _written(client("logs"), outputs["LogGroupName"], started) >= MESSAGES, deadline)
    written = _written(client("logs"), outputs["LogGroupName"], started)
    if written < MESSAGES:
        raise SmokeError(f"only {written} of {MESSAGES} messages were written")


def _check_bad_message(functions: BaseClient, function: str) -> None:
    bad = record({"smoke": "not a login"})
    answer = functions.invoke(FunctionName=function, Payload=json.dumps({"Records": [bad]}))
    payload = json.load(answer["Payload"])
    if "FunctionError" in answer:
        raise SmokeError(f"the function failed: {payload.get('errorType')}")
    if payload != failed(bad):
        raise SmokeError("the function did not report a bad message as failed")


def _send(sqs: BaseClient, queue_url: str) -> None:
    entries = [
        {"Id": str(number), "MessageBody": json.dumps(login(user_id=f"smoke-{uuid4()}"))}
        for number in range(MESSAGES)
    ]
    answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
    if refused := answer.get("Failed"):
        raise SmokeError(f"SQS refused {len(refused)} messages: {refused[0]['Code']}")


def _count(sqs: BaseClient, queue_url: str) -> int:
    """Count the messages in the queue, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


def _written(logs: BaseClient, group: str, since: float) -> int:
    """Add up the rows written, from the log line of each batch."""
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, filterPattern='"batch done"', startTime=int(since * 1000)
    )
    lines = (json.loads(event["message"]) for page in pages for event in page["events"])
    return sum(line["written"] for line in lines)


def _wait(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and monotonic() < deadline:
        sleep(1)


def main() -> int:
    """Check the stack that the command line names."""
    parser = argparse.ArgumentParser(prog="deploy.smoke", description=__doc__)
    parser.add_argument("stack")
    parser.add_argument("--region")
    arguments = parser.parse_args()
    session = boto3.Session(region_name=arguments.region)
    try:
        check_stack(session.client, arguments.stack)
    except SmokeError as error:
        print(f"{arguments.stack} does not work: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.stack} works: {MESSAGES} messages were written, a bad message was reported")
    return 0


if __name__ == "__main__":
    sys.exit(main())
