"""The export of a stack: its function writes to its bucket, and only the named readers read there.

On MiniStack, which decides by the policies of the template. In the condition `aws:PrincipalArn` it
compares the ARN of a session, and AWS that of its role: so the reader here is a user. tests/lake/
tests the files themselves.
"""

import io
import json
from collections.abc import Iterator
from typing import Any

import boto3
import psycopg
import pyarrow.parquet
import pytest
from botocore.exceptions import ClientError

from dev import TARGET, emulator, logs, stack
from dev.emulator import REGION, Feature, Kind
from dev.local_system import Services, running_services
from dev.logins import Row, login, token
from e2e import commands, documented, emf, program
from e2e.cloudwatch import OF_EXPORT
from e2e.deployment import DATABASE, Database
from e2e.driver import wait_until
from e2e.test_costs import MEASURED

pytestmark = pytest.mark.needs(Feature.CUSTOM_RESOURCES | Feature.ROLES)

ACCOUNT = "000000000000"
READER, ADMINISTRATOR = "reader", "administrator"
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
USERS = ["a", "b", "c"]
IP = "203.0.113.7"
WRITES = [
    "INSERT INTO user_logins (user_id) VALUES ('x')",
    "DELETE FROM user_logins",
    "DELETE FROM processed_messages",
    "CREATE TABLE public.x ()",
    "CREATE TABLE lake.x ()",
    "SELECT write_logins()",
]


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Start an emulator that decides by policies also for the callers that the tests create."""

    def start(directory: Any, log: Any) -> emulator.Emulator:  # noqa: ANN401
        return emulator.start(Kind.MINISTACK, directory, log, is_private=False)

    with running_services(TARGET / "e2e-export", start_emulator=start) as services:
        yield services


@pytest.fixture(scope="module")
def reader(services: Services) -> Any:  # noqa: ANN401 - a client of boto3
    """Create the user in ExportReaders, who has no policy of its own; return its client for S3."""
    return _user(services, READER)


@pytest.fixture(scope="module")
def exported(services: Services, reader: Any) -> Iterator[Database]:  # noqa: ANN401, ARG001
    """Deploy a stack with an export, write logins, and run the event of the schedule."""
    arn = f"arn:aws:iam::{ACCOUNT}:user/{READER}"
    database = Database(services, Export="true", ExportReaders=arn)
    try:
        database.deploy()
        bodies = [login(user_id=user, ip=IP) for user in USERS]
        database.send(*map(json.dumps, bodies))
        wait_until(lambda: database.users() == USERS, database.users)
        assert _run(database) == {"days": 1, "rows": len(USERS), "days_left": 0}
        yield database
    finally:
        database.drop()


def test_reader_gets_columns_of_the_table_only(exported: Database, reader: Any) -> None:  # noqa: ANN401
    salt = stack.salt(exported.emulator, exported.stack)
    [(day,)] = exported.query("SELECT DISTINCT create_date FROM user_logins")
    [key] = _keys(exported, reader)

    body = reader.get_object(Bucket=exported.output("ExportBucketName"), Key=key)["Body"].read()

    table = pyarrow.parquet.read_table(io.BytesIO(body))
    assert key == f"user_logins/dt={day}/part-00000.parquet"
    # Neither the ledger nor anything else leaves the database.
    assert table.column_names == list(Row._fields)
    assert sorted(table["user_id"].to_pylist()) == USERS
    assert set(table["masked_ip"].to_pylist()) == {token(salt, "ip", IP)}


def test_unnamed_administrator_reads_no_file(
    exported: Database,
    services: Services,
    reader: Any,  # noqa: ANN401
) -> None:
    [key] = _keys(exported, reader)
    administrator = _user(services, ADMINISTRATOR, EVERYTHING)

    assert _keys(exported, administrator) == [key]
    with pytest.raises(ClientError, match="AccessDenied"):
        administrator.get_object(Bucket=exported.output("ExportBucketName"), Key=key)


def test_reader_writes_and_deletes_nothing(exported: Database, reader: Any) -> None:  # noqa: ANN401
    bucket = exported.output("ExportBucketName")
    [key] = _keys(exported, reader)

    for call in (
        lambda: reader.put_object(Bucket=bucket, Key=key, Body=b""),
        lambda: reader.delete_object(Bucket=bucket, Key=key),
        lambda: reader.delete_bucket_policy(Bucket=bucket),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            call()

    assert _keys(exported, reader) == [key]


def test_documented_command_runs_the_export(exported: Database) -> None:
    [command] = documented.commands("Run the export")
    values = {"ExportFunctionName": exported.output("ExportFunctionName")}

    printed = commands.run(exported.emulator, exported.stack.name, command, values)

    # Nothing has changed since the last run.
    assert '"days":0' in printed.replace(" ", "")


@pytest.mark.parametrize("statement", WRITES)
def test_login_of_export_writes_nothing(exported: Database, statement: str) -> None:
    rows = exported.query("SELECT count(*) FROM user_logins")
    password = json.loads(_secret(exported))["password"]

    with psycopg.connect(exported.postgres.url("login_export", password, DATABASE)) as session:
        session.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.Error):
            session.execute(statement)

    assert exported.query("SELECT count(*) FROM user_logins") == rows


def test_metrics_of_graphs_and_costs_are_written(exported: Database) -> None:
    def metrics() -> list[emf.Metric]:
        lines = [line for line in _lines(exported) if '"_aws"' in line]
        return [metric for line in lines for metric in emf.metrics(logs.fields(line))]

    def names() -> set[tuple[str, str, tuple[str, ...]]]:
        return {(one.namespace, one.name, tuple(sorted(one.dimensions))) for one in metrics()}

    wait_until(lambda: names() >= OF_EXPORT, names)
    charged = {(metric.name, json.dumps(metric.dimensions)) for metric in metrics()}
    assert len(charged) == MEASURED["export_metrics"]


def test_export_logs_no_user_and_no_token(exported: Database) -> None:
    salt = stack.salt(exported.emulator, exported.stack)

    wait_until(lambda: any('"_aws"' in line for line in _lines(exported)), lambda: _lines(exported))

    text = "\n".join(_lines(exported))
    assert token(salt, "ip", IP) not in text
    assert not any(f'"{user}"' in text for user in USERS)


def test_rotation_changes_password_of_export(exported: Database) -> None:
    old = _secret(exported)

    done = program.run(exported.emulator, "--stack", exported.stack.name, "--yes", "rotate")

    assert done.status == 0
    assert _secret(exported) != old
    assert _run(exported) == {"days": 0, "rows": 0, "days_left": 0}


def test_export_is_turned_off_and_on(exported: Database, reader: Any) -> None:  # noqa: ANN401
    bucket, keys = exported.output("ExportBucketName"), _keys(exported, reader)

    assert exported.update(exported.template, Export="false") == "UPDATE_COMPLETE"
    functions = exported.emulator.client("lambda").list_functions()["Functions"]
    schedules = exported.emulator.client("scheduler").list_schedules()["Schedules"]
    assert len(functions) == 2
    assert len(schedules) == 1
    # The bucket stays, with its policy.
    listed = reader.list_objects_v2(Bucket=bucket)["Contents"]
    assert [one["Key"] for one in listed] == keys
    # The statement of the document.
    exported.execute("DROP SCHEMA lake CASCADE")
    assert exported.update(exported.template) == "UPDATE_COMPLETE"

    assert exported.output("ExportBucketName") != bucket
    assert _run(exported) == {"days": 1, "rows": len(USERS), "days_left": 0}
    assert _keys(exported, reader) == keys


def _run(database: Database) -> object:
    """Run the event of the schedule."""
    scheduler = database.emulator.client("scheduler")
    names = [one["Name"] for one in scheduler.list_schedules()["Schedules"]]
    [name] = [name for name in names if "ExportRun" in name]
    target = scheduler.get_schedule(Name=name)["Target"]
    return database.invoke(json.loads(target["Input"]), target["Arn"])


def _user(services: Services, name: str, policy: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
    """Create a user, and return its client for S3."""
    iam = services.emulator.client("iam")
    iam.create_user(UserName=name)
    if policy:
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return boto3.client(
        "s3",
        endpoint_url=services.emulator.endpoint,
        region_name=REGION,
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
    )


def _keys(database: Database, s3: Any) -> list[str]:  # noqa: ANN401
    """List the keys in the bucket."""
    answer = s3.list_objects_v2(Bucket=database.output("ExportBucketName"))
    return [one["Key"] for one in answer.get("Contents", [])]


def _secret(database: Database) -> str:
    secrets = database.emulator.client("secretsmanager")
    return secrets.get_secret_value(SecretId=database.output("ExportSecretArn"))["SecretString"]


def _lines(database: Database) -> list[str]:
    group = database.output("ExportLogGroupName")
    pages = database.emulator.client("logs").get_paginator("filter_log_events")
    return [
        event["message"] for page in pages.paginate(logGroupName=group) for event in page["events"]
    ]
