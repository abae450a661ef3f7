"""Reads the metrics from a log line, as CloudWatch does.

The Embedded Metric Format:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A metric in a log line."""

    namespace: str
    name: str
    dimensions: dict[str, str]
    unit: str
    values: list[float]
    time: datetime


def metrics(line: dict[str, Any]) -> Iterator[Metric]:
    """Read the metrics from a line, once for each set of dimensions.

    A metric or dimension that the line names but does not contain is an error. CloudWatch would
    ignore it, and the metric would never appear.
    """
    metadata = line.get("_aws", {})
    for directive in metadata.get("CloudWatchMetrics", []):
        for names in directive["Dimensions"]:
            for metric in directive["Metrics"]:
                value = line[metric["Name"]]
                yield Metric(
                    namespace=directive["Namespace"],
                    name=metric["Name"],
                    dimensions={name: line[name] for name in names},
                    unit=metric.get("Unit", "None"),
                    values=value if isinstance(value, list) else [value],
                    time=datetime.fromtimestamp(metadata["Timestamp"] / 1000, UTC),
                )
