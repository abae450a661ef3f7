"""The metrics of a run, in the terminal and on the report page."""

import re
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dev import log_metrics, logs, report_page
from dev.log_metrics import LogMetrics
from dev.logins import login, record
from e2e.driver import Driver, wait_until

BAD = {"Records": [{"body": "{}"}]}


@pytest.fixture
def metrics(driver: Driver) -> LogMetrics:
    """Return the metrics of three batches, one of which fails."""
    started = datetime.now(UTC).isoformat()
    driver.invoke(record(login()), record(login()), record("not JSON"))
    twice = record(login())
    driver.invoke(twice, twice)
    driver.invoke_event(BAD)

    def new() -> LogMetrics:
        # Lines of an earlier test may still arrive.
        lines = logs.lines(driver.system.emulator, driver.system.stack)
        return log_metrics.read(
            line for line in lines if logs.fields(line).get("timestamp", "") > started
        )

    wait_until(lambda: len(new().batches) == 3 and bool(new().reasons), lambda: new().batches)
    return new()


def test_metrics_match_the_messages_sent(metrics: LogMetrics) -> None:
    outcomes = {name: metrics.sum(name) for name in ("messages", "written", "duplicates", "failed")}

    assert outcomes == {"messages": 5, "written": 3, "duplicates": 1, "failed": 1}
    assert metrics.reasons == {"NotJson": 1}
    assert metrics.error_types == {"MissingMessageId": 1}
    assert 0 < metrics.percentile("elapsed_ms", 50) <= metrics.percentile("elapsed_ms", 99)


def test_terminal_shows_the_metrics(metrics: LogMetrics) -> None:
    console = Console(file=StringIO(), width=100)

    console.print(log_metrics.tables(metrics))

    shown = console.file.getvalue()
    assert re.search(r"\n +3 +1 +5 +3 +1 +0 +1 +\d", shown)
    assert "MissingMessageId 1, NotJson 1" in shown


def test_report_page_loads_nothing_from_elsewhere(metrics: LogMetrics, tmp_path: Path) -> None:
    file = tmp_path / "report.html"

    report_page.write(metrics, file)

    html = file.read_text()
    own = html.replace(report_page.get_plotlyjs(), "")
    assert not re.search(r"(src|href)=|url\(|@import|https?:", own)
    assert all(name in own for name in ("NotJson", "MissingMessageId", "rows written"))
