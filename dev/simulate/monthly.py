"""What a month costs, by dev/costs.py and dev/prices.toml."""

from collections.abc import Iterator
from functools import cache

from dev import costs
from dev.simulate.figures import FIGURES
from dev.simulate.limits import stored_bytes
from dev.simulate.pipeline import Outcome
from dev.simulate.plan import DAY_S, Plan

TABLE_MEMORY_MB = 1_024 * costs.MEMORY_GB
MONTH_S = costs.HOURS * costs.HOUR_S
DAYS_A_YEAR = 365
# Computed here instead, from the days that are kept.
STORAGE = "storage for a month, in GB"


def bill(plan: Plan, outcome: Outcome) -> Iterator[tuple[str, float]]:
    """Return each item of a month, with a database that the stack creates, in USD."""
    batch, request = max(1, outcome.mean_batch), max(1, outcome.mean_receive)
    millions = plan.rate * MONTH_S / costs.MESSAGES
    for row in costs.by_traffic(batch, request, outcome.mean_busy_ms):
        if not row.item.endswith(STORAGE):
            memory = plan.memory_mb / TABLE_MEMORY_MB if row.item.startswith("Lambda time") else 1
            yield row.item, row.usd * millions * memory
    yield "independent of the traffic", plan.stacks * _fixed(plan)
    # The template's minimum is part of the costs that do not depend on the traffic.
    more_acu = max(0, average_acu(plan, outcome) - plan.min_acu)
    acu_hours = plan.stacks * more_acu * costs.HOURS
    yield "created database: more capacity of Aurora", costs.usd(acu_hours, "acu_hours")
    stored = stored_bytes(plan, plan.rate) / costs.GB
    yield f"created database: {plan.days} days of logins", costs.usd(stored, "aurora_gb")
    if plan.export:
        yield "export: a year of logins", costs.usd(lake_bytes(plan) / costs.GB, "s3_gb")


def average_acu(plan: Plan, outcome: Outcome) -> float:
    """Capacity units that the batches need; queries need more."""
    return min(plan.acu, outcome.worked_s / outcome.seconds / FIGURES.busy_share / FIGURES.acu_vcpu)


def lake_bytes(plan: Plan) -> float:
    """Bytes of a year of logins in Parquet."""
    return plan.rate * DAY_S * DAYS_A_YEAR * FIGURES.exported_row_bytes


def _fixed(plan: Plan) -> float:
    """Costs of a stack without traffic, with the parts that the plan has; it has no vault."""
    chosen = {"analysts": plan.analysts, "export": plan.export}
    left_out = {name for name in costs.OPTIONAL if not chosen.get(name)}
    return sum(row.usd for row in _fixed_rows() if row.item.split(":")[0] not in left_out)


@cache
def _fixed_rows() -> list[costs.Row]:
    return list(costs.by_month())
