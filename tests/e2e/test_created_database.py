"""The database and the network that the stack creates: deployed, restored, replaced, rolled back.

The emulator creates the cluster as CloudFormation sees it, but no server: the functions connect to
the Postgres of the tests. It protects no cluster from deletion and applies no stack policy.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.client import BaseClient

from dev import ROOT
from dev.emulator import Feature
from dev.local_system import Services
from e2e import documented
from e2e.commands import run
from e2e.deployment import OWNER, STACK, Database

pytestmark = pytest.mark.needs(Feature.CUSTOM_RESOURCES)

# Attributes that the emulator does not know.
VPC_CIDR = {"Fn::GetAtt": ["Vpc", "CidrBlock"]}
OWNER_SECRET = {"Fn::GetAtt": ["DatabaseCluster", "MasterUserSecret.SecretArn"]}
# Of the document.
SNAPSHOT = "restored-for-login-etl-prod"


@pytest.fixture
def database(services: Services) -> Iterator[Database]:
    """Prepare a stack that creates its database; delete it at the end."""
    database = Database(services)
    database.template = _adapt(database)
    database.parameters |= {
        "CreateDatabase": "true",
        "DatabaseSecretArn": "",
        "DatabaseHost": "",
        "DatabaseMinCapacity": "0",
    }
    try:
        yield database
    finally:
        database.parameters["DatabaseSecretArn"] = OWNER
        database.drop()


def test_created_database_takes_logins(database: Database) -> None:
    database.deploy()

    assert database.stores_login("first")
    [instance] = _rds(database).describe_db_instances()["DBInstances"]
    assert instance["DBClusterIdentifier"] == _cluster(database)["DBClusterIdentifier"]


def test_documented_restore_replaces_the_database(database: Database) -> None:
    database.deploy()
    assert database.stores_login("before")
    replaced = _cluster(database)["DBClusterIdentifier"]
    list_names, restore_to_time, *others = documented.commands("A database that the stack created")
    names = dict(json.loads(run(database.emulator, STACK, list_names)))

    # The command line knows the arguments; the emulator does not restore to a moment.
    with pytest.raises(AssertionError, match="Unknown RDS action"):
        run(database.emulator, STACK, restore_to_time, names)
    _create_cluster(database, SNAPSHOT)
    for command in others:
        run(database.emulator, STACK, command, names)
    status = database.update(database.template, DatabaseSnapshot=SNAPSHOT)

    assert status == "UPDATE_COMPLETE"
    restored = _cluster(database)["DBClusterIdentifier"]
    assert restored not in {replaced, SNAPSHOT}
    [instance] = _rds(database).describe_db_instances()["DBInstances"]
    assert instance["DBClusterIdentifier"] == restored
    assert database.migrations() == 2
    assert database.stores_login("after")


def test_kept_snapshot_restores_only_once(database: Database) -> None:
    database.parameters["DatabaseSnapshot"] = _snapshot_of_another_cluster(database)
    database.deploy()
    restored = _cluster(database)["DBClusterIdentifier"]

    status = database.update(database.template, DatabaseBackupDays="8")

    assert status == "UPDATE_COMPLETE"
    assert _cluster(database)["DBClusterIdentifier"] == restored


def test_other_database_name_replaces_the_database(database: Database) -> None:
    database.deploy()
    first = _cluster(database)["DBClusterIdentifier"]

    status = database.update(database.template, DatabaseName="postgres")

    assert status == "UPDATE_COMPLETE"
    assert _cluster(database)["DBClusterIdentifier"] != first


def test_failed_first_deployment_can_be_repeated(database: Database) -> None:
    secrets = database.emulator.client("secretsmanager")
    right = secrets.get_secret_value(SecretId=OWNER)["SecretString"]
    wrong = json.dumps({"username": "postgres", "password": "hunter2"})
    secrets.put_secret_value(SecretId=OWNER, SecretString=wrong)
    before = _enabled_keys(database)

    with pytest.raises(RuntimeError, match="SQLSTATE 28P01"):
        database.deploy()

    [failed] = database.formation.describe_stacks(StackName=STACK)["Stacks"]
    assert failed["StackStatus"] == "ROLLBACK_COMPLETE"
    assert _rds(database).describe_db_clusters()["DBClusters"] == []
    assert [secret["Name"] for secret in secrets.list_secrets()["SecretList"]] == [OWNER]
    assert _enabled_keys(database) == before
    secrets.put_secret_value(SecretId=OWNER, SecretString=right)
    database.delete_stack()
    database.deploy()
    assert database.stores_login("second attempt")


def test_documented_protections_are_accepted(database: Database) -> None:
    database.deploy()
    commands = documented.commands("After the first deployment", "deployment.md")

    status = database.update(database.template, DatabaseDeletionProtection="true")
    for command in commands:
        run(database.emulator, STACK, command)

    assert status == "UPDATE_COMPLETE"
    assert _cluster(database)["DeletionProtection"] is True
    assert [re.findall("[a-z-]+", command)[2] for command in commands] == [
        "update-termination-protection",
        "set-stack-policy",
    ]
    [protected] = database.formation.describe_stacks(StackName=STACK)["Stacks"]
    assert protected["EnableTerminationProtection"] is True
    policy = database.formation.get_stack_policy(StackName=STACK)["StackPolicyBody"]
    assert policy == (ROOT / "deploy" / "stack-policy.json").read_text()
    database.formation.update_termination_protection(
        StackName=STACK, EnableTerminationProtection=False
    )


def _adapt(database: Database) -> str:
    """Let the functions connect to the Postgres of the tests, as its owner."""
    template = database.template.replace(json.dumps(VPC_CIDR), json.dumps({"Ref": "VpcCidr"}))
    owner = json.dumps(database.parameters["DatabaseSecretArn"])
    adapted: dict[str, Any] = json.loads(template.replace(json.dumps(OWNER_SECRET), owner))
    variables = adapted["Globals"]["Function"]["Environment"]["Variables"]
    variables["DATABASE_HOST"] = database.postgres.host
    return json.dumps(adapted)


def _rds(database: Database) -> BaseClient:
    return database.emulator.client("rds")


def _cluster(database: Database) -> dict[str, Any]:
    [cluster] = _rds(database).describe_db_clusters()["DBClusters"]
    return cluster


def _snapshot_of_another_cluster(database: Database) -> str:
    """Make a snapshot as a deleted stack leaves it."""
    rds, name = _rds(database), "deleted-stack"
    _create_cluster(database, name)
    rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier=name, DBClusterIdentifier=name)
    rds.delete_db_cluster(DBClusterIdentifier=name, SkipFinalSnapshot=True)
    return name


def _create_cluster(database: Database, name: str) -> None:
    _rds(database).create_db_cluster(
        DBClusterIdentifier=name,
        Engine="aurora-postgresql",
        MasterUsername="login_owner",
        ManageMasterUserPassword=True,
    )


def _enabled_keys(database: Database) -> set[str]:
    kms = database.emulator.client("kms")
    keys = {key["KeyId"] for key in kms.list_keys()["Keys"]}
    return {
        key
        for key in keys
        if kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"
        and kms.describe_key(KeyId=key)["KeyMetadata"]["KeyManager"] == "CUSTOMER"
    }
