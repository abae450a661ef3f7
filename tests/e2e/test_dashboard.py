"""What the dashboard and the alarms are to show is there to be shown."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from dev import logs
from e2e import emf
from e2e.cloudwatch import ALARMS, RESOURCES, WIDGETS
from e2e.driver import Driver

SCHEMA = json.loads(Path(__file__).with_name("dashboard-schema.json").read_text())
COLUMNS = 24
GRAPHS = [one["properties"] for one in WIDGETS if one["type"] == "metric"]
LINES = [line for graph in GRAPHS for line in graph["metrics"]]

# What AWS publishes, of what is used here, and by which dimension:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
PUBLISHED = {
    ("AWS/SQS", name, ("QueueName",))
    for name in (
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesVisible",
        "NumberOfMessagesDeleted",
        "NumberOfMessagesSent",
    )
} | {
    ("AWS/Lambda", name, ("FunctionName",))
    for name in ("ConcurrentExecutions", "Errors", "Invocations", "Throttles")
}

# A metric: its namespace, its name, and the names of its dimensions.
Metric = tuple[str, str, tuple[str, ...]]


def test_dashboard_body_matches_the_cloudwatch_schema() -> None:
    body = json.loads(RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])

    Draft7Validator.check_schema(SCHEMA)
    Draft7Validator(SCHEMA).validate(body)


def test_widgets_fill_the_grid_without_overlap() -> None:
    places = [
        {
            (column, row)
            for column in range(one["x"], one["x"] + one["width"])
            for row in range(one["y"], one["y"] + one["height"])
        }
        for one in WIDGETS
    ]
    everywhere = set.union(*places)
    rows = max(row for _, row in everywhere) + 1

    assert all(one.isdisjoint(other) for one, other in combinations(places, 2))
    assert everywhere == {(column, row) for column in range(COLUMNS) for row in range(rows)}


def test_widgets_are_ordered_by_stage() -> None:
    in_order = sorted(WIDGETS, key=lambda one: (one["y"], one["x"]))
    stages = [one["properties"]["title"].split(":")[0] for one in in_order]

    assert list(dict.fromkeys(stages)) == ["Alarms", "In", "Through", "How long", "Lambda", "Out"]
    assert in_order == WIDGETS


def test_dashboard_shows_every_alarm() -> None:
    [shown] = [one["properties"]["alarms"] for one in WIDGETS if one["type"] == "alarm"]
    alarms = [name for name, one in RESOURCES.items() if one["Type"] == "AWS::CloudWatch::Alarm"]

    assert shown == [f"${{{name}.Arn}}" for name in alarms]


def test_expressions_use_lines_of_their_own_graph() -> None:
    for graph in GRAPHS:
        there = {line[-1]["id"] for line in graph["metrics"] if "id" in line[-1]}
        computed = [
            line[-1]["expression"]
            for line in graph["metrics"]
            if "SEARCH" not in line[-1].get("expression", "SEARCH")
        ]

        assert {name for text in computed for name in re.findall(r"\b[a-z]\w*", text)} <= there
        # A line that is hidden is there to compute with.
        hidden = [line[-1]["id"] for line in graph["metrics"] if not line[-1].get("visible", True)]
        assert all(any(name in text for text in computed) for name in hidden)


@pytest.mark.last
def test_every_metric_used_is_published(everything: Driver) -> None:
    lines = logs.lines(everything.system.emulator, everything.system.stack)
    written = {
        (metric.namespace, metric.name, tuple(sorted(metric.dimensions)))
        for line in lines
        for metric in emf.metrics(logs.fields(line))
    }

    used = {*_drawn(), *_watched()}

    assert len(used) > 20
    assert used <= written | PUBLISHED


def test_every_line_names_our_queues_or_function() -> None:
    ours = {
        "QueueName": {"${LoginQueue.QueueName}", "${DeadLetterQueue.QueueName}"},
        "FunctionName": {"${IngestFunction}"},
        "function": {"${IngestFunction}"},
    }

    assert all(line[3] in ours[line[2]] for line in LINES if len(line) > 1)


def _drawn() -> Iterator[Metric]:
    for line in LINES:
        if len(line) > 1:
            namespace, name, dimension, *_ = line
            yield namespace, name, (dimension,)
        elif "SEARCH" in line[0]["expression"]:
            yield _searched(line[0]["expression"])


def _searched(expression: str) -> Metric:
    """Read a search for one metric of our function, by what else it is counted."""
    search = r"""SEARCH\('\{"(.+)",(.+)\} MetricName="(\w+)" function="(.+)"', 'Sum', 60\)"""
    namespace, dimensions, name, function = re.fullmatch(search, expression).groups()
    assert function == "${IngestFunction}"
    return namespace, name, tuple(sorted(dimensions.split(",")))


def _watched() -> Iterator[Metric]:
    for alarm in ALARMS.values():
        dimensions = sorted(one["Name"] for one in alarm["Dimensions"])
        yield alarm["Namespace"], alarm["MetricName"], tuple(dimensions)
