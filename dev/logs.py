"""What the function logged: the one place that knows the shape of its lines."""

import json
from collections.abc import Iterator
from typing import Any

from botocore.client import BaseClient

from dev.emulator import Emulator
from dev.stack import Stack


def lines(emulator: Emulator, stack: Stack) -> Iterator[str]:
    """Read every line that the function and the platform logged."""
    logs = emulator.client("logs")
    for group in _groups(logs, stack):
        for page in logs.get_paginator("describe_log_streams").paginate(logGroupName=group):
            for stream in page["logStreams"]:
                yield from _stream(logs, group, stream["logStreamName"])


def reasons(emulator: Emulator, stack: Stack) -> dict[str, str]:
    """Tell why messages failed, by message id, from the line that the function wrote for each."""
    found = _find(emulator, stack, '"message_id"')
    return {said["message_id"]: said["reason"] for said in found if "message_id" in said}


def batches(emulator: Emulator, stack: Stack) -> list[int]:
    """Count the messages of each batch that was handled, from the line that tells of it."""
    found = _find(emulator, stack, '"batch done"')
    return [said["messages"] for said in found if said.get("message") == "batch done"]


def fields(line: str) -> dict[str, Any]:
    """Return the fields of the function's JSON line; the platform's lines have none."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def _find(emulator: Emulator, stack: Stack, pattern: str) -> Iterator[dict[str, Any]]:
    """Read the fields of the function's lines with this text in them."""
    logs = emulator.client("logs")
    pages = logs.get_paginator("filter_log_events")
    for group in _groups(logs, stack):
        for page in pages.paginate(logGroupName=group, filterPattern=pattern):
            yield from (fields(event["message"]) for event in page["events"])


def _groups(logs: BaseClient, stack: Stack) -> list[str]:
    """Name the groups to look into: LocalStack does not heed the one that the template gives."""
    pages = logs.get_paginator("describe_log_groups").paginate()
    there = {group["logGroupName"] for page in pages for group in page["logGroups"]}
    return [name for name in (stack.log_group, f"/aws/lambda/{stack.function}") if name in there]


def _stream(logs: BaseClient, group: str, stream: str) -> Iterator[str]:
    page: dict = {"nextForwardToken": None}
    while True:
        token = page["nextForwardToken"]
        more = {"nextToken": token} if token else {}
        page = logs.get_log_events(
            logGroupName=group, logStreamName=stream, startFromHead=True, **more
        )
        yield from (event["message"] for event in page["events"])
        # The last page is the one that leads to itself.
        if page["nextForwardToken"] == token or not page["events"]:
            return
