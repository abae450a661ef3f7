"""Changes the code in one place at a time, and verifies that the tests notice: `make mutants`.

A mutant is a changed copy of the code. There are two stages, because most mutants need no database:
the unit tests of a package take 2 seconds to build and run, all tests take 10 times as long. Only
the mutants that the unit tests miss get all tests.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from dev import ROOT, TARGET

SETTINGS = ROOT / ".cargo" / "mutants.toml"
DIFF = TARGET / "mutants.diff"
UNIT_TESTS = TARGET / "mutants-unit"

# Exit statuses of cargo-mutants: some mutants were missed; the tests did not end on some.
MISSED, TIMED_OUT = 2, 3


def main() -> int:
    """Run both stages, and return the status of the last."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--shard", help="only the part k/n of the mutants, from 0/n to n-1/n")
    parser.add_argument("--base", help="only lines that differ from this revision")
    arguments = parser.parse_args()
    check_permitted()
    selection = ["--shard", arguments.shard] if arguments.shard else []
    if arguments.base:
        selection += ["--in-diff", str(write_diff(arguments.base))]

    status = cargo_mutants(
        "--test-workspace=false", "--cargo-arg=--lib", "--output", str(UNIT_TESTS), *selection
    )
    if status not in {MISSED, TIMED_OUT}:
        return status
    remaining = uncaught(UNIT_TESTS)
    names = [f"--re=^{escaped(name)}$" for name in remaining]
    # The mutants that delete a field pass every filter of names, so the files are named too.
    files = sorted({f"--file={name.partition(':')[0]}" for name in remaining})
    tests = [f"--cargo-arg={kind}" for kind in ("--lib", "--bins", "--tests")]
    return cargo_mutants("--test-workspace=true", *tests, *files, *names)


def check_permitted() -> None:
    """Print how many mutants may live; fail if a pattern matches no mutant."""
    settings = tomllib.loads(SETTINGS.read_text())
    patterns = settings["exclude_re"]
    files = [f"--exclude={glob}" for glob in settings["exclude_globs"]]
    listing = subprocess.run(
        ["cargo", "mutants", "--list", "--no-config", "--workspace", *files],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    names = listing.stdout.splitlines()
    if unused := [one for one in patterns if not any(re.search(one, name) for name in names)]:
        raise SystemExit(f"{SETTINGS}: no mutant matches {unused}")
    permitted = sum(any(re.search(one, name) for one in patterns) for name in names)
    print(f"{len(names)} mutants; {permitted} of them may live", flush=True)


def write_diff(base: str) -> Path:
    """Write what changed since a revision, uncommitted changes included."""
    TARGET.mkdir(exist_ok=True)
    with DIFF.open("w") as file:
        subprocess.run(["git", "diff", base, "--", "*.rs"], cwd=ROOT, check=True, stdout=file)
    return DIFF


def cargo_mutants(*arguments: str) -> int:
    """Run cargo-mutants, and return its exit status."""
    return subprocess.run(
        ["cargo", "mutants", "--workspace", *arguments], cwd=ROOT, check=False
    ).returncode


def uncaught(output: Path) -> list[str]:
    """Name the mutants that no test noticed, or on which the tests did not end."""
    lists = [output / "mutants.out" / name for name in ("missed.txt", "timeout.txt")]
    return [name for each in lists for name in each.read_text().splitlines()]


def escaped(text: str) -> str:
    """Escape a text for the regular expressions of Rust, which refuse some escapes of Python's."""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


if __name__ == "__main__":
    sys.exit(main())
