"""What was measured, for people and for programs."""

import json
from typing import Any

from rich import box
from rich.table import Table

from benches import RESULTS
from benches.measure import Row
from dev.terminal import console

# Each table: the measurement that it is of, its title, and its columns if they are not all.
TABLES = [
    (
        "speed",
        "A whole invocation, from event to answer: medians, and ours to the others",
        [
            *("messages", "copy_ms", "floor_ms", "ours_ms", "python_ms"),
            *("to_copy", "to_floor", "without_fsync"),
        ],
    ),
    (
        "speed",
        "The least of each",
        ["messages", "copy_min_ms", "floor_min_ms", "ours_min_ms", "python_min_ms"],
    ),
    (
        "speed",
        "What a message takes, and the most memory",
        ["messages", "ours_us", "ours_cpu_us", "python_cpu_us", "ours_peak_mib", "python_peak_mib"],
    ),
    ("cold_start", "From a process's start to its first poll", None),
    ("growth", "A batch of 1,000, when so many rows and ledger entries are there already", None),
    ("scaling", "Functions at once; this benchmark's driver takes its part of the cores", None),
    ("round_trips", "Round trips, counted with a delay of 10 ms each way", None),
]

LEGEND = (
    "copy: a bare COPY of ready rows on a kept connection. floor: the same behind a Runtime API, "
    "the least that any function takes. python: decodes, masks and copies; it has no ledger. "
    "Postgres waits for the disk, as it does unless it is told otherwise. That is the same for all "
    "and flatters a ratio: without fsync is ours to the floor where it does not wait."
)


def show(results: dict[str, Any]) -> None:
    """Print the results."""
    machine = results["machine"]
    console.print(
        f"{machine['cores']} cores, load {machine['load']:.1f} before the start; "
        f"Postgres {machine['postgres']}"
    )
    for title, rows in _tables(results):
        console.print(f"\n[bold]{title}[/]")
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name, value in rows[0].items():
            table.add_column(_heading(name), justify="left" if isinstance(value, str) else "right")
        for row in rows:
            table.add_row(*map(_text, row.values()))
        console.print(table)
    if "speed" in results:
        console.print(LEGEND, highlight=False)


def save(results: dict[str, Any]) -> None:
    """Write the results as JSON, with all their digits, and as Markdown, to be pasted."""
    RESULTS.joinpath("results.json").write_text(json.dumps(results, indent=2) + "\n")
    parts = [f"{title}:\n\n{_markdown(rows)}" for title, rows in _tables(results)]
    RESULTS.joinpath("results.md").write_text("\n".join([*parts, LEGEND, ""]))


def _tables(results: dict[str, Any]) -> list[tuple[str, list[Row]]]:
    """Cut what was measured into tables that fit on a page."""
    return [
        (title, [{name: row[name] for name in columns or row} for row in results[measured]])
        for measured, title, columns in TABLES
        if measured in results
    ]


def _markdown(rows: list[Row]) -> str:
    lines = [
        map(_heading, rows[0]),
        ("---" if isinstance(value, str) else "---:" for value in rows[0].values()),
        *(map(_text, row.values()) for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _heading(name: str) -> str:
    """Turn `ours_cpu_us` into `ours cpu, µs`."""
    *words, last = name.split("_")
    units = {"ms": ", ms", "us": ", µs", "mib": ", MiB", "s": " a second"}
    return " ".join(words) + units[last] if last in units else name.replace("_", " ")


def _text(value: float | str) -> str:
    """Write a number with the digits that mean something: three, or all before the point."""
    if isinstance(value, float):
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else value
