"""Stacks are created, updated, rolled back and deleted, with databases in every state."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError

from dev import stack
from dev.emulator import Feature
from dev.local_system import Services
from dev.logins import failed, login, record
from e2e import program
from e2e.deployment import DATABASE, OWNER, STACK, Database

pytestmark = pytest.mark.needs(Feature.CUSTOM_RESOURCES)

EXISTING_TABLE = """
CREATE TABLE user_logins (
    user_id varchar(128),
    device_type varchar(32),
    masked_ip varchar(256),
    masked_device_id varchar(256),
    locale varchar(32),
    app_version integer,
    create_date date
);
INSERT INTO user_logins (user_id, locale) VALUES ('existing', 'DE'), (NULL, NULL)
"""
EXISTING_DATABASE = {
    "DatabaseSecretArn": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:x"
}


@pytest.fixture(scope="module")
def template_url(services: Services) -> str:
    """Upload the template without packages, for stacks that are refused."""
    services.emulator.client("s3").create_bucket(Bucket="refused")
    return stack.upload_template(services.emulator, "refused", stack.template("refused"))


def test_existing_table_is_kept_and_written_to(database: Database) -> None:
    database.execute(EXISTING_TABLE)

    database.deploy()

    assert database.query("SELECT user_id, locale FROM user_logins ORDER BY user_id") == [
        ("existing", "DE"),
        (None, None),
    ]
    assert database.stores_login("new")


def test_unchanged_stack_is_not_updated(database: Database) -> None:
    database.deploy()

    with pytest.raises(ClientError, match="No updates are to be performed"):
        database.update(database.template)

    assert database.migrations() == 1


def test_new_schema_version_runs_the_migration(
    database: Database,
) -> None:
    database.deploy()
    template = json.loads(database.template)
    template["Resources"]["Schema"]["Properties"]["Version"] += 1

    status = database.update(json.dumps(template))

    assert status == "UPDATE_COMPLETE"
    assert database.migrations() == 2
    assert database.stores_login("after")


def test_failed_migration_fails_deployment_and_shows_no_secret(
    database: Database,
) -> None:
    database.execute("CREATE TABLE processed_messages ()")

    with pytest.raises(RuntimeError) as failure:
        database.deploy()

    reason = 'a migration failed: relation "processed_messages" already exists, SQLSTATE 42P07'
    assert reason in str(failure.value)
    assert database.postgres.password not in str(failure.value)


def test_wrong_owner_password_fails_deployment_without_showing_it(
    database: Database,
) -> None:
    wrong = json.dumps({"username": "postgres", "password": "hunter2"})
    database.emulator.client("secretsmanager").put_secret_value(SecretId=OWNER, SecretString=wrong)

    with pytest.raises(RuntimeError, match="SQLSTATE 28P01") as failure:
        database.deploy()

    assert "hunter2" not in str(failure.value)


def test_failed_update_is_rolled_back(database: Database) -> None:
    database.deploy()
    assert database.stores_login("before")

    status = database.update(database.template, DatabaseName="nowhere")

    assert status == "UPDATE_ROLLBACK_COMPLETE"
    failures = stack.failures(database.emulator, STACK)
    # 3D000: the database does not exist.
    assert failures == ["Schema: Postgres refused the statement, SQLSTATE 3D000"]
    assert database.stores_login("after")


def test_queue_refuses_connections_without_tls(database: Database) -> None:
    database.deploy()
    policy = stack.read_template()["Resources"]["QueuePolicy"]
    template = json.loads(database.template)
    template["Resources"]["QueuePolicy"] = policy

    assert database.update(json.dumps(template)) == "UPDATE_COMPLETE"

    with pytest.raises(ClientError, match="AccessDenied"):
        database.send("{}")


def test_daily_run_empties_old_ledger_partitions(database: Database) -> None:
    database.deploy()
    database.execute(
        """
        INSERT INTO processed_messages
        SELECT (sent_at::date - DATE '1970-01-01') % 32, sent_at, gen_random_uuid()
        FROM (VALUES (now() - interval '20 days'), (now())) AS entry (sent_at)
        """
    )
    [schedule] = database.emulator.client("scheduler").list_schedules()["Schedules"]
    target = database.emulator.client("scheduler").get_schedule(Name=schedule["Name"])["Target"]

    database.invoke(json.loads(target["Input"]), target["Arn"])

    assert database.query("SELECT sent_at::date = now()::date FROM processed_messages") == [(True,)]


def test_rotated_password_is_used_without_deployment(database: Database) -> None:
    database.deploy()
    assert database.stores_login("before")
    old = stack.writer_password(database.emulator, database.stack)

    assert _rotate(database) == 0
    _end_sessions(database)

    assert stack.writer_password(database.emulator, database.stack) != old
    assert database.stores_login("after")


def test_rotation_replaces_the_analysts_password_too(database: Database) -> None:
    template = json.loads(database.template, object_hook=_with_reader)
    for kind, name in (("Resources", "ReaderSecret"), ("Outputs", "ReaderSecretArn")):
        del template[kind][name]["Condition"]
    database.template = json.dumps(template)
    database.deploy()
    secret = database.output("ReaderSecretArn")
    old = _reader_password(database, secret)
    assert _may_read(database, old)

    assert _rotate(database) == 0

    new = _reader_password(database, secret)
    assert new != old
    assert _may_read(database, new)
    assert not _may_read(database, old)
    assert database.stores_login("after")


def test_failed_rotation_logs_no_verifier(database: Database) -> None:
    database.deploy()
    database.execute(f"ALTER ROLE postgres IN DATABASE {DATABASE} SET lock_timeout = '100ms'")
    try:
        with database.postgres.connect(DATABASE) as other:
            other.autocommit = False
            other.execute("ALTER ROLE login_writer CONNECTION LIMIT 100")
            assert _rotate(database) == 1
            other.rollback()
    finally:
        database.execute(f"ALTER ROLE postgres IN DATABASE {DATABASE} RESET lock_timeout")

    log = database.postgres.log.read_text()
    # Postgres logs the statement that failed.
    assert "canceling statement due to lock timeout" in log
    assert "SCRAM-SHA-256$" not in log
    assert database.stores_login("after")


def test_password_that_cannot_be_set_is_discarded(database: Database) -> None:
    database.deploy()
    old = stack.writer_password(database.emulator, database.stack)
    owner = {"username": "postgres", "password": "hunter2"}
    database.emulator.client("secretsmanager").put_secret_value(
        SecretId=OWNER, SecretString=json.dumps(owner)
    )

    assert _rotate(database) == 1

    assert stack.writer_password(database.emulator, database.stack) == old
    assert database.stores_login("after")


def test_failed_prune_fails_no_rotation(database: Database) -> None:
    database.deploy()
    database.execute(
        """
        INSERT INTO processed_fifo_messages VALUES (gen_random_uuid(), '2026-01-01');
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON processed_fifo_messages
            FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )
    old = stack.writer_password(database.emulator, database.stack)

    rotated = _rotate(database)
    _end_sessions(database)

    assert rotated == 0
    assert stack.writer_password(database.emulator, database.stack) != old
    assert database.stores_login("after")
    with pytest.raises(AssertionError, match="Postgres refused"):
        database.invoke({}, database.output("MigrateFunctionName"))


def _with_reader(value: dict[str, Any]) -> object:
    """Choose the reader, as the template does for a database that the stack creates."""
    match value:
        case {"Fn::If": ["HasReader", {"Fn::GetAtt": ["ReaderSecret", "Id"]} as reader, _]}:
            return reader
    return value


def _reader_password(database: Database, secret: str) -> str:
    stored = database.emulator.client("secretsmanager").get_secret_value(SecretId=secret)
    return json.loads(stored["SecretString"])["password"]


def _may_read(database: Database, password: str) -> bool:
    url = database.postgres.url("login_analyst", password, DATABASE)
    try:
        with psycopg.connect(url) as analyst:
            return analyst.execute("SELECT count(*) FROM user_logins").fetchone() is not None
    except psycopg.OperationalError:
        return False


def _rotate(database: Database) -> int:
    """Rotate the passwords of the stack; return the exit status of the program."""
    return program.run(database.emulator, "--stack", STACK, "--yes", "rotate").status


def _end_sessions(database: Database) -> None:
    """Make the next batch log in, as a failover does."""
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'login_writer'"
    )


def test_redrive_writes_missing_rows_and_keeps_bad_messages(database: Database) -> None:
    database.deploy()
    dead = database.stack.dead_letter_queue_url
    with _refusing_every_row(database):
        bodies = [json.dumps(login(user_id=user)) for user in ("answer lost", "not written")]
        database.send(*bodies, "no login")
        database.wait_for_dead_letters(3)
    # One message was written, but each of its answers was lost until MaxReceiveCount.
    letters = database.emulator.client("sqs").receive_message(
        QueueUrl=dead,
        MaxNumberOfMessages=10,
        VisibilityTimeout=0,
        MessageSystemAttributeNames=["SentTimestamp"],
    )
    [lost] = [letter for letter in letters["Messages"] if letter["Body"] == bodies[0]]
    event = record(lost["Body"], messageId=lost["MessageId"], attributes=lost["Attributes"])
    assert database.invoke({"Records": [event]}) == failed()

    arguments = ("--stack", STACK, "--json", "--yes", "redrive", "--patience", "6")
    done = program.run(database.emulator, *arguments)

    assert (done.status, done.result["left"], done.result["failed_again"]) == (1, 1, 1), done
    assert database.users() == ["answer lost", "not written"]
    database.wait_for_dead_letters(1)


def test_deleted_stack_leaves_salt_key_and_data(database: Database) -> None:
    database.deploy()
    assert database.stores_login("kept")
    salt = stack.salt(database.emulator, database.stack)
    secrets = database.emulator.client("secretsmanager")
    key = secrets.describe_secret(SecretId=database.stack.salt_id)["KmsKeyId"]

    database.delete_stack()

    assert stack.salt(database.emulator, database.stack) == salt
    metadata = database.emulator.client("kms").describe_key(KeyId=key)["KeyMetadata"]
    assert metadata["KeyState"] == "Enabled"
    assert database.users() == ["kept"]
    functions = database.emulator.client("lambda").list_functions()["Functions"]
    assert [each["FunctionName"] for each in functions if STACK in each["FunctionName"]] == []
    names = [secret["Name"] for secret in secrets.list_secrets()["SecretList"]]
    assert [name for name in names if "WriterSecret" in name] == []


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "DatabaseSecretArn is missing"),
        (EXISTING_DATABASE, "DatabaseHost is missing"),
        (
            {"CreateDatabase": "true", "DatabaseHost": "db.example.com"},
            "CreateDatabase=true creates a database: remove DatabaseSecretArn",
        ),
        (
            {"CreateDatabase": "true", "SubnetIds": "subnet-1", "SecurityGroupIds": "sg-1"},
            "CreateDatabase=true creates a network: remove SubnetIds",
        ),
        (
            EXISTING_DATABASE | {"DatabaseHost": "db", "SubnetIds": "subnet-1"},
            "SecurityGroupIds is missing",
        ),
        (
            EXISTING_DATABASE | {"DatabaseHost": "db", "SecurityGroupIds": "sg-1"},
            "SubnetIds is missing",
        ),
        (
            EXISTING_DATABASE
            | {
                "DatabaseHost": "db",
                "DatabaseCaLayerArn": "arn:aws:lambda:eu-central-1:111122223333:layer:ca:1",
            },
            "DatabaseCaBundle is missing",
        ),
        (
            EXISTING_DATABASE | {"DatabaseHost": "db", "DatabaseAuthentication": "iam"},
            "DatabaseResourceId is missing",
        ),
        (
            EXISTING_DATABASE | {"DatabaseHost": "db", "DatabaseResourceId": "cluster-ABC"},
            "DatabaseResourceId is only for DatabaseAuthentication=iam",
        ),
        (
            {
                "CreateDatabase": "true",
                "DatabaseAuthentication": "iam",
                "DatabaseResourceId": "db-ABC",
            },
            "CreateDatabase=true creates a database: remove DatabaseResourceId",
        ),
        # Without endpoints, migrate cannot answer CloudFormation: nothing ends such a stack.
        ({"CreateDatabase": "true", "VpcEndpoints": "none"}, "VpcEndpoints"),
        (
            EXISTING_DATABASE | {"DatabaseHost": "db", "DatabaseSnapshot": "before"},
            "DatabaseSnapshot is only for CreateDatabase=true",
        ),
        (
            EXISTING_DATABASE | {"DatabaseHost": "db", "BatchingWindow": 0, "BatchSize": 11},
            "BatchSize is more than 10",
        ),
    ],
)
def test_contradictory_parameters_are_refused_with_a_reason(
    services: Services, template_url: str, parameters: dict[str, str], sentence: str
) -> None:
    formation = services.emulator.client("cloudformation")

    with pytest.raises(ClientError, match=sentence):
        formation.create_stack(
            StackName="refused",
            TemplateURL=template_url,
            Parameters=stack.as_parameters({"SavedQueries": "false"} | parameters),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )


@contextmanager
def _refusing_every_row(database: Database) -> Iterator[None]:
    database.execute("ALTER TABLE user_logins ADD CONSTRAINT refuse_all CHECK (false)")
    try:
        yield
    finally:
        database.execute("ALTER TABLE user_logins DROP CONSTRAINT refuse_all")
