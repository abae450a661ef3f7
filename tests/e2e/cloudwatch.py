"""LocalStack's CloudWatch, with what it lacks, and without its waiting times.

LocalStack reads no metrics from log lines, so this module publishes them. LocalStack evaluates an
alarm when it is created, and then only after all of its periods, which can be 12 minutes: this
module puts the unchanged alarm again, which makes LocalStack evaluate it. Tests do not wait for
time to pass: this module makes all metrics older instead, in LocalStack's own file.
"""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from botocore.client import BaseClient

from dev import localstack, logs
from dev.stack import read_template
from e2e import emf
from e2e.driver import Driver, wait_until

TEMPLATE = read_template()
RESOURCES = TEMPLATE["Resources"]
ALARMS = {
    resource["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): resource[
        "Properties"
    ]
    for resource in RESOURCES.values()
    if resource["Type"] == "AWS::CloudWatch::Alarm"
}
# The alarms that a stack has only with a parameter: of a created database, of the analysts, of the
# export, and of the vault.
OPTIONAL = {
    name: resource["Condition"]
    for resource in RESOURCES.values()
    if resource["Type"] == "AWS::CloudWatch::Alarm" and "Condition" in resource
    for name in [resource["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-")]
}
# The metrics that only a stack for analysts writes, with their dimensions: test_analysts.py finds
# them in its logs.
OF_ANALYSTS = {("login-etl", name, ("function",)) for name in ("days_left", "server_error")}
# The metrics that only a stack with an export writes: test_export.py finds them in its log.
OF_EXPORT = {
    ("login-etl", name, ("function",))
    for name in ("days_left", "export_failures", "exported_days", "exported_rows")
}
# The metrics that only a stack with a vault writes: test_vault.py finds them in its logs.
OF_VAULT = {
    ("login-etl", name, ("function",))
    for name in (
        *("reveals", "failed_reveals", "unopenable_values", "erasures", "honey_tokens_asked"),
        *("kms_ms", "server_error", "elapsed_ms", "vault_rows_folded", "vault_rows_left"),
    )
}
# The database's instance, and the functions of the analysts, of the export and of the vault: the
# tests' stack has none.
INSTANCE = "created-database"
API = "analysts-api"
EXPORT = "export"
VAULT = "vault"
# The conditions of the optional parts.
CONDITIONS = ("CreatesDatabase", "HasAnalysts", "HasExport", "HasVault")


def dashboard(*conditions: str) -> str:
    """Return the body of the dashboard, of a stack in which these conditions hold."""

    def resolved(value: Any) -> str:  # noqa: ANN401 - of all JSON types
        if not isinstance(value, dict):
            return str(value)
        [(function, argument)] = value.items()
        if function == "Fn::If":
            condition, yes, no = argument
            assert condition in CONDITIONS
            return resolved(yes if condition in conditions else no)
        assert function == "Fn::Sub"
        text, parts = argument if isinstance(argument, list) else (argument, {})
        for name, part in parts.items():
            text = text.replace(f"${{{name}}}", resolved(part))
        return text

    return resolved(RESOURCES["Dashboard"]["Properties"]["DashboardBody"])


WIDGETS = json.loads(dashboard(*CONDITIONS))["widgets"]


@dataclass
class CloudWatch:
    """The metrics and alarms of the system under test."""

    driver: Driver
    # The log lines whose metrics are published, and the skipped times, each with its moment.
    published_lines: set[str] = field(default_factory=set)
    time_jumps: list[tuple[datetime, timedelta]] = field(default_factory=list)
    # Whether the export, which the tests' stack does not have, runs.
    exports: bool = True

    @cached_property
    def client(self) -> BaseClient:
        """The client for CloudWatch."""
        return self.driver.system.emulator.client("cloudwatch")

    def advance_time(self, time: timedelta) -> None:
        """Make all metrics older by this time."""
        self.publish_metrics()
        self.time_jumps.append((datetime.now(UTC), time))
        file = self.driver.system.services.directory / "emulator" / localstack.METRICS
        if not file.exists():
            raise RuntimeError("time can only be advanced in a LocalStack that these tests started")
        with closing(sqlite3.connect(file, timeout=30)) as database, database:
            database.execute(
                "UPDATE single_metrics SET timestamp = timestamp - ?", [time.total_seconds()]
            )

    def publish_metrics(self) -> None:
        """Publish the metrics in the log lines of this test."""
        new = [line for line in self.driver.log_lines() if line not in self.published_lines]
        self.published_lines.update(new)
        for line in new:
            for metric in emf.metrics(logs.fields(line)):
                self.put(metric)

    def publish(self, alarm: str, dimensions: dict[str, str], value: float) -> None:
        """Publish a value of an alarm's metric."""
        properties = ALARMS[alarm]
        unit = "Seconds" if alarm == "oldest-message" else "Count"
        name, now = properties["MetricName"], datetime.now(UTC)
        self.put(emf.Metric(properties["Namespace"], name, dimensions, unit, [value], now))

    def put(self, metric: emf.Metric) -> None:
        """Publish a metric, older by the time that was skipped after it."""
        passed = [time for moment, time in self.time_jumps if moment > metric.time]
        self.client.put_metric_data(
            Namespace=metric.namespace,
            MetricData=[
                {
                    "MetricName": metric.name,
                    "Dimensions": _pairs(metric.dimensions),
                    "Unit": metric.unit,
                    "Values": metric.values,
                    "Timestamp": metric.time - sum(passed, timedelta()),
                }
            ],
        )

    def alarms(self) -> dict[str, dict[str, Any]]:
        """Return the alarms of the stack."""
        prefix = f"{self.driver.system.stack.name}-"
        found = self.client.describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"]
        return {alarm["AlarmName"].removeprefix(prefix): alarm for alarm in found}

    def states(self) -> dict[str, str]:
        """Evaluate all alarms; return their states."""
        self.publish_metrics()
        if self.exports:
            self.publish("export-missing", {"FunctionName": EXPORT}, 1)
        self._wait_for_queue_metrics()
        for alarm in self.alarms().values():
            # Without data, CloudWatch keeps the state of such an alarm. LocalStack loses the state
            # of an alarm that is put again.
            if alarm["TreatMissingData"] != "ignore" or self._data_of(alarm):
                self._evaluate(alarm)

        def now() -> dict[str, str]:
            return {name: alarm["StateValue"] for name, alarm in self.alarms().items()}

        def is_known() -> bool:
            return "INSUFFICIENT_DATA" not in now().values()

        try:
            wait_until(is_known, now, timeout_s=10)
        except AssertionError:
            # By itself, LocalStack evaluates an alarm again only after a period.
            for alarm in self.alarms().values():
                if alarm["StateValue"] == "INSUFFICIENT_DATA":
                    self._evaluate(alarm)
            wait_until(is_known, lambda: (now(), [*map(self._data_of, self.alarms().values())]))
        return now()

    def _evaluate(self, alarm: dict[str, Any]) -> None:
        """Put an alarm again, which LocalStack then evaluates."""
        settings = self.client.meta.service_model.operation_model("PutMetricAlarm").input_shape
        kept = settings.members.keys() & alarm.keys()
        self.client.put_metric_alarm(**{key: alarm[key] for key in kept})

    def create_optional_alarms(self) -> None:
        """Create the alarms that the tests' stack does not have."""
        names = {"DatabaseInstance": INSTANCE, "ApiFunction": API, "ExportFunction": EXPORT}
        names |= {"VaultFunction": VAULT}
        names |= {"MigrateFunction": self.driver.system.stack.migrate_function}
        for name in OPTIONAL:
            alarm = ALARMS[name]
            [dimension] = alarm["Dimensions"]
            threshold = alarm["Threshold"]
            if isinstance(threshold, dict):
                threshold = TEMPLATE["Parameters"][threshold["Ref"]]["Default"]
            changed = {
                "AlarmName": f"{self.driver.system.stack.name}-{name}",
                "Dimensions": _pairs({dimension["Name"]: names[dimension["Value"]["Ref"]]}),
                "Threshold": threshold,
            }
            actions = {"AlarmActions", "OKActions"}
            kept = {key: value for key, value in alarm.items() if key not in actions}
            self.client.put_metric_alarm(**kept | changed)

    def delete_optional_alarms(self) -> None:
        """Delete what `create_optional_alarms` created."""
        stack = self.driver.system.stack.name
        self.client.delete_alarms(AlarmNames=[f"{stack}-{name}" for name in OPTIONAL])

    def raised(self) -> set[str]:
        """Return the names of the alarms in the state ALARM."""
        return {name for name, state in self.states().items() if state == "ALARM"}

    def is_breached(self, name: str) -> bool:
        """Whether an alarm's metric is beyond its threshold in the period that ends now."""
        self.publish_metrics()
        alarm = self.alarms()[name]
        [latest] = self._data_of(alarm, periods=1) or [0]
        if alarm["ComparisonOperator"] == "LessThanThreshold":
            return latest < alarm["Threshold"]
        return latest > alarm["Threshold"]

    def highest_point(self, title: str, label: str) -> float:
        """Return the highest value in the last minutes of a line in a graph of the dashboard."""
        self.publish_metrics()
        stack = self.driver.system.stack
        names = {
            "${LoginQueue.QueueName}": queue_name(stack.queue_url),
            "${IngestFunction}": stack.function,
            "${DatabaseInstance}": INSTANCE,
            "${ApiFunction}": API,
            "${ExportFunction}": EXPORT,
            "${VaultFunction}": VAULT,
            "${MigrateFunction}": stack.migrate_function,
        }
        widgets = [widget["properties"] for widget in WIDGETS]
        [graph] = [widget for widget in widgets if widget["title"] == title]
        lines = {line[-1].get("label", line[1]): line for line in graph["metrics"]}
        namespace, name, dimension, value, options = lines[label]
        metric = {
            "Namespace": namespace,
            "MetricName": name,
            "Dimensions": _pairs({dimension: names[value]}),
        }
        return max(self._data(metric, options["stat"], graph["period"], periods=5), default=0)

    def _wait_for_queue_metrics(self) -> None:
        """Wait until LocalStack has published the metrics of the queues, as it does each second."""
        queue = {"QueueName": queue_name(self.driver.system.stack.dead_letter_queue_url)}
        metric = {
            "Namespace": "AWS/SQS",
            "MetricName": "ApproximateNumberOfMessagesVisible",
            "Dimensions": _pairs(queue),
        }
        wait_until(lambda: bool(self._data(metric, "Maximum", 60)), lambda: metric)

    def _data_of(self, alarm: dict[str, Any], periods: int = 0) -> list[float]:
        """Return the values of an alarm's metric, by default in all periods LocalStack reads."""
        evaluated = alarm["EvaluationPeriods"]
        metric = {key: alarm[key] for key in ("Namespace", "MetricName", "Dimensions")}
        seen = periods or evaluated + max(evaluated // 3, 2)
        return self._data(metric, alarm["Statistic"], alarm["Period"], seen)

    def _data(
        self, metric: dict[str, Any], statistic: str, period_s: int, periods: int = 1
    ) -> list[float]:
        """Return the values of a metric in the last periods."""
        now = datetime.now(UTC)
        stat = {"Metric": metric, "Period": period_s, "Stat": statistic}
        answer = self.client.get_metric_data(
            MetricDataQueries=[{"Id": "metric", "MetricStat": stat}],
            StartTime=now - timedelta(seconds=period_s * periods),
            EndTime=now,
        )
        return answer["MetricDataResults"][0]["Values"]


def queue_name(queue_url: str) -> str:
    """Return the name of a queue, which is its dimension in CloudWatch."""
    return queue_url.rsplit("/", 1)[-1]


def _pairs(dimensions: dict[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimensions.items()]
