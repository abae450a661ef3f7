"""A killed export loses nothing and doubles nothing; `make test-lake KILLS=…` kills more."""

import subprocess
from pathlib import Path

from lake import kills, sample, summary
from lake.readers import READERS, Objects
from lake.servers import Export

ROWS = 20_000
KILLS = 5


def test_killed_runs_lose_and_double_nothing(export: Export, tmp_path: Path) -> None:
    with export.connect() as owner:
        sample.fill(owner, ROWS)

    for done in kills.kill(export, KILLS, seed=1):
        last = done

    with export.connect() as owner:
        expected = summary.of_table(owner)
    objects = Objects(export.lake, export.lake.download(tmp_path))
    for name, read in READERS.items():
        assert read(objects) == expected, name
    late = kills.late_rows(list(objects.days.glob("*/*.parquet")))
    assert late == {f"late-{number + 1}": 1 for number in range(last.late_messages)}


def test_second_run_beside_the_first_exports_nothing_twice(export: Export, tmp_path: Path) -> None:
    with export.connect() as owner:
        sample.fill(owner, ROWS)

    first = subprocess.Popen([export.program], env=export.lake.environment)
    second = export.run()
    assert first.wait() == 0 or second.returncode == 0

    export.succeed()
    with export.connect() as owner:
        expected = summary.of_table(owner)
    assert READERS["duckdb"](Objects(export.lake, export.lake.download(tmp_path))) == expected
