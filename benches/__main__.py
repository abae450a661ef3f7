"""Measure the release build, end to end: the command behind `make bench`."""

import argparse
import os
import sys

from benches import RESULTS, bench_servers, measure, plot, report
from dev import processes
from dev.terminal import console

MEASUREMENTS = {
    one.__name__: one
    for one in (
        measure.speed,
        measure.cold_start,
        measure.growth,
        measure.scaling,
        measure.round_trips,
    )
}


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; do not trust it")
    parser.add_argument("only", nargs="*", help=f"of {', '.join(MEASUREMENTS)}, instead of all")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(MEASUREMENTS):
        parser.error(f"not measured: {', '.join(unknown)}")
    processes.end_in_good_order()
    effort = measure.QUICK if arguments.quick else measure.FULL
    try:
        bench(arguments.only or list(MEASUREMENTS), effort)
    except KeyboardInterrupt as signalled:
        return 128 + signalled.args[0]
    return 0


def bench(names: list[str], effort: measure.Effort) -> None:
    """Measure, show and save."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for log in RESULTS.glob("*.log"):
        log.unlink()
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with console.status("Starting the servers") as status, bench_servers.running() as servers:
        results = {"machine": machine | {"postgres": servers.postgres_version}}
        for name in names:
            status.update(f"Measuring {name.replace('_', ' ')}")
            results[name] = MEASUREMENTS[name](servers, effort)
    report.show(results)
    report.save(results)
    console.print(f"Also in {RESULTS}: results.json and results.md")
    # The plot is part of the README, so nothing less than everything changes it.
    if effort is measure.FULL and "speed" in results:
        plot.save(results["speed"])


if __name__ == "__main__":
    sys.exit(main())
