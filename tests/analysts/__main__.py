"""Test the API with many random requests. The command behind `make schemathesis`."""

import argparse
import sys
from itertools import count

from analysts import contract, server
from dev import TARGET, processes
from dev.terminal import console

RESULTS = TARGET / "schemathesis"
# Requests that Schemathesis makes, about, for each of its examples of an operation.
CASES_OF_AN_EXAMPLE = 20
# A run of this many ends within minutes, so that progress shows.
MOST_EXAMPLES = 200


def main() -> int:
    """Run Schemathesis with one seed after another until it has sent this many requests."""
    parser = argparse.ArgumentParser(prog="analysts", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="the least number of requests")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    arguments = parser.parse_args()
    processes.exit_on_signals()
    try:
        with server.database(RESULTS) as database, server.running(database) as api:
            return test(api, arguments.cases, arguments.seed)
    except KeyboardInterrupt as signalled:
        return 128 + next(iter(signalled.args), 0)


def test(api: server.Api, cases: int, first_seed: int) -> int:
    """Run Schemathesis until it has sent this many requests, or until a check fails."""
    sent, examples = 0, min(MOST_EXAMPLES, cases // CASES_OF_AN_EXAMPLE + 1)
    for seed in count(first_seed):
        directory = RESULTS / f"schemathesis-{seed}"
        report = contract.run(api, directory, examples, seed)
        sent += report["test_cases"]["generated"]
        console.print(f"seed {seed}: {sent} of {cases} cases")
        if report["exit_code"] != 0:
            console.print((directory / "output.txt").read_text(), markup=False)
            return 1
        if sent >= cases:
            console.print(f"{sent} cases, 0 failures")
            return 0
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(main())
