"""The dashboard is valid, and every metric of the dashboard and the alarms exists."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from dev import logs
from e2e import emf
from e2e.cloudwatch import (
    ALARMS,
    CONDITIONS,
    OF_ANALYSTS,
    OF_EXPORT,
    OF_VAULT,
    RESOURCES,
    WIDGETS,
    dashboard,
)
from e2e.driver import Driver

SCHEMA = json.loads(Path(__file__).with_name("dashboard-schema.json").read_text())
COLUMNS = 24
GRAPHS = [widget["properties"] for widget in WIDGETS if widget["type"] == "metric"]
LINES = [line for graph in GRAPHS for line in graph["metrics"]]

# The metrics of AWS that are used here, with their dimensions:
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
# https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Aurora.AuroraMonitoring.Metrics.html
PUBLISHED = (
    {
        ("AWS/SQS", name, ("QueueName",))
        for name in (
            "ApproximateAgeOfOldestMessage",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesVisible",
            "NumberOfMessagesDeleted",
            "NumberOfMessagesSent",
        )
    }
    | {
        ("AWS/Lambda", name, ("FunctionName",))
        for name in ("ConcurrentExecutions", "Duration", "Errors", "Invocations", "Throttles")
    }
    | {
        ("AWS/RDS", name, ("DBInstanceIdentifier",))
        for name in ("ACUUtilization", "CPUUtilization", "DatabaseConnections")
    }
)

# Each choice of optional parts.
KINDS = [kind for size in range(5) for kind in combinations(CONDITIONS, size)]

# A metric: its namespace, its name, and the names of its dimensions.
Metric = tuple[str, str, tuple[str, ...]]


@pytest.mark.parametrize("conditions", KINDS)
def test_dashboard_body_matches_the_cloudwatch_schema(conditions: tuple[str, ...]) -> None:
    Draft7Validator.check_schema(SCHEMA)
    Draft7Validator(SCHEMA).validate(json.loads(dashboard(*conditions)))


def test_dashboard_name_contains_the_region() -> None:
    # The dashboards of an account are in all regions: another stack would replace this one's.
    name = RESOURCES["Dashboard"]["Properties"]["DashboardName"]

    assert name == {"Fn::Sub": "${AWS::StackName}-${AWS::Region}"}


@pytest.mark.parametrize("conditions", KINDS)
def test_widgets_fill_the_grid_without_overlap(conditions: tuple[str, ...]) -> None:
    widgets = json.loads(dashboard(*conditions))["widgets"]
    places = [
        {
            (column, row)
            for column in range(widget["x"], widget["x"] + widget["width"])
            for row in range(widget["y"], widget["y"] + widget["height"])
        }
        for widget in widgets
    ]
    everywhere = set.union(*places)
    rows = max(row for _, row in everywhere) + 1

    assert all(first.isdisjoint(second) for first, second in combinations(places, 2))
    assert everywhere == {(column, row) for column in range(COLUMNS) for row in range(rows)}


def test_widgets_are_ordered_by_stage() -> None:
    in_order = sorted(WIDGETS, key=lambda widget: (widget["y"], widget["x"]))
    stages = [widget["properties"]["title"].split(":")[0] for widget in in_order]

    of_messages = ["Alarms", "In", "Through", "How long", "Lambda", "Out"]
    assert list(dict.fromkeys(stages)) == [
        *of_messages,
        *("Analysts", "Export", "Vault", "Database"),
    ]
    assert in_order == WIDGETS


@pytest.mark.parametrize("conditions", KINDS)
def test_dashboard_shows_every_alarm(conditions: tuple[str, ...]) -> None:
    widgets = json.loads(dashboard(*conditions))["widgets"]
    [shown] = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]
    alarms = [
        name
        for name, resource in RESOURCES.items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
        and resource.get("Condition") in {None, *conditions}
    ]

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
        # A hidden line must be used in an expression.
        hidden = [line[-1]["id"] for line in graph["metrics"] if not line[-1].get("visible", True)]
        assert all(any(name in text for text in computed) for name in hidden)


@pytest.mark.last
def test_every_metric_used_is_published(session_driver: Driver) -> None:
    lines = logs.lines(session_driver.system.emulator, session_driver.system.stack)
    written = {
        (metric.namespace, metric.name, tuple(sorted(metric.dimensions)))
        for line in lines
        for metric in emf.metrics(logs.fields(line))
    }

    used = {*_metrics_of_graphs(), *_metrics_of_alarms()}

    assert len(used) > 20
    assert used <= written | PUBLISHED | OF_ANALYSTS | OF_EXPORT | OF_VAULT


def test_every_line_names_a_resource_of_ours() -> None:
    functions = {
        *("${IngestFunction}", "${ApiFunction}", "${ExportFunction}", "${VaultFunction}"),
    }
    expected = {
        "QueueName": {"${LoginQueue.QueueName}", "${DeadLetterQueue.QueueName}"},
        "FunctionName": functions,
        "function": functions | {"${MigrateFunction}"},
        "DBInstanceIdentifier": {"${DatabaseInstance}"},
    }

    assert all(line[3] in expected[line[2]] for line in LINES if len(line) > 1)


def _metrics_of_graphs() -> Iterator[Metric]:
    for line in LINES:
        if len(line) > 1:
            namespace, name, dimension, *_ = line
            yield namespace, name, (dimension,)
        elif "SEARCH" in line[0]["expression"]:
            yield _metric_of_search(line[0]["expression"])


def _metric_of_search(expression: str) -> Metric:
    """Parse a search for a metric of the function with another dimension."""
    search = r"""SEARCH\('\{"(.+)",(.+)\} MetricName="(\w+)" function="(.+)"', 'Sum', 60\)"""
    namespace, dimensions, name, function = re.fullmatch(search, expression).groups()
    assert function == "${IngestFunction}"
    return namespace, name, tuple(sorted(dimensions.split(",")))


def _metrics_of_alarms() -> Iterator[Metric]:
    for alarm in ALARMS.values():
        dimensions = sorted(dimension["Name"] for dimension in alarm["Dimensions"])
        yield alarm["Namespace"], alarm["MetricName"], tuple(dimensions)
