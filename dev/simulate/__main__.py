"""Simulate a rate of logins: the command behind `make simulate`.

It simulates queue, functions and database of a stack, compares the rate with what each part can
bear, and computes the costs of a month. The figures are in dev/simulate/figures.toml.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.table import Table

from dev.simulate.comparison import compared
from dev.simulate.figures import FILE, Calibration, calibrate, read_bench
from dev.simulate.limits import Limit, exports, ingest, limits, storage, stored_bytes
from dev.simulate.monthly import average_acu, bill, lake_bytes
from dev.simulate.pipeline import Outcome, simulate
from dev.simulate.plan import DAY_S, Plan, default_plan, grown, setup_of_stack
from dev.terminal import console

UNITS = {"GB": 1e9, "TB": 1e12, "PB": 1e15}
LEAST_RATE, MOST_RATE = 0.1, 10_000_000
LEAST_ACU = 0.5
RATES = (1, 10, 100, 1_000, 10_000, 100_000)
# Of each row of the table of steps: with the lake, the database keeps fewer days.
HOT_DAYS = 35
Rows = list[tuple[str, ...]]


def main() -> None:
    """Print the report, or a table of docs/architecture.md or docs/performance.md."""
    plan = default_plan()
    parser = argparse.ArgumentParser(
        prog="simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=_rate, help="logins a second, on average")
    parser.add_argument("--stacks", type=_whole, default=1, help="stacks that share the rate")
    parser.add_argument("--days", type=_whole, default=plan.days, help="days that the table keeps")
    parser.add_argument("--batch", type=_whole, default=plan.batch, help="BatchSize")
    parser.add_argument("--concurrency", type=_whole, default=plan.concurrency)
    parser.add_argument("--memory-mb", type=_whole, default=plan.memory_mb)
    parser.add_argument("--acu", type=_capacity, default=plan.acu, help="DatabaseMaxCapacity")
    parser.add_argument("--analysts", action="store_true", help="with Analysts=true")
    parser.add_argument("--export", action="store_true", help="with Export=true")
    parser.add_argument(
        "--plain-table", dest="partitions", action="store_false", help="no partitions"
    )
    parser.add_argument("--results", type=Path, default=FILE, help="a results.json of `make bench`")
    parser.add_argument("--table", choices=TABLES, help="print a table of the documents instead")
    arguments = vars(parser.parse_args())
    calibration = calibrate(bench := read_bench(arguments.pop("results")))
    if table := arguments.pop("table"):
        print(TABLES[table](bench, calibration))
    elif arguments["rate"]:
        report(replace(plan, **arguments), bench, calibration)
    else:
        parser.error("--rate or --table is missing")


def report(plan: Plan, bench: dict, calibration: Calibration) -> None:
    """Print what the simulation shows, the limits, and the costs."""
    outcome = simulate(setup_of_stack(plan, calibration), plan.stack_rate)
    found = limits(plan, calibration)
    items = list(bill(plan, outcome))
    total = sum(usd for _, usd in items)
    console.print(f"\n[bold]{plan.rate:,.10g} logins a second, {plan.stacks} stack(s)[/]")
    _print(("simulated", "value"), simulated(plan, outcome))
    console.print("[bold]What each part can bear, the lowest limit first[/]")
    _print(
        ("part", "limit", "logins/s", "used", "figure"),
        [
            (each.part, each.bound, _digits(each.rate), f"{plan.rate / each.rate:.0%}", each.figure)
            for each in found
        ],
    )
    console.print("[bold]A month, list prices in USD[/]")
    _print(("item", "USD"), [(item, f"{usd:,.2f}") for item, usd in [*items, ("sum", total)]])
    for line in verdict(plan, found):
        console.print(line, highlight=False)
    differences = [abs(row.difference) for row in compared(bench, calibration) if not row.fitted]
    console.print(
        f"Beside measured runs that it was not fitted to, the simulation is wrong by at most "
        f"{max(differences):.0%} (docs/performance.md). Nothing was measured on AWS.",
        highlight=False,
    )


def verdict(plan: Plan, found: list[Limit]) -> Iterator[str]:
    """Say what breaks first, and what helps against all that breaks at this rate."""
    first = found[0]
    yield f"Breaks first: {first.part}, at {_digits(first.rate)} logins a second."
    for each in found:
        if each.rate < plan.rate:
            yield f"At this rate breaks: {each.part}. What helps: {each.remedy}."


def simulated(plan: Plan, outcome: Outcome) -> Rows:
    """Return the figures of the simulation; those of a stack are of one stack."""
    rows = [
        ("written by a stack, messages a second", _digits(outcome.written_s)),
        ("messages in a batch", f"{outcome.mean_batch:.1f}"),
        ("duration of an invocation", f"{outcome.mean_busy_ms:.1f} ms"),
        ("invocations at the same time, at most", f"{outcome.max_busy:,}"),
        ("messages in flight, at most", f"{outcome.max_in_flight:,}"),
        ("capacity units of the database", f"{average_acu(plan, outcome):.2f} of {plan.acu:g}"),
        *_waits(plan, outcome),
        ("logins a day", _digits(plan.rate * DAY_S)),
        (
            f"stored, {plan.days} days and the ledger",
            _bytes(stored_bytes(plan, plan.rate)),
        ),
    ]
    if plan.export:
        rows.append(("a year in the lake", _bytes(lake_bytes(plan))))
    return rows


def comparison(bench: dict, calibration: Calibration) -> str:
    """Return the table of docs/performance.md."""
    rows = [
        f"| {row.functions} | {row.batch:,} | {_digits(row.measured)} | {_digits(row.simulated)} "
        f"| {'fitted' if row.fitted else f'{100 * row.difference:+.0f} %'} |"
        for row in compared(bench, calibration)
    ]
    head = "| functions | batch size | measured, messages per second | simulated | difference |"
    return _table(head, rows)


def bounds(_bench: dict, calibration: Calibration) -> str:
    """Return the table of limits of docs/architecture.md."""
    plan = replace(default_plan(), rate=max(RATES), analysts=True, export=True)
    rows = [
        f"| {each.part} | {each.bound} | {_digits(each.rate)} | {_digits(each.rate * DAY_S / 1e6)} "
        f"| {each.figure} | {each.remedy} |"
        for each in limits(plan, calibration)
    ]
    head = "| part | limit | logins a second | millions a day | figure | what helps |"
    return _table(head, rows)


def steps(_bench: dict, calibration: Calibration) -> str:
    """Return the table of steps of docs/architecture.md."""
    head = (
        "| logins a second | breaks first with the defaults | stacks | `MaximumConcurrency` "
        "| wait, p50 and p99 | databases | a year in the lake | USD a month |"
    )
    return _table(head, [_step(rate, calibration) for rate in RATES])


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rows])


def _step(rate: float, calibration: Calibration) -> str:
    """Simulate a rate with the lake, and with the settings and stacks that it needs."""
    defaults = replace(default_plan(), rate=rate)
    [first, *_] = limits(replace(defaults, analysts=True), calibration)
    plan = enough(replace(defaults, days=HOT_DAYS, export=True), calibration)
    outcome = simulate(setup_of_stack(plan, calibration), plan.stack_rate)
    waits = " and ".join(value for _, value in _waits(plan, outcome))
    usd = sum(usd for _, usd in bill(plan, outcome))
    cells = (
        _digits(rate),
        f"{first.part} ({first.bound})" if first.rate < rate else "nothing",
        f"{plan.stacks}",
        f"{plan.concurrency}",
        waits,
        _bytes(stored_bytes(plan, rate)),
        _bytes(lake_bytes(plan)),
        _digits(usd),
    )
    return f"| {' | '.join(cells)} |"


def enough(plan: Plan, calibration: Calibration) -> Plan:
    """Raise settings, and add stacks, until the logins can be written, kept and exported."""
    while True:
        candidate = grown(plan, calibration)
        needed = [*ingest(candidate, calibration), *storage(candidate), *exports(candidate)]
        if all(limit.rate >= plan.rate for limit in needed):
            return candidate
        plan = replace(plan, stacks=plan.stacks + 1)


def _waits(plan: Plan, outcome: Outcome) -> Rows:
    if outcome.grows_s > 0.01 * plan.stack_rate:
        return [("the queue grows by, messages a second", _digits(outcome.grows_s))]
    return [
        (f"wait from sending to commit, p{percent}", f"{outcome.wait_s(percent / 100):.1f} s")
        for percent in (50, 99)
    ]


def _digits(value: float) -> str:
    """Write a number with two significant digits, or three from 1,000 on."""
    digits = 3 if value >= 1_000 else 2
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def _bytes(number: float) -> str:
    for unit in ("GB", "TB"):
        if number < 1000 * UNITS[unit]:
            return f"{_digits(number / UNITS[unit])} {unit}"
    return f"{_digits(number / UNITS['PB'])} PB"


def _rate(text: str) -> float:
    value = float(text.replace(",", ""))
    # The simulated time is too short for fewer logins.
    if not LEAST_RATE <= value <= MOST_RATE:
        raise argparse.ArgumentTypeError(f"a rate is from {LEAST_RATE} to {MOST_RATE:,}")
    return value


def _whole(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _capacity(text: str) -> float:
    if (value := float(text)) < LEAST_ACU:
        raise argparse.ArgumentTypeError(f"must be {LEAST_ACU} or more")
    return value


def _print(head: tuple[str, ...], rows: Rows) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    numbers = {"value", "logins/s", "used", "USD"}
    for name in head:
        table.add_column(name, justify="right" if name in numbers else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


TABLES = {"comparison": comparison, "bounds": bounds, "steps": steps}


if __name__ == "__main__":
    main()
