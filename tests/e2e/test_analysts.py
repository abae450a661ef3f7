"""Analysts read the API of a stack with signed requests, and can do nothing else.

On MiniStack, which decides by the policies of the template and passes the caller on. Its function
URL passes no caller on, so the function refuses those requests. It has no load balancer that
logs in by OpenID Connect.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import psycopg
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from dev import TARGET, emulator, logs, stack
from dev.emulator import REGION, Feature, Kind
from dev.local_system import Services, running_services
from dev.logins import login, token
from e2e import emf, insights, page, program
from e2e.cloudwatch import OF_ANALYSTS
from e2e.deployment import DATABASE, Database
from e2e.driver import wait_until
from e2e.test_costs import MEASURED

pytestmark = pytest.mark.needs(Feature.CUSTOM_RESOURCES | Feature.ROLES)

SHARED = "111-22-3333"
USERS = ["a", "b", "c"]
DUPLICATES = "/v1/duplicates?field=device_id&period=all"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
WRITES = [
    "INSERT INTO user_logins (user_id) VALUES ('x')",
    "UPDATE user_logins SET user_id = 'x'",
    "DELETE FROM user_logins",
    "TRUNCATE user_logins",
    "DELETE FROM processed_messages",
    "DELETE FROM analytics.day",
    "CREATE TABLE public.x ()",
    "CREATE TABLE analytics.x ()",
    "SELECT write_logins()",
]


@dataclass(frozen=True)
class Answer:
    """What the API answered."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - of all JSON types
        """The document in it."""
        return json.loads(self.body)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Start an emulator that refuses unsigned requests itself: a private one does so before it."""

    def start(directory: Any, log: Any) -> emulator.Emulator:  # noqa: ANN401
        return emulator.start(Kind.MINISTACK, directory, log, is_private=False)

    with running_services(TARGET / "e2e-analysts", start_emulator=start) as services:
        yield services


@pytest.fixture(scope="module")
def analysts(services: Services) -> Iterator[Database]:
    """Deploy a stack for analysts, write logins, and run the hourly event."""
    database = Database(services, Analysts="true")
    try:
        database.deploy()
        _write_and_roll_up(database)
        yield database
    finally:
        database.drop()


@pytest.fixture(scope="module")
def analyst(analysts: Database) -> Credentials:
    """Return the credentials of a role with the stack's policy."""
    return _role(analysts, "analyst", analysts.output("AnalystsPolicyArn"))


def test_role_with_policy_reads_real_rows(analysts: Database, analyst: Credentials) -> None:
    answer = _get(analysts, DUPLICATES, analyst)

    salt = stack.salt(analysts.emulator, analysts.stack)
    [found] = answer.json["rows"]
    assert answer.status == 200
    assert found["token"] == token(salt, "device_id", SHARED)
    assert (found["users"], found["logins"]) == (len(USERS), len(USERS))


def test_role_without_policy_is_refused(analysts: Database) -> None:
    assert _get(analysts, DUPLICATES, _role(analysts, "other")).status == 403


@pytest.mark.parametrize(
    ("policies", "status", "shown"),
    [
        (["AnalystsPolicyArn"], 200, "<!doctype html>"),
        ([], 403, "Your AWS identity needs the permission execute-api:Invoke"),
    ],
    ids=["analyst", "other"],
)
def test_program_serves_the_page_of_stack(
    analysts: Database, tmp_path: Path, policies: list[str], status: int, shown: str
) -> None:
    role = _role(analysts, f"page-{status}", *map(analysts.output, policies))
    session = {"AWS_ACCESS_KEY_ID": role.access_key, "AWS_SECRET_ACCESS_KEY": role.secret_key}
    api = urlsplit(analysts.output("AnalystsUrl")).netloc.split(".")[0]
    # A URL that can be reached: see `_get`.
    url = f"{analysts.emulator.endpoint}/_aws/execute-api/{api}/$default"

    with page.serving(
        tmp_path, "--url", url, AWS_REGION=REGION, AWS_SESSION_TOKEN=role.token, **session
    ) as served:
        response, body = served.send(headers={"Accept": "text/html"})

    assert response.status == status
    assert shown in body.decode()


def test_unsigned_or_forged_request_is_refused(analysts: Database, analyst: Credentials) -> None:
    forged = Credentials(analyst.access_key, "wrong" * 8, analyst.token)

    assert _get(analysts, DUPLICATES, None).status == 403
    assert _get(analysts, DUPLICATES, forged).status == 403


def test_analyst_can_do_nothing_but_read_api(analysts: Database, analyst: Credentials) -> None:
    functions, secrets, sqs, formation = (
        _client(analysts, service, analyst)
        for service in ("lambda", "secretsmanager", "sqs", "cloudformation")
    )
    forbidden = [
        lambda: functions.invoke(FunctionName=analysts.output("ApiFunctionName")),
        lambda: functions.invoke(FunctionName=analysts.output("MigrateFunctionName")),
        lambda: secrets.get_secret_value(SecretId=analysts.output("ApiSecretArn")),
        lambda: secrets.get_secret_value(SecretId=analysts.output("SaltSecretArn")),
        lambda: sqs.send_message(QueueUrl=analysts.output("QueueUrl"), MessageBody="{}"),
    ]

    for call in forbidden:
        with pytest.raises(ClientError, match="AccessDenied"):
            call()
    [found] = formation.describe_stacks(StackName=analysts.stack.name)["Stacks"]
    assert "AnalystsUrl" in {output["OutputKey"] for output in found["Outputs"]}


@pytest.mark.parametrize("statement", WRITES)
def test_login_of_api_writes_nothing(analysts: Database, statement: str) -> None:
    rows = analysts.query("SELECT count(*) FROM user_logins")

    with _as_api(analysts) as session:
        session.execute("SET default_transaction_read_only = off")
        session.execute("SET transaction_read_only = off")
        with pytest.raises(psycopg.Error):
            session.execute(statement)

    assert analysts.query("SELECT count(*) FROM user_logins") == rows


def test_api_logs_requests_without_values(analysts: Database, analyst: Credentials) -> None:
    unknown = "0" * 64
    _get(analysts, f"/v1/tokens/{unknown}?secret=hunter2", analyst)
    group = analysts.output("ApiLogGroupName")

    def requests() -> list[dict[str, Any]]:
        lines = [logs.fields(line) for line in _lines(analysts, group)]
        return [line for line in lines if line.get("message") == "request"]

    wait_until(lambda: bool(requests()), requests)
    text = "\n".join(_lines(analysts, group))
    assert unknown not in text
    assert "hunter2" not in text
    there = {field for line in requests() for field in line}
    # Only a request that failed has an error.
    for name in insights.OF_ANALYSTS:
        assert insights.fields(insights.SAVED[name]) - there <= {"error"}


def test_metrics_of_alarms_and_costs_are_written(analysts: Database, analyst: Credentials) -> None:
    assert _get(analysts, "/v1/freshness", analyst).status == 200
    groups = [analysts.output("ApiLogGroupName"), analysts.stack.migrate_log_group]

    def metrics() -> list[emf.Metric]:
        return [
            metric
            for group in groups
            for line in _lines(analysts, group)
            if '"_aws"' in line
            for metric in emf.metrics(logs.fields(line))
        ]

    def names() -> set[tuple[str, str, tuple[str, ...]]]:
        return {(one.namespace, one.name, tuple(sorted(one.dimensions))) for one in metrics()}

    wait_until(lambda: names() >= OF_ANALYSTS, names)
    charged = {(metric.name, json.dumps(metric.dimensions)) for metric in metrics()}
    assert len(charged) == MEASURED["analysts_metrics"]


def test_rotation_changes_password_of_api(analysts: Database, analyst: Credentials) -> None:
    old = _password(analysts)

    done = program.run(analysts.emulator, "--stack", analysts.stack.name, "--yes", "rotate")

    assert done.status == 0
    assert _password(analysts) != old
    analysts.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'login_api'"
    )
    assert _get(analysts, DUPLICATES, analyst).status == 200


def test_function_url_takes_signed_requests_only(analysts: Database, analyst: Credentials) -> None:
    assert analysts.update(analysts.template, AnalystsEndpoint="function-url") == "UPDATE_COMPLETE"
    try:
        assert "lambda-url" in analysts.output("AnalystsUrl")
        assert _get(analysts, DUPLICATES, None, service="lambda").status == 403
        # The emulator passes no caller on, without whom the function refuses.
        assert _get(analysts, DUPLICATES, analyst, service="lambda").status == 401
    finally:
        assert analysts.update(analysts.template) == "UPDATE_COMPLETE"


def test_analysts_are_turned_on_and_off(analysts: Database) -> None:
    rows = analysts.query("SELECT count(*) FROM user_logins")

    assert analysts.update(analysts.template, Analysts="false") == "UPDATE_COMPLETE"
    functions = analysts.emulator.client("lambda").list_functions()["Functions"]
    schedules = analysts.emulator.client("scheduler").list_schedules()["Schedules"]
    assert len(functions) == 2
    assert len(schedules) == 1
    # The statement of the document.
    analysts.execute("DROP SCHEMA analytics CASCADE")
    assert analysts.update(analysts.template) == "UPDATE_COMPLETE"

    renewed = _role(analysts, "analyst-2", analysts.output("AnalystsPolicyArn"))
    assert _get(analysts, DUPLICATES, renewed).status == 503
    _roll_up(analysts)
    assert [row["users"] for row in _get(analysts, DUPLICATES, renewed).json["rows"]] == [3]
    assert analysts.query("SELECT count(*) FROM user_logins") == rows


def _write_and_roll_up(database: Database) -> None:
    """Send logins of users who share a device, and roll them up."""
    bodies = [login(user_id=user, device_id=SHARED) for user in USERS]
    database.send(*map(json.dumps, bodies))
    wait_until(lambda: database.users() == USERS, database.users)
    _roll_up(database)


def _roll_up(database: Database) -> None:
    """Run the event of the hourly schedule."""
    scheduler = database.emulator.client("scheduler")
    targets = [
        scheduler.get_schedule(Name=schedule["Name"])["Target"]
        for schedule in scheduler.list_schedules()["Schedules"]
    ]
    [target] = [target for target in targets if "roll-up" in target["Input"]]
    answer = database.invoke(json.loads(target["Input"]), target["Arn"])
    assert answer == {"days": 1, "days_left": 0}


def _role(database: Database, name: str, *policies: str) -> Credentials:
    """Create a role with policies, and return its credentials."""
    iam, sts = database.emulator.client("iam"), database.emulator.client("sts")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
    for policy in policies:
        iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    session = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="ann")["Credentials"]
    return Credentials(session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])


def _client(database: Database, service: str, credentials: Credentials) -> Any:  # noqa: ANN401
    return boto3.client(
        service,
        endpoint_url=database.emulator.endpoint,
        region_name=REGION,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        aws_session_token=credentials.token,
    )


def _get(
    database: Database, path: str, credentials: Credentials | None, service: str = "execute-api"
) -> Answer:
    """Get a path of the API, signed if there are credentials."""
    address = urlsplit(database.emulator.endpoint)
    host = urlsplit(database.output("AnalystsUrl")).netloc
    if service == "execute-api":
        # This host would be a subdomain of an address, which is no host. The emulator also takes
        # the API's id from the path.
        path = f"/_aws/execute-api/{host.split('.')[0]}/$default{path}"
        host = address.netloc
    request = AWSRequest("GET", f"http://{host}{path}", headers={"Host": host})
    if credentials:
        SigV4Auth(credentials, service, REGION).add_auth(request)
    connection = HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("GET", path, headers=dict(request.headers.items()))
    response = connection.getresponse()
    return Answer(response.status, response.read())


def _password(database: Database) -> str:
    secrets = database.emulator.client("secretsmanager")
    found = secrets.get_secret_value(SecretId=database.output("ApiSecretArn"))
    return json.loads(found["SecretString"])["password"]


def _as_api(database: Database) -> psycopg.Connection:
    url = database.postgres.url("login_api", _password(database), DATABASE)
    return psycopg.connect(url)


def _lines(database: Database, group: str) -> list[str]:
    pages = database.emulator.client("logs").get_paginator("filter_log_events")
    return [
        event["message"] for page in pages.paginate(logGroupName=group) for event in page["events"]
    ]
