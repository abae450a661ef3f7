"""The metrics of a run, from the lines that the function logged, as CloudWatch would have them."""

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
OUTCOMES = {"written": "written", "duplicates": "delivered again", "failed": "failed"}


@dataclass
class LogMetrics:
    """What was counted and measured."""

    batches: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)

    def sum(self, metric: str) -> int:
        """Add up a metric."""
        return sum(batch.get(metric, 0) for batch in self.batches)

    def mean(self, metric: str) -> float:
        """Return a metric's average over the batches that have it."""
        return fmean(self.values(metric) or [0])

    def values(self, metric: str) -> list[float]:
        """Return a metric of every batch that has it."""
        return [batch[metric] for batch in self.batches if metric in batch]

    def percentile(self, metric: str, percent: int) -> float:
        """Return what so many of a hundred batches do not exceed."""
        values = self.values(metric)
        if len(values) < 2:
            return sum(values)
        return quantiles(values, n=100, method="inclusive")[percent - 1]

    @property
    def times(self) -> list[datetime]:
        """When the batches were done."""
        return [datetime.fromisoformat(batch["timestamp"]) for batch in self.batches]


def read(lines: Iterable[str]) -> LogMetrics:
    """Take the metrics out of log lines."""
    metrics = LogMetrics()
    for line in lines:
        found = logs.fields(line) if "_aws" in line else {}
        match found.get("message"):
            case "batch done":
                metrics.batches.append(found)
            case "batch failed":
                metrics.batches.append(found)
                metrics.error_types[found["error_type"]] += 1
            case "messages failed":
                metrics.reasons[found["reason"]] += found["failed"]
    metrics.batches.sort(key=lambda batch: batch["timestamp"])
    return metrics


def tables(metrics: LogMetrics) -> Group:
    """Lay the metrics out for a terminal: what became of the messages, and how long it took."""
    count = _table("batches", "failed batches", "messages", *OUTCOMES.values(), "cold starts")
    count.add_row(
        f"{len(metrics.batches)}",
        _alert(metrics.sum("batch_failed")),
        f"{metrics.sum('messages')}",
        f"[green]{metrics.sum('written')}[/]",
        f"{metrics.sum('duplicates')}",
        _alert(metrics.sum("failed")),
        f"{metrics.sum('cold_start')}",
    )
    time = _table("median ms", "99 of 100", *STAGES.values(), "oldest message")
    time.add_row(
        f"{metrics.percentile('elapsed_ms', 50):.2f}",
        f"{metrics.percentile('elapsed_ms', 99):.2f}",
        *(f"{metrics.mean(metric):.2f}" for metric in STAGES),
        f"{max(metrics.values('oldest_ms'), default=0):.0f}",
    )
    why = [f"{name} {number}" for name, number in _most(metrics.reasons + metrics.error_types)]
    return Group(count, time, *([f" {', '.join(why)}"] if why else []))


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _alert(number: int) -> str:
    return f"[red]{number}[/]" if number else "0"


def _most(counter: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))
