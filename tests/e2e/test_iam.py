"""IAM authentication: the deployed function logs in to a Postgres that requires a token."""

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

from dev import ROOT, TARGET, logs, ministack
from dev.emulator import REGION, Feature
from dev.local_system import Services, running_services
from dev.logins import encodings, login
from e2e import function, program
from e2e.conftest import VERBOSE_FUNCTION, VERBOSE_POSTGRES
from e2e.deployment import STACK, Database
from e2e.driver import wait_until
from e2e.incidents import END_SESSIONS
from e2e.rds import VALIDITY, Server, TokenVerifier, token_at, verifying_tokens

TOKENS = ROOT / "tests/it/iam_tokens.json"
KEYS = Credentials("ASIAEXAMPLE", "secret", "a+b/c=")
OTHER_KEYS = Credentials("ASIAEXAMPLE", "another secret", "a+b/c=")
RESOURCE_ID = "cluster-ABCDEFGHIJKL01234567890123"
IAM = {
    "DatabaseAuthentication": "iam",
    "DatabaseResourceId": RESOURCE_ID,
    "LogFilter": VERBOSE_FUNCTION,
    # High, so that a message survives several refused logins.
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
    """Start servers for this module: pg_hba.conf belongs to the whole Postgres."""
    with running_services(TARGET / "e2e-iam", VERBOSE_POSTGRES) as services:
        yield services


@pytest.fixture
def verifier(services: Services) -> Iterator[TokenVerifier]:
    """Let Postgres require tokens."""
    verifier = TokenVerifier(Server(REGION, "127.0.0.1", services.postgres.port))
    with verifying_tokens(services.postgres, verifier):
        yield verifier


@pytest.fixture
def database(services: Services) -> Iterator[Database]:
    """Create an empty database; delete it, and the stack, at the end."""
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
            datetime.fromtimestamp(sample["at"], UTC),
            Credentials(
                sample["access_key_id"], sample["secret_access_key"], sample["session_token"]
            ),
            Server(sample["region"], sample["host"], sample["port"]),
            sample["user"],
        )
        for sample in signed
    ]

    assert len(made) >= 5
    assert made == [sample["token"] for sample in signed]


def test_only_a_valid_token_is_accepted(services: Services, verifier: TokenVerifier) -> None:
    verifier.keys[KEYS.access_key] = KEYS
    now, here = datetime.now(UTC), verifier.server
    good = token_at(now, KEYS, here, "other_user")
    bad = {
        "expired": token_at(now - VALIDITY, KEYS, here, "other_user"),
        "of tomorrow": token_at(now + timedelta(days=1), KEYS, here, "other_user"),
        "forged": token_at(now, OTHER_KEYS, here, "other_user"),
        "of another region": token_at(now, KEYS, replace(here, region="eu-west-1"), "other_user"),
        "for another host": token_at(now, KEYS, replace(here, host="localhost"), "other_user"),
        "for another port": token_at(now, KEYS, replace(here, port=here.port + 1), "other_user"),
        "for another user": token_at(now, KEYS, here, "login_writer"),
        "prolonged": good.replace("X-Amz-Expires=900", "X-Amz-Expires=9000"),
        "none": "password",
    }

    def accepts(token: str) -> bool:
        try:
            services.postgres.connect(user="other_user", password=token).close()
        except psycopg.OperationalError:
            return False
        return True

    with services.postgres.connect() as admin:
        admin.execute("CREATE ROLE other_user LOGIN PASSWORD 'password' IN ROLE rds_iam")
        let_in = [name for name, token in ({"good": good} | bad).items() if accepts(token)]
        admin.execute("DROP ROLE other_user")

    assert let_in == ["good"]


@on_ministack
def test_iam_stack_logs_in_without_a_password(verifier: TokenVerifier, database: Database) -> None:
    _deploy(database, verifier)

    assert database.stores_login("by token")

    assert (len(verifier.accepted), verifier.refused) == (1, [])
    assert database.query(WRITER) == [(False, True)]
    assert not _has_password(database)
    users = ["login_writer", "postgres", "login_writer2"]
    assert [user for user in users if _allows(database, RESOURCE_ID, user)] == ["login_writer"]
    assert not _allows(database, "cluster-OTHER", "login_writer")
    rotated = program.run(database.emulator, "--stack", STACK, "--yes", "rotate")
    assert rotated.status == 1
    assert "there is nothing to rotate" in rotated.progress


@on_ministack
def test_lost_session_reconnects_with_a_new_token(
    verifier: TokenVerifier, database: Database
) -> None:
    _deploy(database, verifier)
    assert database.stores_login("before")
    sleep(1)  # a token contains its time in seconds

    database.query(END_SESSIONS)
    assert database.stores_login("after")

    assert verifier.refused == []
    first, second = verifier.accepted
    assert _signed_at(first) < _signed_at(second)


@on_ministack
def test_refused_token_loses_nothing_and_logs_the_remedy(
    verifier: TokenVerifier, database: Database
) -> None:
    _deploy(database, verifier)
    assert database.stores_login("before")

    for name, fault in LOGIN_FAULTS.items():
        before = len(_failed_batches(database))
        with fault(database, verifier):
            database.query(END_SESSIONS)
            database.send(json.dumps(login(user_id=name)))
            wait_until(lambda n=before: len(_failed_batches(database)) > n, database.users)
        wait_until(lambda user=name: user in database.users(), database.users)

    failed = _failed_batches(database)
    assert {line["error_type"] for line in failed} == {"DatabaseLoginRefused"}
    assert all("the IAM token (required: rds-db:connect" in line["error"] for line in failed)
    assert sorted(database.users()) == sorted(["before", *LOGIN_FAULTS])


@on_ministack
def test_existing_stack_switches_to_iam_and_back(
    verifier: TokenVerifier, database: Database
) -> None:
    database.parameters |= PASSWORD
    database.deploy()
    assert database.stores_login("by password")
    assert database.query(WRITER) == [(True, False)]

    to_iam = database.update(database.template, **IAM)
    _register_function(database, verifier)
    assert database.stores_login("by token")
    by_iam = database.query(WRITER), _has_password(database), len(verifier.accepted)
    back = database.update(database.template, **PASSWORD)
    assert database.stores_login("by password again")

    assert (to_iam, back) == ("UPDATE_COMPLETE", "UPDATE_COMPLETE")
    assert by_iam == ([(False, True)], False, 1)
    assert (database.query(WRITER), _has_password(database)) == ([(True, False)], True)
    assert (len(verifier.accepted), verifier.refused) == (1, [])


@on_ministack
def test_failed_switch_is_rolled_back_to_the_password(
    verifier: TokenVerifier, database: Database
) -> None:
    database.parameters |= PASSWORD
    database.deploy()
    template = json.loads(database.template)
    # Fails after the schema is updated, which grants the IAM login.
    template["Resources"]["IngestFunction"]["Properties"]["CodeUri"] = "s3://nowhere/nothing"

    status = database.update(json.dumps(template), **IAM)

    assert status == "UPDATE_ROLLBACK_COMPLETE"
    # The migration ran at creation, for IAM, and for the password again.
    assert database.migrations() == 3
    assert database.query(WRITER) == [(True, False)]
    assert database.stores_login("after")
    assert verifier.accepted == []


@on_ministack
def test_missing_rds_iam_role_fails_the_deployment(
    database: Database,
) -> None:
    with pytest.raises(RuntimeError, match="there is no role rds_iam"):
        database.deploy()


@on_ministack
def test_most_verbose_logs_contain_no_token(verifier: TokenVerifier, database: Database) -> None:
    _deploy(database, verifier)
    assert database.stores_login("by token")
    with _expired(database, verifier):
        database.query(END_SESSIONS)
        database.send(json.dumps(login()))
        wait_until(lambda: verifier.refused != [], database.users)

    emulator = database.emulator
    logged = {
        "the function": "\n".join(logs.lines(emulator, database.stack)),
        "Postgres": database.postgres.log.read_text(),
        "the emulator": emulator.log.read_text(),
    }
    signatures = {
        _field(token, "X-Amz-Signature") for token in verifier.accepted + verifier.refused
    }
    secrets = signatures | {keys.secret_key for keys in verifier.keys.values()}
    secrets |= {keys.token for keys in verifier.keys.values()}

    assert verifier.accepted
    assert verifier.refused
    assert "batch done" in logged["the function"]
    assert "login_writer" in logged["Postgres"]
    found = [
        f"{name} logged {secret!r}"
        for name, text in logged.items()
        for secret in secrets
        if any(form in text for form in encodings(secret))
    ]
    assert found == []


def _deploy(database: Database, verifier: TokenVerifier) -> None:
    database.deploy()
    _register_function(database, verifier)


def _register_function(database: Database, verifier: TokenVerifier) -> None:
    """Give the verifier the function's keys and its role's policy."""
    deployed = function.configuration(database.emulator, database.stack)
    keys = ministack.credentials(deployed["FunctionArn"], deployed["Role"])
    verifier.keys = {keys.access_key: keys}
    verifier.allows = lambda user: _allows(database, RESOURCE_ID, user)


def _allows(database: Database, resource_id: str, user: str) -> bool:
    """Return whether IAM allows the function's role to log in as this user."""
    role = function.configuration(database.emulator, database.stack)["Role"]
    account = role.split(":")[4]
    arn = f"arn:aws:rds-db:{REGION}:{account}:dbuser:{resource_id}/{user}"
    [result] = database.emulator.client("iam").simulate_principal_policy(
        PolicySourceArn=role, ActionNames=["rds-db:connect"], ResourceArns=[arn]
    )["EvaluationResults"]
    return result["EvalDecision"] == "allowed"


def _has_password(database: Database) -> bool:
    secrets = database.emulator.client("secretsmanager").list_secrets()["SecretList"]
    return any("WriterSecret" in secret["Name"] for secret in secrets)


def _failed_batches(database: Database) -> list[dict[str, str]]:
    lines = map(logs.fields, logs.lines(database.emulator, database.stack))
    return [line for line in lines if line.get("message") == "batch failed"]


def _signed_at(token: str) -> str:
    return _field(token, "X-Amz-Date")


def _field(token: str, name: str) -> str:
    [value] = parse_qs(urlsplit(f"https://{token}").query)[name]
    return value


@contextmanager
def _expired(_database: Database, verifier: TokenVerifier) -> Iterator[None]:
    """Move the verifier's clock to the expiry of tokens."""
    verifier.clock_offset = VALIDITY
    try:
        yield
    finally:
        verifier.clock_offset = timedelta(0)


@contextmanager
def _forged(_database: Database, verifier: TokenVerifier) -> Iterator[None]:
    """Give the verifier another secret key than the one that signs."""
    [(name, keys)] = verifier.keys.items()
    verifier.keys[name] = Credentials(name, "another secret", keys.token)
    yield
    verifier.keys[name] = keys


@contextmanager
def _for_another_host(_database: Database, verifier: TokenVerifier) -> Iterator[None]:
    """Give the verifier another host name than the function's."""
    server = verifier.server
    verifier.server = replace(server, host="alias.example.com")
    yield
    verifier.server = server


@contextmanager
def _as_another_user(database: Database, _verifier: TokenVerifier) -> Iterator[None]:
    """Log in as a user that exists, but that the policy does not allow."""
    database.execute("CREATE ROLE other_user LOGIN IN ROLE login_writer, rds_iam")
    function.configure(database.emulator, database.stack, DATABASE_USER="other_user")
    yield
    function.configure(database.emulator, database.stack, DATABASE_USER="login_writer")
    database.execute("DROP ROLE other_user")


@contextmanager
def _not_allowed(database: Database, _verifier: TokenVerifier) -> Iterator[None]:
    """Remove the statement from the role's policy."""
    change = function.without("LogInAsTheWriter")
    with function.policy(database.emulator, database.stack, change):
        yield


@contextmanager
def _not_in_rds_iam(database: Database, _verifier: TokenVerifier) -> Iterator[None]:
    """Require a password, as RDS does for a user that is not in rds_iam."""
    database.execute("REVOKE rds_iam FROM login_writer")
    yield
    database.execute("GRANT rds_iam TO login_writer")


LOGIN_FAULTS: dict[str, Callable[[Database, TokenVerifier], AbstractContextManager[None]]] = {
    "expired": _expired,
    "forged": _forged,
    "for another host": _for_another_host,
    "as another user": _as_another_user,
    "not allowed": _not_allowed,
    "not in rds_iam": _not_in_rds_iam,
}
