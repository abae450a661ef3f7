"""The metrics in a log line, as CloudWatch takes them out of it.

The Embedded Metric Format:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Metric:
    """What one line says of one metric."""

    namespace: str
    name: str
    dimensions: dict[str, str]
    unit: str
    values: list[float]
    time: datetime


def metrics(line: dict[str, Any]) -> Iterator[Metric]:
    """Take the metrics out of a line: one for each set of dimensions that it is to be counted by.

    A metric or a dimension that the line names and does not have is an error here, where CloudWatch
    passes over it: it would be one that nobody ever sees.
    """
    metadata = line.get("_aws", {})
    for directive in metadata.get("CloudWatchMetrics", []):
        for names in directive["Dimensions"]:
            for metric in directive["Metrics"]:
                said = line[metric["Name"]]
                yield Metric(
                    namespace=directive["Namespace"],
                    name=metric["Name"],
                    dimensions={name: line[name] for name in names},
                    unit=metric.get("Unit", "None"),
                    values=said if isinstance(said, list) else [said],
                    time=datetime.fromtimestamp(metadata["Timestamp"] / 1000, UTC),
                )
