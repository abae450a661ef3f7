"""Computes the tables of costs in docs/deployment.md; as a program, it prints them.

The prices and measured figures are in prices.toml, the numbers of resources in template.yaml. `make
check` compares the tables with the document (documents.py).
"""

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dev import ROOT
from dev.stack import read_template

MESSAGES = 1_000_000
BATCH = 100
# SQS's maximum for a receive or a delete.
REQUEST = 10
MEMORY_GB = 0.25
# The parts that a parameter turns on, and how the items of their rows begin.
OPTIONAL = {
    "analysts": ("analysts:",),
    "export": ("export:",),
    "vault": ("vault:",),
    "vault and a created database": ("vault:", "vault and a created database:"),
}
HOURS = 730
HOUR_S = 3600
ZONES = 2
GB = 1_000_000_000
CENT = 0.01
X = "\N{MULTIPLICATION SIGN}"
PER = {1_000_000: " / million", 10_000: " / 10,000", 1_000: " / 1,000", 1: ""}

_DATA = tomllib.loads((ROOT / "dev" / "prices.toml").read_text())
_FIGURES = _DATA["measured"] | _DATA["estimated"]


@dataclass(frozen=True)
class Row:
    """A row of a table: an item, its calculation and its costs."""

    item: str
    calculation: str
    usd: float


def tables() -> tuple[str, str]:
    """Return both tables: for a million messages, and for each month."""
    return _table("a million messages", by_traffic(), 3), _table("a month", by_month(), 2)


def by_traffic(
    batch: float = BATCH, request: float = REQUEST, batch_ms: float = _FIGURES["batch_ms"]
) -> Iterable[Row]:
    """Return the costs of a million messages, by the mean sizes of a batch and of a request."""
    requests, batches = round(MESSAGES / request), round(MESSAGES / batch)
    seconds = batches * batch_ms / 1000
    line = _FIGURES["line_bytes"] + _FIGURES["line_overhead_bytes"]
    log_bytes = line + _FIGURES["platform_bytes"]
    writes = math.ceil(_FIGURES["wal_bytes"] * batch / _FIGURES["io_bytes"])
    stored = _FIGURES["row_bytes"] * MESSAGES / GB
    yield _priced(
        "SQS",
        f"{MESSAGES:,} sends, {requests:,} receives and {requests:,} deletes of {request:g}",
        MESSAGES + 2 * requests,
        "sqs_requests",
    )
    yield _priced("Lambda requests", "", batches, "lambda_requests")
    time = f"{batches:,} {X} {batch_ms:g} ms {X} {MEMORY_GB} GB on arm64"
    yield _priced("Lambda time, in GB-s", time, seconds * MEMORY_GB, "lambda_gb_s")
    yield _priced("X-Ray, at most", "", batches, "traces")
    lines = f"{batches:,} {X} ({line:,} B of ours and {_FIGURES['platform_bytes']} B of Lambda)"
    yield _priced("logs, in GB", lines, batches * log_bytes / GB, "log_gb")
    io = f"{batches:,} batches {X} {writes} writes of 4 KB"
    yield _priced("created database: Aurora's I/O", io, batches * writes, "aurora_io")
    rows = f"{MESSAGES:,} rows {X} {_FIGURES['row_bytes']} B"
    yield _priced("created database: storage for a month, in GB", rows, stored, "aurora_gb")
    exported = f"{MESSAGES:,} rows {X} {_FIGURES['exported_row_bytes']} B"
    exported_gb = _FIGURES["exported_row_bytes"] * MESSAGES / GB
    yield _priced("export: storage for a month, in GB", exported, exported_gb, "s3_gb")


def by_month() -> Iterable[Row]:
    """Return the costs of a month that do not depend on the traffic."""
    template = read_template()
    resources = template["Resources"].values()
    keys = _count(resources, "AWS::KMS::Key")
    alarms = _count(resources, "AWS::CloudWatch::Alarm")
    dashboards = _count(resources, "AWS::CloudWatch::Dashboard")
    all_alarms = _count(resources, "AWS::CloudWatch::Alarm", "CreatesDatabase")
    # Interface endpoints; that of S3 is free.
    endpoints = sum(
        resource["Properties"].get("VpcEndpointType") == "Interface"
        for resource in resources
        if resource.get("Condition") == "CreatesDatabase"
    )
    polls = _FIGURES["pollers"] * HOURS * HOUR_S // _FIGURES["poll_s"]
    minimum = template["Parameters"]["DatabaseMinCapacity"]["Default"]
    yield _priced("keys", "", keys, "keys")
    # A new data key each hour: two requests for a sender, one for the function.
    yield _priced("requests to KMS", f"{HOURS} hours {X} 3", HOURS * 3, "key_requests")
    yield _priced("secrets: the salt, the password of the writer", "", 2, "secrets")
    pollers = (
        f"{_FIGURES['pollers']} pollers of Lambda, a request every {_FIGURES['poll_s']} s each"
    )
    yield _priced("requests to SQS without messages", pollers, polls, "sqs_requests")
    yield _priced("metrics", "", _FIGURES["metrics"], "metrics")
    yield _priced("dashboard", "", dashboards, "dashboards")
    yield _priced("alarms", "", alarms, "alarms")
    hours = f"{minimum} ACU {X} {HOURS} h"
    yield _priced("created database: Aurora at its minimum", hours, minimum * HOURS, "acu_hours")
    yield _priced("created database: secrets of `login_owner`, `login_analyst`", "", 2, "secrets")
    waiting = f"{endpoints} {X} {ZONES} zones {X} {HOURS} h"
    yield _priced(
        "created database: endpoints of Secrets Manager and SQS",
        waiting,
        endpoints * ZONES * HOURS,
        "endpoint_hours",
    )
    yield _priced("created database: alarms", "", all_alarms, "alarms")
    # A created database has the secret of login_analyst without analysts, too.
    yield _priced("analysts: secrets of `login_analyst`, `login_api`", "", 2, "secrets")
    yield _priced("analysts: metrics", "", _FIGURES["analysts_metrics"], "metrics")
    analysts_alarms = _count(resources, "AWS::CloudWatch::Alarm", "HasAnalysts")
    yield _priced("analysts: alarms", "", analysts_alarms, "alarms")
    roll_up = f"{HOURS} roll-ups {X} {_FIGURES['roll_up_s']} s {X} {MEMORY_GB} GB"
    seconds = HOURS * _FIGURES["roll_up_s"]
    yield _priced("analysts: Lambda time, in GB-s", roll_up, seconds * MEMORY_GB, "lambda_gb_s")
    requests = _FIGURES["analysts_requests"]
    yield _priced("analysts: requests to the HTTP API", "", requests, "http_api_requests")
    yield _priced("export: key", "", _count(resources, "AWS::KMS::Key", "HasExport"), "keys")
    yield _priced("export: secret of `login_export`", "", 1, "secrets")
    yield _priced("export: metrics", "", _FIGURES["export_metrics"], "metrics")
    export_alarms = _count(resources, "AWS::CloudWatch::Alarm", "HasExport")
    yield _priced("export: alarms", "", export_alarms, "alarms")
    memory = template["Resources"]["ExportFunction"]["Properties"]["MemorySize"] / 1024
    runs = f"{HOURS} runs {X} {_FIGURES['export_s']} s {X} {memory:.3g} GB"
    seconds = HOURS * _FIGURES["export_s"]
    yield _priced("export: Lambda time, in GB-s", runs, seconds * memory, "lambda_gb_s")
    writes = f"{HOURS} runs {X} {_FIGURES['export_writes']}"
    yield _priced(
        "export: requests to S3", writes, HOURS * _FIGURES["export_writes"], "s3_requests"
    )
    yield _priced("vault: key", "", _count(resources, "AWS::KMS::Key", "CreatesVaultKey"), "keys")
    yield _priced("vault: secret of `login_vault`", "", 1, "secrets")
    yield _priced("vault: metrics", "", _FIGURES["vault_metrics"], "metrics")
    vault_alarms = _count(resources, "AWS::CloudWatch::Alarm", "HasVault")
    yield _priced("vault: alarms", "", vault_alarms, "alarms")
    yield _priced(
        "vault and a created database: endpoint of KMS",
        f"{ZONES} zones {X} {HOURS} h",
        ZONES * HOURS,
        "endpoint_hours",
    )


def usd(number: float, price: str) -> float:
    """Return the costs of a number of things that have a price."""
    found = _DATA["prices"][price]
    return number * found["usd"] / found.get("per", 1)


def _priced(item: str, calculation: str, number: float, price: str) -> Row:
    """Return a row for a number of things that have a price."""
    found = _DATA["prices"][price]
    one, per = found["usd"], found.get("per", 1)
    shown = (
        f"{one:.10f}".rstrip("0")
        if one < CENT
        else f"{one:.4f}".removesuffix("0").removesuffix("0")
    )
    count = f"{number:,}" if isinstance(number, int) else f"{number:,.4g}"
    equals = f"{calculation}: " if calculation else ""
    return Row(item, f"{equals}{count} {X} {shown}{PER[per]}", usd(number, price))


def _count(resources: Iterable[dict[str, Any]], kind: str, condition: str | None = None) -> int:
    return sum(
        resource["Type"] == kind and resource.get("Condition") == condition
        for resource in resources
    )


def _table(name: str, rows: Iterable[Row], digits: int) -> str:
    """Return a table with the sums for each kind of database, and for each optional part."""
    rows = list(rows)
    optional = {part: _sum(rows, *starts) for part, starts in OPTIONAL.items()}
    of_parts = {start for starts in OPTIONAL.values() for start in starts}
    created = _sum(rows) - _sum(rows, *of_parts)
    own = created - _sum(rows, "created database:")
    lines = [f"| {row.item} | {row.calculation} | {row.usd:.{digits}f} |" for row in rows]
    sums = [
        f"| **{name}, your own database** | | **{own:.2f}** |",
        f"| **{name}, created database** | | **{created:.2f}** |",
    ]
    for part, more in optional.items():
        if round(more, 2):
            sums.append(f"| **{name} more, with {part}** | | **{more:.2f}** |")
    return "\n".join(["| item | calculation | USD |", "|---|---|---|", *lines, *sums])


def _sum(rows: list[Row], *starts: str) -> float:
    """Add up the rows whose item begins with one of these texts, or all if there is none."""
    return sum(row.usd for row in rows if not starts or row.item.startswith(starts))


def main() -> None:
    """Print both tables."""
    print(f"{_DATA['region']}, {_DATA['month']}", *tables(), sep="\n\n")


if __name__ == "__main__":
    main()
