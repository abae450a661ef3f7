"""The metrics of a run, read from the function's log lines as CloudWatch reads them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, quantiles
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from dev import logs

STAGES = {"decode_ms": "decode and mask", "connect_ms": "connect", "write_ms": "write"}
OUTCOMES = {
    "written": "written",
    "duplicates": "duplicates",
    "suppressed": "suppressed",
    "failed": "failed",
}


@dataclass
class LogMetrics:
    """The log lines of batches, and the counts of failures."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)

    def sum(self, metric: str) -> int:
        """Return the sum of a metric over all batches."""
        return sum(batch.get(metric, 0) for batch in self.batches)

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the batches that have it."""
        return fmean(self.values(metric) or [0])

    def values(self, metric: str) -> list[float]:
        """Return the values of a metric, one per batch that has it."""
        return [batch[metric] for batch in self.batches if metric in batch]

    def percentile(self, metric: str, percent: int) -> float:
        """Return the percentile of a metric, interpolated."""
        values = self.values(metric)
        if len(values) < 2:
            return sum(values)
        return quantiles(values, n=100, method="inclusive")[percent - 1]

    @property
    def times(self) -> list[datetime]:
        """The time of each batch's log line."""
        return [datetime.fromisoformat(batch["timestamp"]) for batch in self.batches]


def read(lines: Iterable[str]) -> LogMetrics:
    """Read the metrics from log lines; other lines are skipped."""
    metrics = LogMetrics()
    for line in lines:
        fields = logs.fields(line) if "_aws" in line else {}
        match fields.get("message"):
            case "batch done":
                metrics.batches.append(fields)
            case "batch failed":
                metrics.batches.append(fields)
                metrics.error_types[fields["error_type"]] += 1
            case "failures by reason":
                metrics.reasons[fields["reason"]] += fields["failed"]
    metrics.batches.sort(key=lambda batch: batch["timestamp"])
    return metrics


def tables(metrics: LogMetrics) -> Group:
    """Make the tables for a terminal: counts, times, and the reasons of failures."""
    counts = _table("batches", "failed batches", "messages", *OUTCOMES.values(), "cold starts")
    counts.add_row(
        f"{len(metrics.batches)}",
        _red_unless_zero(metrics.sum("batch_failed")),
        f"{metrics.sum('messages')}",
        f"[green]{metrics.sum('written')}[/]",
        f"{metrics.sum('duplicates')}",
        f"{metrics.sum('suppressed')}",
        _red_unless_zero(metrics.sum("failed")),
        f"{metrics.sum('cold_start')}",
    )
    times = _table("median ms", "p99 ms", *STAGES.values(), "oldest message")
    times.add_row(
        f"{metrics.percentile('elapsed_ms', 50):.2f}",
        f"{metrics.percentile('elapsed_ms', 99):.2f}",
        *(f"{metrics.mean(metric):.2f}" for metric in STAGES),
        f"{max(metrics.values('oldest_ms'), default=0):.0f}",
    )
    failures = _most_frequent_first(metrics.reasons + metrics.error_types)
    listed = ", ".join(f"{name} {number}" for name, number in failures)
    return Group(counts, times, *([f" {listed}"] if failures else []))


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _red_unless_zero(number: int) -> str:
    return f"[red]{number}[/]" if number else "0"


def _most_frequent_first(counter: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))
