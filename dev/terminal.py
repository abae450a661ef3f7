"""Prints the results of a run to the terminal; reads the table as an analyst."""

from time import monotonic, sleep
from typing import Any

from psycopg.rows import dict_row
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dev import log_metrics, logs, stack
from dev.local_system import LocalSystem

ARRIVAL_TIMEOUT_S = 60

console = Console()

# Long texts are cut, so that a row fits on a line of the terminal.
SAMPLE = """
SELECT
    left(user_id, 11) AS user_id,
    device_type,
    left(masked_ip, 12) || '…' AS masked_ip,
    left(masked_device_id, 12) || '…' AS masked_device_id,
    locale,
    app_version
FROM user_logins
ORDER BY user_logins.user_id
LIMIT 5
"""

DUPLICATES = """
SELECT
    field,
    left(token, 12) || '…' AS token,
    count(*) AS logins,
    count(DISTINCT user_id) AS users
FROM user_logins
CROSS JOIN LATERAL (
    VALUES ('device_id', masked_device_id), ('ip', masked_ip)
) AS masked (field, token)
WHERE masked.token IS NOT NULL
GROUP BY field, masked.token
HAVING count(*) > 1
ORDER BY logins DESC, field, masked.token
LIMIT 10
"""


def counts(system: LocalSystem) -> tuple[int, int]:
    """Count the rows in the table and the messages in the dead-letter queue."""
    with system.connect("analyst") as database:
        (rows,) = database.execute("SELECT count(*) FROM user_logins").fetchone()
    return rows, stack.count(system.emulator, system.stack.dead_letter_queue_url)


def send(system: LocalSystem, bodies: list[str]) -> tuple[int, int]:
    """Send messages, and wait until all are rows or dead letters; return the new ones of both.

    Shows progress bars, and below them the metrics that the function logs meanwhile.
    """
    before = counts(system)
    earlier = len(list(logs.lines(system.emulator, system.stack)))
    columns = [TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn()]
    progress = Progress(*columns, TimeElapsedColumn(), console=console)
    sending = progress.add_task("sent", total=len(bodies))
    arriving = progress.add_task("arrived", total=len(bodies))

    def progress_and_metrics() -> Group:
        lines = list(logs.lines(system.emulator, system.stack))[earlier:]
        return Group(progress, log_metrics.tables(log_metrics.read(lines)))

    with Live(progress_and_metrics(), console=console, refresh_per_second=10) as live:
        for ids in stack.send(system.emulator, system.stack.queue_url, bodies):
            progress.advance(sending, len(ids))
        deadline = monotonic() + ARRIVAL_TIMEOUT_S
        while True:
            after = counts(system)
            new = after[0] - before[0], after[1] - before[1]
            progress.update(arriving, completed=sum(new))
            live.update(progress_and_metrics())
            if sum(new) >= len(bodies) or monotonic() > deadline:
                return new
            sleep(0.2)


def watch(system: LocalSystem) -> None:
    """Show live metrics of the system until Ctrl-C."""
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            lines = logs.lines(system.emulator, system.stack)
            live.update(log_metrics.tables(log_metrics.read(lines)))
            sleep(0.5)


def show(system: LocalSystem) -> None:
    """Print sample rows, masked values that occur more than once, and the dead letters."""
    with system.connect("analyst") as database:
        cursor = database.cursor(row_factory=dict_row)
        print_table("Sample rows of user_logins", cursor.execute(SAMPLE).fetchall())
        print_table(
            "Masked values that occur more than once", cursor.execute(DUPLICATES).fetchall()
        )
    print_table("Dead letters", _dead_letters(system))


def _dead_letters(system: LocalSystem) -> list[dict[str, Any]]:
    """List ids and reasons. A body is never printed, because it is not masked."""
    reasons = logs.reasons(system.emulator, system.stack)
    letters = stack.peek(system.emulator, system.stack.dead_letter_queue_url)
    return [
        {
            "message_id": letter["MessageId"],
            "reason": reasons.get(letter["MessageId"], "not logged"),
        }
        for letter in letters
    ]


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of the table; the values cannot control the terminal."""
    console.print(f"\n[bold]{title}[/]" if rows else f"\n[bold]{title}[/]: none")
    if rows:
        table = Table(*rows[0], box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for row in rows:
            # Not a str, in which rich would look for markup.
            table.add_row(*(Text(printable(value)) for value in row.values()))
        console.print(table)


def printable(value: object) -> str:
    """Write a value of the table for a terminal; None is empty.

    A sender chooses the user id, so it may contain escape sequences, which a terminal would
    execute, line ends, and characters that hide or reorder text. They are written as escapes.
    """
    text = "" if value is None else str(value)
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
