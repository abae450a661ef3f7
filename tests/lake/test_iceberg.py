"""deploy/lake/iceberg.py keeps an Iceberg table equal to user_logins, day by day."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars
import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from dev import ROOT
from dev.emulator import REGION
from dev.lake import PREFIX
from lake import readers, sample, summary
from lake.servers import Export

PROGRAM = ROOT / "deploy" / "lake" / "iceberg.py"
TABLE = "lake.user_logins"


class Iceberg:
    """An Iceberg table in a catalog, and the program that writes it."""

    def __init__(self, export: Export, properties: dict[str, str]) -> None:
        """Remember the catalog's properties."""
        self.export = export
        self.properties = properties

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the program."""
        named = {
            f"PYICEBERG_CATALOG__LAKE__{name.upper().replace('.', '__').replace('-', '_')}": value
            for name, value in self.properties.items()
        }
        region = {"AWS_DEFAULT_REGION": REGION}
        return self.export.lake.emulator.environment | region | named

    @property
    def command(self) -> list[str | Path]:
        """The command that replaces the days that have changed."""
        source = f"s3://{self.export.lake.bucket}/{PREFIX}"
        return [sys.executable, PROGRAM, "--source", source, "--table", TABLE]

    def replace(self) -> list[str]:
        """Run the program; return the days that it replaced."""
        done = subprocess.run(
            self.command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return [line.removeprefix("replaced ") for line in lines if line.startswith("replaced ")]

    def table(self) -> Table:
        """Open the table."""
        return load_catalog("lake", **self.properties).load_table(TABLE)

    def assert_equal(self) -> None:
        """Compare the Iceberg table with user_logins, by pyiceberg and by polars."""
        with self.export.connect() as owner:
            expected = {day: each for day, each in summary.of_table(owner).items() if each.rows}
        table = self.table()
        arrow = table.scan().to_arrow()
        assert readers.of_arrow(arrow, "create_date") == expected
        frame = polars.scan_iceberg(table, storage_options=readers.s3_options(self.export.lake))
        assert readers.of_polars(frame, "create_date") == expected


def in_file(export: Export, folder: Path) -> Iceberg:
    """Use a catalog that is an SQLite file, and files as data."""
    return Iceberg(
        export,
        {
            "type": "sql",
            "uri": f"sqlite:///{folder}/catalog.db",
            "warehouse": f"file://{folder}/warehouse",
        },
    )


def in_glue(export: Export, _folder: Path) -> Iceberg:
    """Use the Glue catalog of the emulator, and objects as data."""
    emulator = export.lake.emulator
    keys = {"access-key-id": emulator.key, "secret-access-key": emulator.key, "region": REGION}
    return Iceberg(
        export,
        {
            "type": "glue",
            "warehouse": f"s3://{export.lake.bucket}/iceberg",
            "glue.endpoint": emulator.endpoint,
            "s3.endpoint": emulator.endpoint,
            **{
                f"{service}.{name}": value
                for service in ("glue", "s3")
                for name, value in keys.items()
            },
        },
    )


def write(export: Export, age: int, *names: str) -> str:
    """Write logins of the day before this many days; return the day."""
    day = sample.today() - timedelta(age)
    with export.connect() as owner:
        sample.write(owner, [sample.login(name, day) for name in names])
    return str(day)


@pytest.mark.parametrize("catalog", [in_file, in_glue], ids=["file", "glue"])
def test_days_are_replaced_when_they_change(
    export: Export, tmp_path: Path, catalog: Callable[[Export, Path], Iceberg]
) -> None:
    iceberg = catalog(export, tmp_path)
    days = [write(export, age, "anna", "boris") for age in (5, 4, 3)]
    export.succeed()

    assert iceberg.replace() == days
    iceberg.assert_equal()
    assert iceberg.replace() == []

    write(export, 4, "late")
    with export.connect() as owner:
        owner.execute("DELETE FROM user_logins WHERE create_date = %s", [days[0]])
        owner.execute("SELECT lake.mark_changed(%s, 2)", [days[0]])
    export.succeed()

    assert iceberg.replace() == days[:2]
    iceberg.assert_equal()


def test_odd_logins_are_equal(export: Export, tmp_path: Path) -> None:
    with export.connect() as owner:
        for day in [sample.today(), *sample.OLDEST_DAYS]:
            sample.write(owner, sample.hostile(day), in_ledger=day.year > 2000)
    export.succeed()
    iceberg = in_file(export, tmp_path)

    iceberg.replace()

    iceberg.assert_equal()


def test_two_runs_at_once_write_no_row_twice(export: Export, tmp_path: Path) -> None:
    iceberg = in_file(export, tmp_path)
    for age in range(4):
        write(export, age, "anna", "boris")
    export.succeed()
    iceberg.replace()
    for age in range(4):
        write(export, age, "late")
    export.succeed()

    runs = [subprocess.Popen(iceberg.command, env=iceberg.environment) for _ in range(2)]

    assert [run.wait() for run in runs] == [0, 0]
    iceberg.assert_equal()


def test_object_of_another_day_is_refused(export: Export, tmp_path: Path) -> None:
    day = write(export, 1, "anna")
    export.succeed()
    iceberg, lake = in_file(export, tmp_path), export.lake
    source = {"Bucket": lake.bucket, "Key": f"{PREFIX}dt={day}/part-00000.parquet"}
    misplaced = f"{PREFIX}dt=2026-01-01/part-00000.parquet"
    lake.s3.copy_object(Bucket=lake.bucket, Key=misplaced, CopySource=source)

    done = subprocess.run(
        iceberg.command, env=iceberg.environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert f"{misplaced} has logins of another day" in done.stderr
