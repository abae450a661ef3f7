"""Readers of the lake that were not written here. Each computes the summary of all days."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow
import pyarrow.compute
import pyarrow.dataset
from pyarrow.fs import S3FileSystem

from dev import ROOT, TARGET
from dev.emulator import REGION
from dev.lake import BUCKET, PREFIX, Lake
from lake import summary
from lake.summary import COLUMNS, NULL, SEPARATOR, Day, Summary

SPARK_PYTHON = TARGET / "tools" / "spark" / "bin" / "python"
SPARK_SQL = ROOT / "deploy" / "lake" / "spark.sql"
# The bucket and the folder in the files of deploy/lake.
DOCUMENTED = f"{BUCKET}/{PREFIX}"


@dataclass(frozen=True)
class Objects:
    """The objects of a lake: in the emulator, and as files in a folder."""

    lake: Lake
    days: Path

    @property
    def files(self) -> str:
        """A pattern that all files match."""
        return str(self.days / "*" / "*.parquet")

    @property
    def url(self) -> str:
        """The address of all days."""
        return f"{self.lake.bucket}/{PREFIX}"


def with_duckdb(objects: Objects) -> Summary:
    """Summarize with DuckDB, from files: it can download no extension that reads S3."""
    source = f"read_parquet('{objects.files}', hive_partitioning = true)"
    number = "CAST('0x' || {} AS BIGINT)".format
    return summary.of_rows(
        duckdb.execute(summary.query(source, "CAST(dt AS VARCHAR)", number)).fetchall()
    )


def with_pyarrow(objects: Objects) -> Summary:
    """Summarize with pyarrow, from S3."""
    return of_arrow(arrow_dataset(objects).to_table())


def arrow_dataset(objects: Objects) -> pyarrow.dataset.Dataset:
    """Open the lake with pyarrow, from S3."""
    emulator = objects.lake.emulator
    filesystem = S3FileSystem(
        access_key=emulator.key,
        secret_key=emulator.key,
        region=REGION,
        endpoint_override=emulator.endpoint,
    )
    return pyarrow.dataset.dataset(
        objects.url, filesystem=filesystem, format="parquet", partitioning="hive"
    )


def of_arrow(table: pyarrow.Table, day: str = "dt") -> Summary:
    """Summarize an arrow table by a column with the day."""
    text = pyarrow.string()
    texts = {name: table[name].cast(text) for name in COLUMNS}
    filled = [pyarrow.compute.fill_null(texts[name], NULL) for name in COLUMNS]
    rows = pyarrow.compute.binary_join_element_wise(*filled, SEPARATOR).to_pylist()
    days = table[day].cast(text)
    hashes = summary.sums_of_hashes(days.to_pylist(), rows)
    only_null = pyarrow.compute.CountOptions(mode="only_null")
    aggregates = [
        *((name, "count", only_null) for name in COLUMNS),
        *((name, "min") for name in COLUMNS),
        *((name, "max") for name in COLUMNS),
    ]
    named = pyarrow.table({"day": days, **{name: table[name] for name in COLUMNS}})
    grouped = named.group_by("day").aggregate([([], "count_all"), *aggregates])
    return {
        row["day"]: Day(
            row["count_all"],
            hashes[row["day"]],
            tuple(row[f"{name}_count"] for name in COLUMNS),
            tuple(_text(row[f"{name}_min"]) for name in COLUMNS),
            tuple(_text(row[f"{name}_max"]) for name in COLUMNS),
        )
        for row in grouped.to_pylist()
    }


def with_polars(objects: Objects) -> Summary:
    """Summarize with polars, from S3."""
    frame = polars.scan_parquet(
        f"s3://{objects.url}",
        hive_partitioning=True,
        hive_schema={"dt": polars.String},
        storage_options=s3_options(objects.lake),
    )
    return of_polars(frame, "dt")


def s3_options(lake: Lake) -> dict[str, str]:
    """Return the options with which polars reads from the emulator."""
    return {
        "aws_endpoint_url": lake.emulator.endpoint,
        "aws_allow_http": "true",
        "aws_region": REGION,
        "aws_access_key_id": lake.emulator.key,
        "aws_secret_access_key": lake.emulator.key,
    }


def of_polars(frame: polars.LazyFrame, day: str) -> Summary:
    """Summarize a frame of polars by a column with the day."""
    filled = [polars.col(name).cast(polars.String).fill_null(NULL) for name in COLUMNS]
    days = polars.col(day).cast(polars.String)
    rows = frame.select(days, polars.concat_str(filled, separator=SEPARATOR).alias("row")).collect()
    hashes = summary.sums_of_hashes(rows[day].to_list(), rows["row"].to_list())
    grouped = frame.group_by(days.alias("day")).agg(
        polars.len().alias("rows"),
        *(polars.col(name).null_count().alias(f"{name} nulls") for name in COLUMNS),
        *(polars.col(name).min().alias(f"{name} least") for name in COLUMNS),
        *(polars.col(name).max().alias(f"{name} greatest") for name in COLUMNS),
    )
    return {
        row["day"]: Day(
            row["rows"],
            hashes[row["day"]],
            tuple(row[f"{name} nulls"] for name in COLUMNS),
            tuple(_text(row[f"{name} least"]) for name in COLUMNS),
            tuple(_text(row[f"{name} greatest"]) for name in COLUMNS),
        )
        for row in grouped.collect().to_dicts()
    }


def with_spark(objects: Objects) -> Summary:
    """Summarize with Spark, from files, through the table of deploy/lake/spark.sql."""
    definitions = SPARK_SQL.read_text().replace(f"s3://{DOCUMENTED}", f"{objects.days}/")
    number = "CAST(conv({}, 16, 10) AS DECIMAL(38, 0))".format
    query = summary.query("user_logins", "dt", number, "STRING")
    return _elsewhere("spark_reader.py", definitions, query)


def iceberg_with_duckdb(metadata: Path) -> Summary:
    """Summarize an Iceberg table with DuckDB, from a metadata file."""
    number = "CAST('0x' || {} AS BIGINT)".format
    source = f"iceberg_scan('{metadata}')"
    query = summary.query(source, "CAST(create_date AS VARCHAR)", number)
    return _elsewhere("duckdb_iceberg.py", query)


def _elsewhere(script: str, *arguments: str) -> Summary:
    """Run a script of this folder with the large readers; it prints the rows as JSON."""
    program = Path(__file__).with_name(script)
    done = subprocess.run(
        [SPARK_PYTHON, program, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise RuntimeError(f"{script} failed")
    return summary.of_json(done.stdout)


def _text(value: Any) -> str | None:  # noqa: ANN401 (the type depends on the column)
    return None if value is None else str(value)


READERS: Mapping[str, Callable[[Objects], Summary]] = {
    "duckdb": with_duckdb,
    "pyarrow": with_pyarrow,
    "polars": with_polars,
}
