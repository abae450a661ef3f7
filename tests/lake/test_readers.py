"""Every reader finds in the lake what the table has, to the last bit."""

import re
from typing import Any

import duckdb
import polars
import pyarrow
import pyarrow.parquet
import pytest
from e2e.documented import sql

from dev import ROOT
from dev.lake import PREFIX, count
from dev.local_system import Services
from lake import sample, servers, summary
from lake.readers import READERS, Objects
from lake.servers import Export
from lake.summary import COLUMNS, Summary

ROWS = 60_000
ROW_GROUP = 131_072
SCHEMA = pyarrow.schema(
    [
        ("user_id", pyarrow.string()),
        ("device_type", pyarrow.string()),
        ("masked_ip", pyarrow.string()),
        ("masked_device_id", pyarrow.string()),
        ("locale", pyarrow.string()),
        ("app_version", pyarrow.int32()),
        ("create_date", pyarrow.date32()),
    ]
)


@pytest.fixture(scope="module")
def filled(services: Services) -> Export:
    """Export a table with odd logins; it has a day of more than one row group."""
    filled = servers.create(services)
    with filled.connect() as owner:
        sample.fill(owner, ROWS)
        day = sample.today()
        many = (sample.login(f"user-{number}", day) for number in range(ROW_GROUP + 10))
        sample.write(owner, many)
    return filled


@pytest.fixture(scope="module")
def printed(filled: Export) -> str:
    """Run the export; return what it printed."""
    return filled.succeed()


@pytest.fixture(scope="module")
def objects(filled: Export, printed: str, tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """Download the objects."""
    assert printed
    return Objects(filled.lake, filled.lake.download(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def expected(filled: Export) -> Summary:
    """Summarize the table."""
    with filled.connect() as owner:
        return summary.of_table(owner)


@pytest.mark.parametrize("reader", READERS)
def test_reader_agrees_with_the_table(objects: Objects, expected: Summary, reader: str) -> None:
    found = READERS[reader](objects)

    assert found == expected


def test_readers_agree_on_columns_and_types(objects: Objects) -> None:
    [file, *_] = sorted(objects.days.glob("*/*.parquet"))
    described = duckdb.execute(
        f"DESCRIBE FROM read_parquet('{file}', hive_partitioning = false)"
    ).fetchall()

    assert pyarrow.parquet.read_schema(file) == SCHEMA
    assert [(name, kind) for name, kind, *_ in described] == [
        *((name, "VARCHAR") for name in COLUMNS[:5]),
        ("app_version", "INTEGER"),
        ("create_date", "DATE"),
    ]
    assert polars.read_parquet_schema(file) == {
        **dict.fromkeys(COLUMNS[:5], polars.String),
        "app_version": polars.Int32,
        "create_date": polars.Date,
    }


def test_days_are_folders_of_one_object(objects: Objects, expected: Summary) -> None:
    assert sorted(objects.lake.objects()) == sorted(
        f"{PREFIX}dt={day}/part-00000.parquet" for day in expected
    )


def test_files_are_compressed_in_small_row_groups(objects: Objects, expected: Summary) -> None:
    for day in expected:
        file = pyarrow.parquet.ParquetFile(objects.days / f"dt={day}" / "part-00000.parquet")
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]

        assert file.metadata.num_rows == expected[day].rows
        assert all(group.num_rows <= ROW_GROUP for group in groups)
        assert {group.column(0).compression for group in groups} == {"ZSTD"}


def test_books_agree_with_objects(filled: Export, objects: Objects, expected: Summary) -> None:
    books = filled.books()

    assert {day: book.rows for day, book in books.items()} == count(objects.days)
    assert {f"{PREFIX}dt={day}/part-00000.parquet": book.bytes for day, book in books.items()} == (
        objects.lake.objects()
    )
    for day, book in books.items():
        assert book.ledger_entries in (None, expected[day].rows)


def test_output_and_logs_have_no_value(filled: Export, printed: str) -> None:
    again = filled.run(RUST_LOG="trace")

    said = printed + again.stdout + again.stderr
    login = sample.login("user-1", sample.today())
    for value in (login.user_id, login.masked_ip, login.masked_device_id):
        assert value not in said


def test_days_without_count_are_said(filled: Export, printed: str) -> None:
    without = [day for day, book in filled.books().items() if book.ledger_entries is None]

    assert "without count" in printed
    assert {str(day) for day in sample.OLDEST_DAYS} < set(without)


def test_documented_queries_answer(filled: Export, objects: Objects) -> None:
    documented = "s3://login-etl-lake/user_logins/"
    from_duckdb = sql("DuckDB", "lake.md").replace(documented, f"{objects.days}/")
    days = duckdb.execute(from_duckdb.replace("2026-11-01", str(sample.today()))).fetchall()
    text = (ROOT / "docs" / "lake.md").read_text()
    programs = re.findall(r"^```python\n(.+?)^```", text, re.DOTALL | re.MULTILINE)
    found = [_run(program.replace(documented, f"{objects.days}/")) for program in programs]
    with filled.connect() as owner:
        books = owner.execute(sql("When a day is written", "lake.md")).fetchall()

    devices = {sample.device(f"user-{number}") for number in (0, 1, ROW_GROUP)}
    assert [day for day, _, _ in days] == [sample.today()]
    assert devices < set(found[0]["devices"]["masked_device_id"].to_pylist())
    assert devices < set(found[1]["users"]["masked_device_id"].to_list())
    assert books[0][0] == sample.today()


def _run(program: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(program, names)
    return names


def test_empty_table_exports_nothing(export: Export) -> None:
    export.succeed()

    assert export.lake.objects() == {}
    assert export.books() == {}
