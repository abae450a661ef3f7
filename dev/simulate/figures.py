"""The figures of figures.toml and prices.toml, and what a batch needs by a run of `make bench`."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dev import ROOT

FILE = Path(__file__).with_name("figures.toml")
CPU_BATCH = 1_000

_DATA = tomllib.loads(FILE.read_text())
_PRICES = tomllib.loads((ROOT / "dev" / "prices.toml").read_text())
FIGURES = SimpleNamespace(
    **_PRICES["measured"],
    **_PRICES["estimated"],
    **_DATA["measured"],
    **_DATA["documented"],
    **_DATA["estimated"],
)


@dataclass(frozen=True)
class Line:
    """Seconds of a batch: for the batch itself, and for each of its messages."""

    batch: float
    message: float

    def __call__(self, messages: float) -> float:
        """Return the seconds of a batch of this size."""
        return self.batch + self.message * messages

    @classmethod
    def through(cls, seconds: Mapping[int, float]) -> "Line":
        """Draw the line through the smallest and the largest batch."""
        small, large = min(seconds), max(seconds)
        message = (seconds[large] - seconds[small]) / (large - small)
        return cls(seconds[small] - message * small, message)


@dataclass(frozen=True)
class Calibration:
    """What a batch needs: the time if nothing else runs, and the processors of all programs."""

    cores: int
    alone: Line
    processor: Line
    # Of the processors' time, the part of the function; the database needs the rest.
    function_share: float


def read_bench(file: Path = FILE) -> dict[str, Any]:
    """Read a run of `make bench`: figures.toml, or a results.json."""
    bench = (json if file.suffix == ".json" else tomllib).loads(file.read_text())
    if missing := {"speed", "throughput"} - bench.keys():
        raise SystemExit(f"{file} lacks {' and '.join(sorted(missing))}: run `make bench` in full")
    return bench


def calibrate(bench: Mapping[str, Any]) -> Calibration:
    """Fit the lines to the rows of the throughput.

    A single function has the machine for itself. The largest number of messages a second is that of
    a machine whose processors do nothing else.
    """
    cores = bench["machine"]["cores"]
    rows = bench["throughput"]["rows"]
    alone = {
        row["batch"]: row["batch"] / row["messages_s"] for row in rows if row["functions"] == 1
    }
    best: dict[int, float] = {}
    for row in rows:
        best[row["batch"]] = max(row["messages_s"], best.get(row["batch"], 0))
    processor = Line.through({batch: cores * batch / most for batch, most in best.items()})
    [function_us] = [
        row["login_etl_cpu_us"] for row in bench["speed"]["rows"] if row["messages"] == CPU_BATCH
    ]
    share = function_us * 1e-6 * CPU_BATCH / processor(CPU_BATCH)
    return Calibration(cores, Line.through(alone), processor, share)
