"""Measure the release build, end to end: the command behind `make bench`.

All measurements take about 30 minutes on 2 idle cores, with --quick about 4 minutes. Most of it is
the roll-up of 10,000,000 logins for the measurements `analysts…`. Before them, `make bench` builds
the programs and runs the Rust benchmarks of the stages. Nothing else should run on the machine: the
functions, Postgres and this benchmark share its cores.
"""

import argparse
import os
import sys
from time import monotonic

from benches import RESULTS, bench_servers, measure, plot, report
from benches.measure import MEASUREMENTS
from dev import processes
from dev.terminal import console


def main() -> int:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(
        prog="benches",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: shows that it runs, the figures are noise"
    )
    parser.add_argument("only", nargs="*", help=f"instead of all: {', '.join(MEASUREMENTS)}")
    arguments = parser.parse_args()
    if unknown := set(arguments.only) - set(MEASUREMENTS):
        parser.error(f"no such measurement: {', '.join(unknown)}")
    processes.exit_on_signals()
    effort = measure.QUICK if arguments.quick else measure.FULL
    try:
        bench(arguments.only or list(MEASUREMENTS), effort)
    except KeyboardInterrupt as signalled:
        return 128 + signalled.args[0]
    return 0


def bench(names: list[str], effort: measure.Effort) -> None:
    """Measure, print and save."""
    started = monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for log in RESULTS.glob("*.log"):
        log.unlink()
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with console.status("Starting the servers") as status, bench_servers.running() as servers:
        results = {"machine": machine | {"postgres": servers.postgres_version}}
        for name in names:
            status.update(f"Measuring {name.replace('_', ' ')}")
            results[name] = MEASUREMENTS[name].run(servers, effort)
    report.show(results)
    report.save(results)
    console.print(
        f"Took {monotonic() - started:.0f} s. Saved in {RESULTS}: results.json, results.md"
    )
    # docs/performance.md shows this plot, so a quick run must not replace it.
    if effort is measure.FULL and "speed" in results:
        plot.save(results["speed"]["rows"], report.conditions(results, "speed"))


if __name__ == "__main__":
    sys.exit(main())
