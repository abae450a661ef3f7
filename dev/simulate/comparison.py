"""The simulation beside a run of `make bench`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dev.simulate.figures import Calibration
from dev.simulate.pipeline import drain
from dev.simulate.plan import setup_of_bench

MESSAGES = 40_000


@dataclass(frozen=True)
class Compared:
    """A measured number of messages a second, beside the simulated one."""

    functions: int
    batch: int
    measured: float
    simulated: float
    fitted: bool

    @property
    def difference(self) -> float:
        """The difference as a share of the measured number."""
        return self.simulated / self.measured - 1


def compared(bench: Mapping[str, Any], calibration: Calibration) -> list[Compared]:
    """Simulate each row of the throughput, and batches of a single function, as measured."""
    rows = bench["throughput"]["rows"]
    best = {
        batch: max(row["messages_s"] for row in rows if row["batch"] == batch)
        for batch in {row["batch"] for row in rows}
    }
    measured = [
        (
            row["functions"],
            row["batch"],
            row["messages_s"],
            row["functions"] == 1 or row["messages_s"] == best[row["batch"]],
        )
        for row in rows
    ]
    measured += [
        (1, row["messages"], row["messages"] / row["login_etl_ms"] * 1000, False)
        for row in bench["speed"]["rows"]
        if row["messages"] not in best
    ]
    return [
        Compared(
            functions,
            batch,
            messages_s,
            drain(setup_of_bench(calibration, functions, batch), MESSAGES),
            fitted,
        )
        for functions, batch, messages_s, fitted in sorted(measured)
    ]
