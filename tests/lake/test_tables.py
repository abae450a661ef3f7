"""The tables that deploy/lake has for other engines have the columns of the files."""

import re
from time import sleep

import pytest

from dev import ROOT
from dev.lake import BUCKET, Lake
from dev.local_system import Services
from lake import sample, servers, summary
from lake.summary import COLUMNS

FOLDER = ROOT / "deploy" / "lake"
INTEGERS = {"INT", "INTEGER", "INT64"}
ENGINES = ["athena", "bigquery", "redshift", "spark"]


@pytest.mark.parametrize("engine", ENGINES)
def test_table_has_the_columns_of_the_files(engine: str) -> None:
    text = (FOLDER / f"{engine}.sql").read_text()

    [definition] = re.findall(
        r"^CREATE [^\n]*TABLE [^\n]*\($\n(.*?)^\)", text, re.MULTILINE | re.DOTALL
    )

    columns = dict(line.strip().rstrip(",").split() for line in definition.splitlines())
    columns.pop("dt", None)
    kinds = [kind.upper().partition("(")[0] for kind in columns.values()]
    assert tuple(columns) == COLUMNS
    assert set(kinds[:5]) <= {"STRING", "VARCHAR"}
    assert kinds[5] in INTEGERS
    assert kinds[6] == "DATE"


def test_athena_reads_the_shipped_table(services: Services) -> None:
    export = servers.create(services)
    lake = Lake(services.postgres, services.emulator, export.lake.database)
    export = servers.Export(lake)
    with export.connect() as owner:
        sample.write(owner, sample.hostile(sample.today()))
        expected = summary.of_table(owner)
    export.succeed()
    services.emulator.client("glue").create_database(DatabaseInput={"Name": "default"})

    athena(services, (FOLDER / "athena.sql").read_text().rstrip().removesuffix(";"))

    today = str(sample.today())
    aggregates = "count(*), count(user_id), min(create_date), max(masked_device_id)"
    rows = athena(services, f"SELECT {aggregates} FROM user_logins WHERE dt = '{today}'")
    day = expected[today]
    assert rows == [[str(day.rows), str(day.rows - day.nulls[0]), today, day.greatest[3]]]


def athena(services: Services, query: str) -> list[list[str | None]]:
    """Run a query with Athena, which is DuckDB in the emulator; return its rows."""
    client = services.emulator.client("athena")
    started = client.start_query_execution(
        QueryString=query,
        QueryExecutionContext={"Database": "default"},
        ResultConfiguration={"OutputLocation": f"s3://{BUCKET}/results/"},
    )
    query_id = {"QueryExecutionId": started["QueryExecutionId"]}
    while True:
        status = client.get_query_execution(**query_id)["QueryExecution"]["Status"]
        if status["State"] not in ("QUEUED", "RUNNING"):
            break
        sleep(0.1)
    assert status["State"] == "SUCCEEDED", status
    rows = client.get_query_results(**query_id)["ResultSet"]["Rows"]
    return [[value.get("VarCharValue") for value in row["Data"]] for row in rows[1:]]
