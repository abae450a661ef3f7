"""Asks a deployed stack whether it works, by the way that messages take: `make smoke ENV=staging`.

A few good logins are sent through the real queue. A message leaves it only when the function has
reported it as written, and the function's own log says how many it wrote: that needs no way to the
database. A bad message is not sent through the queue, where it would stay for an hour and then
raise the alarm, but handed to the function directly, whose answer must name it.

What is left is a few rows, whose users are called `smoke-…`. Who runs this may describe the stack,
send to the queue and count what is in it, filter the function's log, and invoke the function.
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

Clients = Callable[[str], BaseClient]

MESSAGES = 10
# For a cold start, the batching window, the counts of SQS and the log, which all lag.
PATIENCE_S = 300


class SmokeError(Exception):
    """What does not work."""


def try_out(client: Clients, stack: str, patience_s: float = PATIENCE_S) -> None:
    """Send messages through a stack; raise an error that says which part of it does not work."""
    [deployed] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in deployed["Outputs"]}
    _refuse_a_bad_message(client("lambda"), outputs["FunctionName"])

    started, deadline = time(), monotonic() + patience_s
    _send(client("sqs"), outputs["QueueUrl"])
    _wait(lambda: _count(client("sqs"), outputs["QueueUrl"]) == 0, deadline)
    if _count(client("sqs"), outputs["QueueUrl"]):
        raise SmokeError(f"after {patience_s:.0f} s there are messages in the queue")
    _wait(lambda: _written(client("logs"), outputs["LogGroupName"], started) >= MESSAGES, deadline)
    written = _written(client("logs"), outputs["LogGroupName"], started)
    if written < MESSAGES:
        raise SmokeError(f"of {MESSAGES} messages only {written} were written")


def _refuse_a_bad_message(functions: BaseClient, function: str) -> None:
    bad = record({"smoke": "a message of another type"})
    answer = functions.invoke(FunctionName=function, Payload=json.dumps({"Records": [bad]}))
    payload = json.load(answer["Payload"])
    if "FunctionError" in answer:
        raise SmokeError(f"the function fails: {payload.get('errorType')}")
    if payload != failed(bad):
        raise SmokeError("the function does not report a bad message")


def _send(sqs: BaseClient, queue_url: str) -> None:
    entries = [
        {"Id": str(place), "MessageBody": json.dumps(login(user_id=f"smoke-{uuid4()}"))}
        for place in range(MESSAGES)
    ]
    answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
    if refused := answer.get("Failed"):
        raise SmokeError(f"the queue refused {len(refused)} messages: {refused[0]['Code']}")


def _count(sqs: BaseClient, queue_url: str) -> int:
    """Count the messages in the queue, those in flight included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


def _written(logs: BaseClient, group: str, since: float) -> int:
    """Add up what the function says it wrote, in the lines that tell of its batches."""
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, filterPattern='"batch done"', startTime=int(since * 1000)
    )
    lines = (json.loads(event["message"]) for page in pages for event in page["events"])
    return sum(line["written"] for line in lines)


def _wait(condition: Callable[[], bool], deadline: float) -> None:
    while not condition() and monotonic() < deadline:
        sleep(1)


def main() -> int:
    """Test the stack that the command line names, with the credentials of the environment."""
    parser = argparse.ArgumentParser(prog="deploy.smoke", description=__doc__)
    parser.add_argument("stack")
    parser.add_argument("--region")
    arguments = parser.parse_args()
    session = boto3.Session(region_name=arguments.region)
    try:
        try_out(session.client, arguments.stack)
    except SmokeError as error:
        print(f"{arguments.stack} does not work: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.stack} works: {MESSAGES} messages came by the queue, and a bad one failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
