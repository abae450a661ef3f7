"""The rate of logins that each part of a stack can bear."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dev.simulate.figures import FIGURES, Calibration
from dev.simulate.plan import DAY_S, Plan, cycle_s, database_s, invocation_s, template

# SQS delivers a message for 14 days. The ledger keeps an entry for longer.
LEDGER_DAYS = 16
# A limit is as certain as its least certain figure.
MEASURED, DOCUMENTED, ESTIMATED = "measured", "documented", "estimated"
STACKS = "several stacks"
# Seconds that roll-up and export need to count the ledger, for each login a second.
COUNT_S = LEDGER_DAYS * DAY_S / FIGURES.counted_entries_s


@dataclass(frozen=True)
class Limit:
    """A part that breaks above a number of logins a second, and what helps then."""

    part: str
    bound: str
    rate: float
    figure: str
    remedy: str


def limits(plan: Plan, calibration: Calibration) -> list[Limit]:
    """Return the limits of all stacks together, the lowest first."""
    parts = [*ingest(plan, calibration), *storage(plan), *exports(plan), *reads(plan)]
    return sorted(parts, key=lambda limit: limit.rate)


def stored_bytes(plan: Plan, rate: float) -> float:
    """Bytes in the databases when the oldest rows are as old as the plan keeps them."""
    # The rollups take about as much space as the logins: docs/deployment.md.
    of_login = FIGURES.row_bytes * plan.days * (2 if plan.analysts else 1)
    return rate * DAY_S * (of_login + FIGURES.ledger_bytes * LEDGER_DAYS)


def ingest(plan: Plan, calibration: Calibration) -> Iterator[Limit]:
    """Return the limits of queue, functions and database."""
    batch, cycle = plan.full_batch, cycle_s(plan, calibration)
    readers = math.ceil(plan.stack_rate * cycle / batch / FIGURES.busy_share)
    yield Limit(
        "reads of the queue",
        f"MaximumConcurrency={plan.concurrency}",
        plan.stacks * plan.concurrency * batch / cycle,
        ESTIMATED,
        f"MaximumConcurrency={readers}" if readers <= FIGURES.max_concurrency else STACKS,
    )
    database = database_s(calibration, batch)
    acu = math.ceil(plan.stack_rate / batch * database / FIGURES.busy_share / FIGURES.acu_vcpu)
    yield Limit(
        "database processors",
        f"DatabaseMaxCapacity={plan.acu:g}",
        plan.stacks * plan.cores * FIGURES.busy_share * batch / database,
        ESTIMATED,
        f"DatabaseMaxCapacity={acu}" if acu <= FIGURES.max_acu else STACKS,
    )
    invocation = invocation_s(plan, calibration)
    yield Limit(
        "database connections",
        f"{FIGURES.connections} of 1 ACU",
        plan.stacks * FIGURES.connections * batch / invocation,
        ESTIMATED,
        "a larger DatabaseMaxCapacity or BatchSize",
    )
    yield Limit(
        "concurrent invocations",
        f"{FIGURES.account_concurrency:,} in the account",
        FIGURES.account_concurrency * batch / invocation,
        ESTIMATED,
        "a higher quota, or a larger BatchSize",
    )
    yield Limit(
        "messages in flight",
        f"{FIGURES.in_flight:,} in the queue",
        plan.stacks * FIGURES.in_flight / cycle,
        ESTIMATED,
        f"a smaller BatchSize, or {STACKS}",
    )


def storage(plan: Plan) -> Iterator[Limit]:
    """Return the limits of Postgres's and Aurora's files."""
    days = 1 if plan.partitions else plan.days
    yield Limit(
        "table size",
        f"{_days(days)} in 32 TiB",
        plan.stacks * FIGURES.relation_bytes / (FIGURES.row_bytes * days * DAY_S),
        DOCUMENTED,
        STACKS if plan.partitions else "a partition for each day",
    )
    yield Limit(
        "database size",
        f"{_days(plan.days)} in 128 TiB",
        plan.stacks * FIGURES.volume_bytes / stored_bytes(plan, 1),
        DOCUMENTED,
        f"the lake with fewer days in the database, or {STACKS}",
    )


def exports(plan: Plan) -> Iterator[Limit]:
    """Return the limit of the export, which writes the whole of today each hour."""
    if plan.export:
        seconds = _timeout_s("ExportFunction")
        export_s = COUNT_S + DAY_S * FIGURES.export_s_per_million / 1e6
        yield Limit(
            "export of today",
            f"{seconds} s",
            plan.stacks * seconds / export_s,
            ESTIMATED,
            f"{STACKS}, each with a lake of its own",
        )


def reads(plan: Plan) -> Iterator[Limit]:
    """Return the limits of what reads the logins in the database."""
    seconds = _timeout_s("MigrateFunction")
    if plan.analysts:
        yield Limit(
            "roll-up of today",
            f"{seconds} s",
            plan.stacks * seconds / (COUNT_S + DAY_S / FIGURES.rolled_up_rows_s),
            MEASURED,
            f"Analysts=false and queries over the lake, or {STACKS}",
        )
    # A table without partitions is read as a whole.
    read_days = 2 if plan.partitions else plan.days
    check_s = read_days * DAY_S / FIGURES.scanned_rows_s + 2 * DAY_S / FIGURES.grouped_rows_s
    yield Limit(
        "check for many tokens",
        f"2 days in {seconds} s",
        plan.stacks * seconds / check_s,
        MEASURED,
        f"the same check over the lake (token-guesses then has no data), or {STACKS}",
    )
    days = 1 if plan.partitions else plan.days
    yield Limit(
        "plain query for duplicates",
        f"{_days(days)} in {FIGURES.patience_s} s",
        plan.stacks * FIGURES.patience_s * FIGURES.query_rows_s / (days * DAY_S),
        MEASURED,
        "the analysts' views, or queries over the lake",
    )


def _timeout_s(function: str) -> int:
    timeout = template()["Resources"][function]["Properties"]["Timeout"]
    # {"Fn::If": [condition, then, otherwise]}: a stack that resalts has more time. No plan does.
    return timeout["Fn::If"][2] if isinstance(timeout, dict) else timeout


def _days(number: int) -> str:
    return f"{number} day{'s' if number > 1 else ''}"
