"""Runs the saved queries on log lines: the part of CloudWatch Logs Insights that they use.

No emulator can do it: MiniStack ignores a filter that it does not support, LocalStack has no saved
queries. Unsupported syntax is an error here. The language:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from dev.stack import read_template

Event = dict[str, Any]

# The queries that the template saves, by their names in the runbook.
SAVED = {
    query["Properties"]["Name"]["Fn::Sub"].split("/")[1]: query["Properties"]["QueryString"]
    for query in read_template()["Resources"].values()
    if query["Type"] == "AWS::Logs::QueryDefinition"
}

# Those of a stack for analysts, which read the log of its API.
OF_ANALYSTS = {"failed requests", "slow requests"}
# That of a stack with a vault, which reads the vault's log.
OF_VAULT = {"vault requests"}

_STAGE = re.compile(r"(fields|filter|stats|sort|limit) (.+)")
_COMPARISON = re.compile(r'([@\w]+) = "([^"]*)"')
_COUNT_DISTINCT = re.compile(r"count_distinct\(([@\w]+)\) as (\w+) by (.+)")
_SORT = re.compile(r"([@\w]+) (asc|desc)")


def run(query: str, lines: Iterable[str]) -> list[Event]:
    """Run a query on log lines; the fields of JSON lines are found as Insights finds them."""
    events = [_event(line) for line in lines]
    for stage in query.strip().split("\n| "):
        command, argument = _match(_STAGE, stage).groups()
        events = _COMMANDS[command](events, argument)
    return events


def fields(query: str) -> set[str]:
    """Return the fields of the log that a query reads."""
    named = set()
    for stage in query.strip().split("\n| "):
        command, argument = _match(_STAGE, stage).groups()
        if command == "fields":
            named |= set(argument.split(", "))
        elif command == "filter":
            named |= {field for field, _ in _comparisons(argument)}
        elif command == "stats":
            counted, _, by = _match(_COUNT_DISTINCT, argument).groups()
            named |= {counted, *by.split(", ")}
    return {field for field in named if not field.startswith("@")}


def _event(line: str) -> Event:
    try:
        found = json.loads(line)
    except ValueError:
        found = {}
    return {"@message": line, "@timestamp": found.get("timestamp", "")} | found


def _fields(events: list[Event], argument: str) -> list[Event]:
    """Add missing fields as null; keep other fields for the later stages."""
    shown = argument.split(", ")
    return [{name: event.get(name) for name in shown} | event for event in events]


def _filter(events: list[Event], argument: str) -> list[Event]:
    wanted = _comparisons(argument)
    return [event for event in events if any(event.get(name) == text for name, text in wanted)]


def _stats(events: list[Event], argument: str) -> list[Event]:
    counted, name, by = _match(_COUNT_DISTINCT, argument).groups()
    keys = by.split(", ")
    groups: dict[tuple, set] = {}
    for event in events:
        groups.setdefault(tuple(event.get(key) for key in keys), set()).add(event[counted])
    return [
        dict(zip(keys, values, strict=True)) | {name: len(distinct)}
        for values, distinct in groups.items()
    ]


def _sort(events: list[Event], argument: str) -> list[Event]:
    name, direction = _match(_SORT, argument).groups()
    return sorted(events, key=lambda event: event[name], reverse=direction == "desc")


def _limit(events: list[Event], argument: str) -> list[Event]:
    return events[: int(argument)]


def _comparisons(argument: str) -> list[tuple[str, str]]:
    return [_match(_COMPARISON, text).groups() for text in argument.split(" or ")]


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    if found := pattern.fullmatch(text.strip()):
        return found
    raise ValueError(f"unsupported syntax: {text!r}")


_COMMANDS = {
    "fields": _fields,
    "filter": _filter,
    "stats": _stats,
    "sort": _sort,
    "limit": _limit,
}
