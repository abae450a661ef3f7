"""IAM authentication: the deployed function logs in to a Postgres that asks it for a token."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import sleep
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from botocore.credentials import Credentials

from deploy import operate
from dev import ROOT, TARGET, logs, ministack
from dev.emulator import REGION, Feature
from dev.local_system import Services, running_services
from dev.logins import disguises, login
from e2e import function
from e2e.conftest import LOUD_FUNCTION, LOUD_POSTGRES
from e2e.deployment import STACK, Database
from e2e.driver import wait_until
from e2e.incidents import END_SESSIONS
from e2e.rds import VALIDITY, Judge, Server, judging, token_at

TOKENS = ROOT / "tests/it/iam_tokens.json"
KEYS = Credentials("ASIAEXAMPLE", "secret", "a+b/c=")
OTHER_KEYS = Credentials("ASIAEXAMPLE", "another secret", "a+b/c=")
RESOURCE_ID = "cluster-ABCDEFGHIJKL01234567890123"
IAM = {
    "DatabaseAuthentication": "iam",
    "DatabaseResourceId": RESOURCE_ID,
    "LogFilter": LOUD_FUNCTION,
    # What is refused for a while must not be a dead letter already.
    "MaxReceiveCount": 50,
}
PASSWORD = {"DatabaseAuthentication": "password", "DatabaseResourceId": ""}
WRITER = """
SELECT rolpassword IS NOT NULL, pg_has_role('login_writer', 'rds_iam', 'MEMBER')
FROM pg_authid WHERE rolname = 'login_writer'
"""

on_ministack = pytest.mark.needs(Feature.CUSTOM_RESOURCES | Feature.ROLES)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Start the servers; who is asked for a token is a matter of a whole Postgres."""
    with running_services(TARGET / "e2e-iam", LOUD_POSTGRES) as services:
        yield services


@pytest.fixture
def judge(services: Services) -> Iterator[Judge]:
    """Have Postgres ask for tokens."""
    judge = Judge(Server(REGION, "127.0.0.1", services.postgres.port))
    with judging(services.postgres, judge):
        yield judge


@pytest.fixture
def database(services: Services) -> Iterator[Database]:
    """Make an empty database, and delete the stack that a test deploys to it."""
    database = Database(services)
    database.parameters |= IAM
    try:
        yield database
    finally:
        database.drop()


def test_expected_tokens_equal_those_of_botocore() -> None:
    signed = json.loads(TOKENS.read_text())

    made = [
        token_at(
            datetime.fromtimestamp(one["at"], UTC),
            Credentials(one["access_key_id"], one["secret_access_key"], one["session_token"]),
            Server(one["region"], one["host"], one["port"]),
            one["user"],
        )
        for one in signed
    ]

    assert len(made) >= 5
    assert made == [one["token"] for one in signed]


def test_only_a_valid_token_is_accepted(services: Services, judge: Judge) -> None:
    judge.keys[KEYS.access_key] = KEYS
    now, here = datetime.now(UTC), judge.server
    good = token_at(now, KEYS, here, "somebody")
    bad = {
        "expired": token_at(now - VALIDITY, KEYS, here, "somebody"),
        "of tomorrow": token_at(now + timedelta(days=1), KEYS, here, "somebody"),
        "forged": token_at(now, OTHER_KEYS, here, "somebody"),
        "of another region": token_at(now, KEYS, replace(here, region="eu-west-1"), "somebody"),
        "for another host": token_at(now, KEYS, replace(here, host="localhost"), "somebody"),
        "for another port": token_at(now, KEYS, replace(here, port=here.port + 1), "somebody"),
        "for another user": token_at(now, KEYS, here, "login_writer"),
        "prolonged": good.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"),
        "none": "password",
    }

    def lets_in(token: str) -> bool:
        try:
            services.postgres.connect(user="somebody", password=token).close()
        except psycopg.OperationalError:
            return False
        return True

    with services.postgres.connect() as admin:
        admin.execute("CREATE ROLE somebody LOGIN PASSWORD 'password' IN ROLE rds_iam")
        let_in = [name for name, token in ({"good": good} | bad).items() if lets_in(token)]
        admin.execute("DROP ROLE somebody")

    assert let_in == ["good"]


@on_ministack
def test_iam_stack_logs_in_without_a_password(judge: Judge, database: Database) -> None:
    _deploy(database, judge)

    assert database.becomes_a_row("by token")

    assert (len(judge.accepted), judge.refused) == (1, [])
    assert database.query(WRITER) == [(False, True)]
    assert not _has_password(database)
    users = ["login_writer", "postgres", "login_writer2"]
    assert [user for user in users if _allows(database, RESOURCE_ID, user)] == ["login_writer"]
    assert not _allows(database, "cluster-OTHER", "login_writer")
    assert operate.rotate(database.emulator.client, STACK) == 1


@on_ministack
def test_lost_session_reconnects_with_a_new_token(judge: Judge, database: Database) -> None:
    _deploy(database, judge)
    assert database.becomes_a_row("before")
    sleep(1)  # a token tells the second

    database.query(END_SESSIONS)
    assert database.becomes_a_row("after")

    assert judge.refused == []
    first, second = judge.accepted
    assert _signed_at(first) < _signed_at(second)


@on_ministack
def test_refused_token_loses_nothing_and_logs_the_remedy(judge: Judge, database: Database) -> None:
    _deploy(database, judge)
    assert database.becomes_a_row("before")

    for name, trouble in TROUBLES.items():
        before = len(_failed_batches(database))
        with trouble(database, judge):
            database.query(END_SESSIONS)
            database.send(json.dumps(login(user_id=name)))
            wait_until(lambda n=before: len(_failed_batches(database)) > n, database.users)
        wait_until(lambda user=name: user in database.users(), database.users)

    failed = _failed_batches(database)
    assert {line["error_type"] for line in failed} == {"DatabaseLoginRefused"}
    assert all("the IAM token (it takes rds-db:connect" in line["error"] for line in failed)
    assert sorted(database.users()) == sorted(["before", *TROUBLES])


@on_ministack
def test_existing_stack_switches_to_iam_and_back(judge: Judge, database: Database) -> None:
    database.parameters |= PASSWORD
    database.deploy()
    assert database.becomes_a_row("by password")
    assert database.query(WRITER) == [(True, False)]

    to_iam = database.update(database.template, **IAM)
    _know_the_function(database, judge)
    assert database.becomes_a_row("by token")
    by_iam = database.query(WRITER), _has_password(database), len(judge.accepted)
    back = database.update(database.template, **PASSWORD)
    assert database.becomes_a_row("by password again")

    assert (to_iam, back) == ("UPDATE_COMPLETE", "UPDATE_COMPLETE")
    assert by_iam == ([(False, True)], False, 1)
    assert (database.query(WRITER), _has_password(database)) == ([(True, False)], True)
    assert (len(judge.accepted), judge.refused) == (1, [])


@on_ministack
def test_failed_switch_is_rolled_back_to_the_password(judge: Judge, database: Database) -> None:
    database.parameters |= PASSWORD
    database.deploy()
    template = json.loads(database.template)
    # The schema, which lets the writer in, comes first.
    template["Resources"]["IngestFunction"]["Properties"]["CodeUri"] = "s3://nowhere/nothing"

    status = database.update(json.dumps(template), **IAM)

    assert status == "UPDATE_ROLLBACK_COMPLETE"
    # The writer was let in by IAM, and then by its password again.
    assert database.migrations() == 3
    assert database.query(WRITER) == [(True, False)]
    assert database.becomes_a_row("after")
    assert judge.accepted == []


@on_ministack
def test_missing_rds_iam_role_fails_the_deployment(
    database: Database,
) -> None:
    with pytest.raises(RuntimeError, match="there is no role rds_iam"):
        database.deploy()


@on_ministack
def test_most_verbose_logs_contain_no_token(judge: Judge, database: Database) -> None:
    _deploy(database, judge)
    assert database.becomes_a_row("by token")
    with _expired(database, judge):
        database.query(END_SESSIONS)
        database.send(json.dumps(login()))
        wait_until(lambda: judge.refused != [], database.users)

    emulator = database.emulator
    logged = {
        "the function": "\n".join(logs.lines(emulator, database.stack)),
        "Postgres": database.postgres.log.read_text(),
        "the emulator": emulator.log.read_text(),
    }
    signatures = {_field(token, "X-Amz-Signature") for token in judge.accepted + judge.refused}
    secrets = signatures | {keys.secret_key for keys in judge.keys.values()}
    secrets |= {keys.token for keys in judge.keys.values()}

    assert judge.accepted
    assert judge.refused
    assert "batch done" in logged["the function"]
    assert "login_writer" in logged["Postgres"]
    found = [
        f"{name} logged {secret!r}"
        for name, text in logged.items()
        for secret in secrets
        if any(form in text for form in disguises(secret))
    ]
    assert found == []


def _deploy(database: Database, judge: Judge) -> None:
    database.deploy()
    _know_the_function(database, judge)


def _know_the_function(database: Database, judge: Judge) -> None:
    """Tell the judge the keys that the function has, and what its role's policy allows."""
    deployed = function.configuration(database.emulator, database.stack)
    keys = ministack.credentials(deployed["FunctionArn"], deployed["Role"])
    judge.keys = {keys.access_key: keys}
    judge.allows = lambda user: _allows(database, RESOURCE_ID, user)


def _allows(database: Database, resource_id: str, user: str) -> bool:
    """Ask IAM whether the function's role may log in as this user."""
    role = function.configuration(database.emulator, database.stack)["Role"]
    account = role.split(":")[4]
    arn = f"arn:aws:rds-db:{REGION}:{account}:dbuser:{resource_id}/{user}"
    [result] = database.emulator.client("iam").simulate_principal_policy(
        PolicySourceArn=role, ActionNames=["rds-db:connect"], ResourceArns=[arn]
    )["EvaluationResults"]
    return result["EvalDecision"] == "allowed"


def _has_password(database: Database) -> bool:
    secrets = database.emulator.client("secretsmanager").list_secrets()["SecretList"]
    return any("WriterSecret" in one["Name"] for one in secrets)


def _failed_batches(database: Database) -> list[dict[str, str]]:
    lines = map(logs.fields, logs.lines(database.emulator, database.stack))
    return [line for line in lines if line.get("message") == "batch failed"]


def _signed_at(token: str) -> str:
    return _field(token, "X-Amz-Date")


def _field(token: str, name: str) -> str:
    [value] = parse_qs(urlsplit(f"https://{token}").query)[name]
    return value


@contextmanager
def _expired(_database: Database, judge: Judge) -> Iterator[None]:
    """Be as late as a token is valid."""
    judge.ahead = VALIDITY
    try:
        yield
    finally:
        judge.ahead = timedelta(0)


@contextmanager
def _forged(_database: Database, judge: Judge) -> Iterator[None]:
    """Know other keys than those that sign."""
    [(name, keys)] = judge.keys.items()
    judge.keys[name] = Credentials(name, "another secret", keys.token)
    yield
    judge.keys[name] = keys


@contextmanager
def _for_another_host(_database: Database, judge: Judge) -> Iterator[None]:
    """Know the database by another name than the function does."""
    server = judge.server
    judge.server = replace(server, host="alias.example.com")
    yield
    judge.server = server


@contextmanager
def _as_another_user(database: Database, _judge: Judge) -> Iterator[None]:
    """Log in as somebody whom the database knows, and the policy does not name."""
    database.execute("CREATE ROLE somebody LOGIN IN ROLE login_writer, rds_iam")
    function.configure(database.emulator, database.stack, DATABASE_USER="somebody")
    yield
    function.configure(database.emulator, database.stack, DATABASE_USER="login_writer")
    database.execute("DROP ROLE somebody")


@contextmanager
def _not_allowed(database: Database, _judge: Judge) -> Iterator[None]:
    """Take the statement out of the role's policy."""
    change = function.without("LogInAsTheWriter")
    with function.policy(database.emulator, database.stack, change):
        yield


@contextmanager
def _not_in_rds_iam(database: Database, _judge: Judge) -> Iterator[None]:
    """Ask for a password, as RDS does whoever is not in this role."""
    database.execute("REVOKE rds_iam FROM login_writer")
    yield
    database.execute("GRANT rds_iam TO login_writer")


TROUBLES: dict[str, Callable[[Database, Judge], AbstractContextManager[None]]] = {
    "expired": _expired,
    "forged": _forged,
    "for another host": _for_another_host,
    "as another user": _as_another_user,
    "not allowed": _not_allowed,
    "not in rds_iam": _not_in_rds_iam,
}
