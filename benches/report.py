"""Prints and saves the results, each table with the conditions of its measurement."""

import json
from typing import Any

from rich import box
from rich.table import Table

from benches import RESULTS
from benches.measure import Row
from dev.terminal import console

# Each table: its measurement, its title, and its columns if not all of the measurement's.
TABLES = [
    (
        "speed",
        "Time of an invocation, from event to answer: medians",
        ["messages", "bare_copy_ms", "copy_function_ms", "login_etl_ms", "python_ms"],
    ),
    (
        "speed",
        "login-etl's median time, divided by the median time of the others",
        [
            *("messages", "ratio_to_bare_copy", "ratio_to_copy_function", "ratio_to_python"),
            "ratio_to_copy_function_without_fsync",
        ],
    ),
    (
        "speed",
        "Time of an invocation: minima",
        [
            *("messages", "bare_copy_min_ms", "copy_function_min_ms", "login_etl_min_ms"),
            "python_min_ms",
        ],
    ),
    (
        "speed",
        "Time and own CPU time of a message, and peak memory of the process",
        [
            *("messages", "login_etl_us", "login_etl_cpu_us", "python_cpu_us"),
            *("login_etl_peak_mib", "python_peak_mib"),
        ],
    ),
    ("throughput", "Messages a second, by functions that run at the same time", None),
    (
        "throughput_without_fsync",
        "Messages a second, by functions that run at the same time, without fsync",
        None,
    ),
    ("cold_start", "Cold start, from the start of the process to its first poll", None),
    ("growth", "A batch of 1,000 on an empty and on a large database", None),
    ("round_trips", "Round trips, counted with a delay of 10 ms each way", None),
    (
        "refused_rows",
        "Batches with refused rows: medians, with 0, 0.5 and 1 ms of network delay each way",
        None,
    ),
    ("scans", "What reads the whole ledger, or the logins of a day: medians", None),
    (
        "analysts",
        "The analysts' API and page, 16 clients, on the larger database",
        ["endpoint", "p50_ms", "p99_ms", "requests_s", "kib", "p50_to_smaller", "clients_cores"],
    ),
    (
        "analysts",
        "FastAPI's API over the same rollups, 16 clients",
        ["endpoint", "fastapi_p50_ms", "fastapi_p99_ms", "fastapi_requests_s"],
    ),
    ("analysts_comparisons", "Rollups and plain queries: medians", None),
    ("analysts_ingest", "Messages a second of one function: medians", None),
    (
        "export",
        "The export of ten days beside a COPY to nowhere and ADBC with pyarrow: medians",
        ["rows", "copy_ms", "export_ms", "export_to_emulator_ms", "adbc_ms"],
    ),
    (
        "export",
        "The export of ten days: ratios, peak memory, and size of the files",
        [
            *("rows", "ratio_to_copy", "ratio_to_adbc"),
            *("export_peak_mib", "adbc_peak_mib", "files_mb"),
        ],
    ),
    ("export_ingest", "Messages a second of one function beside exports: medians", None),
    ("vault", "A batch of 1,000 with and without the vault: medians", None),
    ("vault_fold", "Folding of sealed values", None),
    ("resalt", "Tokens replaced by those of a later salt, and the longest wait of a batch", None),
]

LEGEND = (
    "bare copy: a client copies ready rows by binary COPY on a kept connection, one transaction a "
    "batch, without a Runtime API. copy function: a function behind the Runtime API ignores the "
    "event and does the same. Both are floors: they neither decode nor mask, and write no ledger. "
    "python: a function that decodes, masks and copies, without a ledger. With fsync=on every time "
    "includes the wait for the disk, which brings the ratios nearer to 1."
)


def show(results: dict[str, Any]) -> None:
    """Print the results."""
    console.print(f"The machine's load was {results['machine']['load']:.1f} before the start.")
    for title, conditions_of_table, rows in _tables(results):
        console.print(f"\n[bold]{title}[/]\n{conditions_of_table}", highlight=False)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name, value in rows[0].items():
            table.add_column(_heading(name), justify="left" if isinstance(value, str) else "right")
        for row in rows:
            table.add_row(*map(_text, row.values()))
        console.print(table)
    if "speed" in results:
        console.print(LEGEND, highlight=False)


def save(results: dict[str, Any]) -> None:
    """Write the results as JSON, with all digits, and as Markdown tables."""
    RESULTS.joinpath("results.json").write_text(json.dumps(results, indent=2) + "\n")
    parts = [
        f"{title} ({conditions_of_table}):\n\n{_markdown(rows)}"
        for title, conditions_of_table, rows in _tables(results)
    ]
    RESULTS.joinpath("results.md").write_text("\n".join([*parts, LEGEND, ""]))


def conditions(results: dict[str, Any], measurement: str) -> str:
    """Write the conditions of a measurement."""
    machine, measured = results["machine"], results[measurement]
    return (
        f"fsync={measured['fsync']}, {measured['tls']}, {machine['cores']} cores, "
        f"Postgres {machine['postgres']}"
    )


def _tables(results: dict[str, Any]) -> list[tuple[str, str, list[Row]]]:
    """Cut the results into tables that fit on a page: title, conditions and rows of each."""
    return [
        (
            title,
            conditions(results, measurement),
            [{name: row[name] for name in columns or row} for row in results[measurement]["rows"]],
        )
        for measurement, title, columns in TABLES
        if measurement in results
    ]


def _markdown(rows: list[Row]) -> str:
    lines = [
        map(_heading, rows[0]),
        ("---" if isinstance(value, str) else "---:" for value in rows[0].values()),
        *(map(_text, row.values()) for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _heading(name: str) -> str:
    """Turn `login_etl_cpu_us` into `login-etl cpu, µs`."""
    *words, last = name.replace("login_etl", "login-etl").split("_")
    units = {"ms": ", ms", "us": ", µs", "mib": ", MiB", "mb": ", MB", "s": " a second"}
    return " ".join(words) + units.get(last, f" {last}")


def _text(value: float | str) -> str:
    """Write a number with three significant digits, or with all digits before the point."""
    if isinstance(value, float):
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:,.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else value
