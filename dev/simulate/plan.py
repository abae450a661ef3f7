"""A stack and its rate, and what the simulation makes of them."""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from dev.simulate.figures import FIGURES, Calibration
from dev.simulate.pipeline import Setup
from dev.stack import read_template

DAY_S = 86_400
# A drain ends with batches that are not full, because the readers share the last messages.
DRAIN_WINDOW_S = 0.001


@dataclass(frozen=True)
class Plan:
    """Settings of all stacks, each of which gets an equal share of the logins."""

    rate: float  # logins a second, of all stacks together
    batch: int
    window_s: int
    concurrency: int
    memory_mb: int
    min_acu: float
    acu: float
    stacks: int = 1
    days: int = 365
    partitions: bool = True
    analysts: bool = False
    export: bool = False

    @property
    def stack_rate(self) -> float:
        """Logins a second of a stack."""
        return self.rate / self.stacks

    @property
    def full_batch(self) -> int:
        """Messages in a batch that is full: Lambda limits its bytes too."""
        return min(self.batch, int(FIGURES.payload_bytes / FIGURES.event_bytes))

    @property
    def cores(self) -> float:
        """Processors of the database at its maximum."""
        return self.acu * FIGURES.acu_vcpu


@cache
def template() -> dict[str, Any]:
    """Return the template, which takes a second to read."""
    return read_template()


def default_plan() -> Plan:
    """Return the plan of the template's defaults, for a login a second."""
    parameters = template()["Parameters"]
    return Plan(
        rate=1,
        batch=parameters["BatchSize"]["Default"],
        window_s=parameters["BatchingWindow"]["Default"],
        concurrency=parameters["MaximumConcurrency"]["Default"],
        memory_mb=parameters["MemorySize"]["Default"],
        min_acu=parameters["DatabaseMinCapacity"]["Default"],
        acu=parameters["DatabaseMaxCapacity"]["Default"],
    )


def delay_s(plan: Plan, calibration: Calibration, messages: float) -> float:
    """Seconds of an invocation without the database's processors."""
    vcpu = min(1, plan.memory_mb / FIGURES.vcpu_mb)
    function = calibration.processor(messages) * calibration.function_share / vcpu
    return function + (FIGURES.round_trip_ms + FIGURES.commit_ms) / 1000


def database_s(calibration: Calibration, messages: float) -> float:
    """Seconds of the database's processors that a batch needs."""
    return calibration.processor(messages) * (1 - calibration.function_share)


def invocation_s(plan: Plan, calibration: Calibration) -> float:
    """Seconds of an invocation with a full batch, in a database that does nothing else."""
    database = database_s(calibration, plan.full_batch) / min(1, plan.cores)
    return delay_s(plan, calibration, plan.full_batch) + database


def cycle_s(plan: Plan, calibration: Calibration) -> float:
    """Seconds from the first receive of a full batch to the end of its invocation."""
    receives = math.ceil(plan.full_batch / FIGURES.receive_messages)
    waits_ms = receives * FIGURES.receive_ms + FIGURES.invoke_ms
    return waits_ms / 1000 + invocation_s(plan, calibration)


def setup_of_stack(plan: Plan, calibration: Calibration) -> Setup:
    """Return the pipeline of a stack that has run for some time."""
    needed = math.ceil(plan.stack_rate * cycle_s(plan, calibration) / plan.full_batch)
    return Setup(
        batch=plan.full_batch,
        window_s=plan.window_s,
        readers=min(plan.concurrency, max(FIGURES.first_readers, needed)),
        max_readers=plan.concurrency,
        receive_s=FIGURES.receive_ms / 1000,
        invoke_s=FIGURES.invoke_ms / 1000,
        delay_s=lambda messages: delay_s(plan, calibration, messages),
        work_s=lambda messages: database_s(calibration, messages),
        cores=plan.cores,
    )


def setup_of_bench(calibration: Calibration, functions: int, batch: int) -> Setup:
    """Return the pipeline of `make bench`, whose functions and Postgres share the processors."""
    return Setup(
        batch=batch,
        window_s=DRAIN_WINDOW_S,
        readers=functions,
        max_readers=functions,
        receive_s=0,
        invoke_s=0,
        delay_s=lambda _: 0.0,
        work_s=calibration.processor,
        cores=calibration.cores,
        cores_of_batch=calibration.processor(batch) / calibration.alone(batch),
    )


def grown(plan: Plan, calibration: Calibration) -> Plan:
    """Raise the settings of a stack to what its rate needs, as far as AWS allows."""
    share = FIGURES.busy_share
    readers = plan.stack_rate * cycle_s(plan, calibration) / plan.full_batch / share
    work = plan.stack_rate / plan.full_batch * database_s(calibration, plan.full_batch)
    acu = math.ceil(work / share / FIGURES.acu_vcpu)
    return replace(
        plan,
        concurrency=min(FIGURES.max_concurrency, max(plan.concurrency, math.ceil(readers))),
        acu=min(FIGURES.max_acu, max(plan.acu, acu)),
    )
