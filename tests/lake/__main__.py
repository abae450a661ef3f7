"""Kill the export many times; compare the lake with the table by all readers.

The command behind `make test-lake`.
"""

import argparse
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from dev import TARGET, processes
from dev.lake import program
from dev.terminal import console
from lake import kills, readers, sample, servers, summary
from lake.readers import READERS, Objects
from lake.servers import Export
from lake.summary import Summary
from lake.test_iceberg import in_file

RESULTS = TARGET / "lake-kills"
# The file of this many logins is uploaded in two parts.
LARGE_DAY = 200_000
ALL_READERS = {**READERS, "spark": readers.with_spark}


def main() -> int:
    """Run the test with the options of the command line."""
    parser = argparse.ArgumentParser(prog="lake", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many runs to kill")
    parser.add_argument("--rows", type=int, default=1_000_000, help="logins in the table")
    parser.add_argument("--seed", type=int, default=1, help="of logins and kills")
    arguments = parser.parse_args()
    processes.exit_on_signals()
    try:
        with servers.running(RESULTS) as services:
            export = servers.create(services, program(RESULTS))
            return test(export, arguments.kills, arguments.rows, arguments.seed)
    except KeyboardInterrupt as signalled:
        return 128 + next(iter(signalled.args), 0)


def test(export: Export, number: int, rows: int, seed: int) -> int:
    """Kill the export, and compare; return how many readers disagree with the table."""
    console.print(f"Writing {rows:,} logins")
    with export.connect() as owner:
        sample.fill(owner, rows, seed)
        day = sample.today() - timedelta(2)
        sample.write(owner, (sample.login(f"user-{each}", day) for each in range(LARGE_DAY)))
    done = kills.Kills()
    for done in kills.kill(export, number, seed):
        if done.killed % 10 == 0:
            console.print(f"{done.killed} of {number} runs killed, {done.ended} ended before")
    with export.connect() as owner:
        expected = summary.of_table(owner)
    with TemporaryDirectory() as folder:
        objects = Objects(export.lake, export.lake.download(Path(folder)))
        late = kills.late_rows(list(objects.days.glob("*/*.parquet")))
        iceberg = in_file(export, Path(folder))
        iceberg.replace()
        metadata = Path(iceberg.table().metadata_location.removeprefix("file://"))
        reads = {name: partial(read, objects) for name, read in ALL_READERS.items()}
        reads["Iceberg by duckdb"] = partial(readers.iceberg_with_duckdb, metadata)
        wrong = [name for name, read in reads.items() if not _is_equal(name, read, expected)]
    lost = done.late_messages - len(late)
    doubled = sum(count > 1 for count in late.values())
    console.print(
        f"{done.killed} runs killed; of {done.late_messages} late messages "
        f"{lost} lost, {doubled} doubled; {len(wrong)} readers disagree with the table"
    )
    return lost + doubled + len(wrong)


def _is_equal(name: str, read: Callable[[], Summary], expected: Summary) -> bool:
    """Compare what a reader finds with the table, and print how many rows it has read."""
    started = perf_counter()
    found = read()
    rows = sum(day.rows for day in found.values())
    console.print(f"{name}: {rows:,} rows of {len(found)} days in {perf_counter() - started:.1f} s")
    return found == expected


if __name__ == "__main__":
    sys.exit(main())
