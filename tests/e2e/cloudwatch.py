"""The CloudWatch of LocalStack, helped to show in seconds what CloudWatch shows in minutes.

It takes no metrics out of log lines, so they are put here. It looks at an alarm when that is
created, and then not before all of its periods are over, some of them a quarter of an hour: it is
made to look by putting once more the very alarm that the stack has made. And nobody waits for time
to pass: all that it knows is made older by as much instead, in the file that it keeps it in.
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

RESOURCES = read_template()["Resources"]
ALARMS = {
    one["Properties"]["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): one["Properties"]
    for one in RESOURCES.values()
    if one["Type"] == "AWS::CloudWatch::Alarm"
}
WIDGETS = json.loads(RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])["widgets"]


@dataclass
class CloudWatch:
    """The metrics and alarms of the system that a test drives."""

    driver: Driver
    # The lines whose metrics it has, and when how much time was made to pass.
    taken: set[str] = field(default_factory=set)
    jumps: list[tuple[datetime, timedelta]] = field(default_factory=list)

    @cached_property
    def client(self) -> BaseClient:
        """The client that everything is asked of."""
        return self.driver.system.emulator.client("cloudwatch")

    def let_pass(self, time: timedelta) -> None:
        """Make everything that is known so much older."""
        self.take_metrics()
        self.jumps.append((datetime.now(UTC), time))
        file = self.driver.system.services.directory / "emulator" / localstack.METRICS
        if not file.exists():
            raise RuntimeError("time can be made to pass in a LocalStack of our own only")
        with closing(sqlite3.connect(file, timeout=30)) as database, database:
            database.execute(
                "UPDATE single_metrics SET timestamp = timestamp - ?", [time.total_seconds()]
            )

    def take_metrics(self) -> None:
        """Take the metrics out of the lines that the test's own batches logged."""
        new = [line for line in self.driver.logged() if line not in self.taken]
        self.taken.update(new)
        for line in new:
            for metric in emf.metrics(logs.fields(line)):
                self.put(metric)

    def put(self, metric: emf.Metric) -> None:
        """Put what a metric says, made older by as much time as was made to pass since."""
        passed = [time for moment, time in self.jumps if moment > metric.time]
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
        """Return the alarms as the stack has made them."""
        prefix = f"{self.driver.system.stack.name}-"
        found = self.client.describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"]
        return {alarm["AlarmName"].removeprefix(prefix): alarm for alarm in found}

    def states(self) -> dict[str, str]:
        """Have all alarms looked at, and return the state of each."""
        self.take_metrics()
        self._wait_for_a_report()
        settings = self.client.meta.service_model.operation_model("PutMetricAlarm").input_shape
        for alarm in self.alarms().values():
            kept = settings.members.keys() & alarm.keys()
            self.client.put_metric_alarm(**{key: alarm[key] for key in kept})

        def now() -> dict[str, str]:
            return {name: alarm["StateValue"] for name, alarm in self.alarms().items()}

        wait_until(lambda: "INSUFFICIENT_DATA" not in now().values(), now)
        return now()

    def raised(self) -> set[str]:
        """Name the alarms that are in ALARM."""
        return {name for name, state in self.states().items() if state == "ALARM"}

    def passes(self, name: str) -> bool:
        """Whether an alarm's metric is beyond its threshold in the period that ends now."""
        self.take_metrics()
        alarm = self.alarms()[name]
        metric = {key: alarm[key] for key in ("Namespace", "MetricName", "Dimensions")}
        [latest] = self._data(metric, alarm["Statistic"], alarm["Period"]) or [0]
        return latest > alarm["Threshold"]

    def drawn(self, title: str, label: str) -> float:
        """Return the highest point of the last minutes in a graph of the dashboard, of one line."""
        self.take_metrics()
        stack = self.driver.system.stack
        names = {
            "${LoginQueue.QueueName}": queue_name(stack.queue_url),
            "${IngestFunction}": stack.function,
        }
        [graph] = [one["properties"] for one in WIDGETS if one["properties"]["title"] == title]
        lines = {line[-1].get("label", line[1]): line for line in graph["metrics"]}
        namespace, name, dimension, value, how = lines[label]
        metric = {
            "Namespace": namespace,
            "MetricName": name,
            "Dimensions": _pairs({dimension: names[value]}),
        }
        return max(self._data(metric, how["stat"], graph["period"], periods=5), default=0)

    def _wait_for_a_report(self) -> None:
        """Wait until the emulator, which does it each second, has told of the queues again."""
        queue = {"QueueName": queue_name(self.driver.system.stack.dead_letter_queue_url)}
        metric = {
            "Namespace": "AWS/SQS",
            "MetricName": "ApproximateNumberOfMessagesVisible",
            "Dimensions": _pairs(queue),
        }
        wait_until(lambda: bool(self._data(metric, "Maximum", 60)), lambda: metric)

    def _data(
        self, metric: dict[str, Any], statistic: str, period_s: int, periods: int = 1
    ) -> list[float]:
        """Return what a metric was in the last periods, where it was anything."""
        now = datetime.now(UTC)
        stat = {"Metric": metric, "Period": period_s, "Stat": statistic}
        answer = self.client.get_metric_data(
            MetricDataQueries=[{"Id": "it", "MetricStat": stat}],
            StartTime=now - timedelta(seconds=period_s * periods),
            EndTime=now,
        )
        return answer["MetricDataResults"][0]["Values"]


def queue_name(queue_url: str) -> str:
    """Return the name that CloudWatch knows a queue by."""
    return queue_url.rsplit("/", 1)[-1]


def _pairs(dimensions: dict[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in dimensions.items()]
