"""A first deployment fails; the second, by the steps in docs/deployment.md, succeeds.

The tests do what `make deploy` and `make delete` do, with the same SAM commands. MiniStack rolls a
creation back as AWS does, with two differences. It updates a stack in ROLLBACK_COMPLETE, which AWS
refuses. It accepts each function, mapping, alarm and dashboard: an event bus whose name is taken
stands for a resource that AWS refuses after the schema was created. LocalStack runs no custom
resource and rolls nothing back: see test_localstack.py.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.protection import protections
from dev import ROOT, TARGET, stack
from dev.emulator import REGION, Feature
from dev.local_system import Services
from dev.stack import PROGRAMS
from e2e.deployment import OWNER, STACK, Database

pytestmark = pytest.mark.needs(Feature.CUSTOM_RESOURCES)

SAM = TARGET / "tools" / "deploy" / "bin" / "sam"
# The password of no role.
WRONG_PASSWORD = "hunter2"
# user_logins is in the schema public, and one of its columns has another name.
EXISTING_TABLE = """
CREATE TABLE user_logins (
    "User_Id" varchar(128),
    device_type varchar(32),
    masked_ip varchar(256),
    masked_device_id varchar(256),
    locale varchar(32),
    app_version integer,
    create_date date
);
INSERT INTO user_logins ("User_Id") VALUES ('existing')
"""

BUS = "taken"
CAUSES = (ROOT / "docs" / "deployment.md").read_text().split("### Causes of a failed deployment")[1]

# Causes a failure and yields the parameters of the deployment that fails; then removes the cause.
Failure = Callable[[Database], AbstractContextManager[dict[str, Any]]]


@pytest.fixture
def database(services: Services) -> Iterator[Database]:
    """Create an empty database; delete it, and the stack with its salt and keys, at the end."""
    database = Database(services)
    try:
        yield database
    finally:
        stack.erase(database.emulator, STACK, database.stack.salt_id if database.stack else None)
        database.drop_database()


@contextmanager
def unreachable_database(_: Database) -> Iterator[dict[str, Any]]:
    """Name a host that does not exist. `migrate` would wait 90 s for a host that may start."""
    yield {"DatabaseHost": "nowhere.invalid"}


@contextmanager
def malformed_secret(database: Database) -> Iterator[dict[str, Any]]:
    """Store the owner's credentials under other keys than RDS does."""
    secrets = database.emulator.client("secretsmanager")
    stored = secrets.get_secret_value(SecretId=OWNER)["SecretString"]
    secrets.put_secret_value(
        SecretId=OWNER, SecretString=json.dumps({"user": "postgres", "pass": WRONG_PASSWORD})
    )
    yield {}
    secrets.put_secret_value(SecretId=OWNER, SecretString=stored)


@contextmanager
def refused_table(database: Database) -> Iterator[dict[str, Any]]:
    """Create a table that `migrate` refuses; then run the statement that CloudFormation shows."""
    database.execute(EXISTING_TABLE)
    yield {}
    [failure] = stack.failures(database.emulator, STACK)
    _, remedy = failure.rsplit(": ", 1)
    database.execute(remedy)


@contextmanager
def taken_name(database: Database) -> Iterator[dict[str, Any]]:
    """Take the name of an event bus that the stack creates after the function and its mapping."""
    events = database.emulator.client("events")
    events.create_event_bus(Name=BUS)
    template = json.loads(database.template)
    template["Resources"]["Later"] = {
        "Type": "AWS::Events::EventBus",
        "DependsOn": "IngestMapping",
        "Properties": {"Name": BUS},
    }
    database.template = json.dumps(template)
    yield {}
    events.delete_event_bus(Name=BUS)


@pytest.mark.parametrize(
    ("failure", "resource", "reason"),
    [
        (unreachable_database, "Schema", "Postgres cannot be reached"),
        (malformed_secret, "Schema", "DATABASE_SECRET_ID: "),
        (refused_table, "Schema", "the database is not ready: "),
        (taken_name, "Later", "EventBus already exists"),
    ],
)
def test_failed_creation_leaves_nothing_and_is_repeated(
    database: Database, tmp_path: Path, failure: Failure, resource: str, reason: str
) -> None:
    before = _inventory(database)

    with failure(database) as parameters:
        output = _deploy(database, tmp_path, status=1, **parameters)
        reasons = stack.failures(database.emulator, STACK)
        migrated = database.query("SELECT to_regclass('processed_messages') IS NOT NULL")

    [shown] = reasons
    assert shown.startswith(f"{resource}: {reason}")
    assert f"| `{reason}" in CAUSES or resource == "Later"
    assert migrated == [(resource == "Later",)]
    assert _inventory(database) == before
    assert _status(database) == "ROLLBACK_COMPLETE"
    assert protections(database.emulator.client, STACK) == []
    _sam(database, "delete", "--stack-name", STACK, "--no-prompts")
    output += _deploy(database, tmp_path)
    database.find()
    assert database.stores_login("new")
    assert WRONG_PASSWORD not in output
    assert database.postgres.password not in output


def test_refused_parameters_create_no_stack(database: Database, tmp_path: Path) -> None:
    output = _deploy(database, tmp_path, status=1, DatabaseHost="''")

    assert "DatabaseHost is missing" in output
    assert "`DatabaseHost is missing`" in CAUSES
    assert _status(database) is None
    _deploy(database, tmp_path)
    database.find()
    assert database.stores_login("new")


def _deploy(database: Database, directory: Path, status: int = 0, **parameters: str | int) -> str:
    """Deploy as `make deploy` does, with packages that contain Postgres's CA certificate."""
    code = {}
    for function, program in PROGRAMS.items():
        code[function] = str(directory / f"{program}.zip")
        Path(code[function]).write_bytes(
            stack.package(program, database.postgres.certificate_authority)
        )
    template = json.loads(database.template)
    for function, location in code.items():
        template["Resources"][function]["Properties"]["CodeUri"] = location
    file = directory / "template.json"
    file.write_text(json.dumps(template))
    overrides = database.parameters | parameters
    return _sam(
        database,
        *("deploy", "--template", file, "--stack-name", STACK, "--s3-bucket", STACK),
        *("--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset"),
        *("--parameter-overrides", *(f"{name}={value}" for name, value in overrides.items())),
        status=status,
    )


def _sam(database: Database, *arguments: object, status: int = 0) -> str:
    environment = database.emulator.environment | {
        "SAM_CLI_TELEMETRY": "0",
        # In seconds, instead of 5.
        "SAM_CLI_POLL_DELAY": "1",
        "AWS_DEFAULT_REGION": REGION,
    }
    done = subprocess.run(
        [str(part) for part in (SAM, *arguments, "--region", REGION)],
        check=False,
        cwd=ROOT,
        env=environment | {"PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def _status(database: Database) -> str | None:
    """Read the status of the stack; None if there is no stack."""
    stacks = database.formation.describe_stacks()["Stacks"]
    return next((one["StackStatus"] for one in stacks if one["StackName"] == STACK), None)


def _inventory(database: Database) -> list[str]:
    """List the secrets, queues, functions, logs and usable keys that exist."""
    client = database.emulator.client
    keys = client("kms").list_keys()["Keys"]
    states = [client("kms").describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in keys]
    names = [
        *(secret["Name"] for secret in client("secretsmanager").list_secrets()["SecretList"]),
        *client("sqs").list_queues().get("QueueUrls", []),
        *(one["FunctionName"] for one in client("lambda").list_functions()["Functions"]),
        *(one["logGroupName"] for one in client("logs").describe_log_groups()["logGroups"]),
        *(one["KeyId"] for one in states if one["KeyState"] != "PendingDeletion"),
    ]
    return sorted(names)
