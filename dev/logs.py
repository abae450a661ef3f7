"""Reads the functions' logs. No other module depends on the format of its lines."""

import json
from collections.abc import Iterator
from typing import Any

from botocore.client import BaseClient

from dev.emulator import Emulator
from dev.stack import Stack


def lines(emulator: Emulator, stack: Stack) -> Iterator[str]:
    """Read every line of both functions and of the Lambda platform."""
    logs = emulator.client("logs")
    for group in _groups(logs, stack):
        for page in logs.get_paginator("describe_log_streams").paginate(logGroupName=group):
            for stream in page["logStreams"]:
                yield from _stream(logs, group, stream["logStreamName"])


def reasons(emulator: Emulator, stack: Stack) -> dict[str, str]:
    """Return the reason of each failed message, by message id."""
    lines = _find(emulator, stack, '"message_id"')
    return {line["message_id"]: line["reason"] for line in lines if "message_id" in line}


def batches(emulator: Emulator, stack: Stack) -> list[int]:
    """Return the number of messages of each batch that was done."""
    lines = _find(emulator, stack, '"batch done"')
    return [line["messages"] for line in lines if line.get("message") == "batch done"]


def fields(line: str) -> dict[str, Any]:
    """Return the fields of a JSON line of the function; the platform's lines have none."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def _find(emulator: Emulator, stack: Stack, pattern: str) -> Iterator[dict[str, Any]]:
    """Read the fields of the lines that contain a text."""
    logs = emulator.client("logs")
    pages = logs.get_paginator("filter_log_events")
    for group in _groups(logs, stack):
        for page in pages.paginate(logGroupName=group, filterPattern=pattern):
            yield from (fields(event["message"]) for event in page["events"])


def _groups(logs: BaseClient, stack: Stack) -> list[str]:
    """Name the log groups: LocalStack ignores the group that the template names."""
    pages = logs.get_paginator("describe_log_groups").paginate()
    existing = {group["logGroupName"] for page in pages for group in page["logGroups"]}
    named = (
        stack.log_group,
        f"/aws/lambda/{stack.function}",
        stack.migrate_log_group,
        f"/aws/lambda/{stack.migrate_function}",
    )
    return [name for name in named if name in existing]


def _stream(logs: BaseClient, group: str, stream: str) -> Iterator[str]:
    page: dict = {"nextForwardToken": None}
    while True:
        token = page["nextForwardToken"]
        start = {"nextToken": token} if token else {}
        page = logs.get_log_events(
            logGroupName=group, logStreamName=stream, startFromHead=True, **start
        )
        yield from (event["message"] for event in page["events"])
        # The last page names itself as the next.
        if page["nextForwardToken"] == token or not page["events"]:
            return
