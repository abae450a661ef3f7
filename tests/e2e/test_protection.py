"""`make delete` deletes nothing of a stack that is protected from deletion."""

import json
import os
import subprocess
from collections.abc import Iterator

import boto3
import pytest
from botocore.client import BaseClient

from deploy.protection import way_to_unprotect
from dev import ROOT, TARGET, emulator
from dev.emulator import Emulator, Feature, Kind
from dev.local_system import make_directory

# Of the environment `prod` in samconfig.toml.
STACK, REGION = "login-etl-prod", "eu-central-1"

pytestmark = pytest.mark.needs(Feature.CUSTOM_RESOURCES)


@pytest.fixture(scope="module")
def ministack() -> Iterator[Emulator]:
    """Start MiniStack, and create a stack with a queue and a protected database."""
    log = TARGET / "e2e-protection.log"
    started = emulator.start(Kind.MINISTACK, make_directory() / "emulator", log)
    database = {
        "Engine": "aurora-postgresql",
        "MasterUsername": "owner",
        "ManageMasterUserPassword": True,
        "DeletionProtection": True,
    }
    resources = {
        "LoginQueue": {"Type": "AWS::SQS::Queue"},
        "DatabaseCluster": {"Type": "AWS::RDS::DBCluster", "Properties": database},
    }
    try:
        formation = _client(started, "cloudformation")
        formation.create_stack(StackName=STACK, TemplateBody=json.dumps({"Resources": resources}))
        formation.get_waiter("stack_create_complete").wait(
            StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        yield started
    finally:
        started.stop()


def test_protected_database_stops_deletion_before_it_begins(ministack: Emulator) -> None:
    done = _make_delete(ministack)

    assert done.returncode != 0
    assert "has deletion protection: deploy with DatabaseDeletionProtection=false" in done.stderr
    assert "Nothing was deleted." in done.stderr
    assert _status(ministack) == "CREATE_COMPLETE"
    assert len(_client(ministack, "sqs").list_queues()["QueueUrls"]) == 1


def test_termination_protection_stops_deletion(ministack: Emulator) -> None:
    formation = _client(ministack, "cloudformation")
    formation.update_termination_protection(StackName=STACK, EnableTerminationProtection=True)

    done = _make_delete(ministack)

    formation.update_termination_protection(StackName=STACK, EnableTerminationProtection=False)
    assert done.returncode != 0
    assert f"The stack {STACK} has termination protection" in done.stderr
    assert _status(ministack) == "CREATE_COMPLETE"


def test_unprotected_stack_is_deleted(ministack: Emulator) -> None:
    rds = _client(ministack, "rds")
    [cluster] = rds.describe_db_clusters()["DBClusters"]
    rds.modify_db_cluster(
        DBClusterIdentifier=cluster["DBClusterIdentifier"], DeletionProtection=False
    )

    done = _make_delete(ministack)

    assert done.returncode == 0, done.stdout + done.stderr
    assert _client(ministack, "sqs").list_queues().get("QueueUrls", []) == []


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"])
def test_stack_without_updates_names_another_way(status: str) -> None:
    way = "aws rds modify-db-cluster --no-deletion-protection --db-cluster-identifier one"

    assert way_to_unprotect("one", status) == way
    assert way_to_unprotect("one", "UPDATE_COMPLETE").startswith("deploy with")


def _client(ministack: Emulator, service: str) -> BaseClient:
    return boto3.client(
        service,
        endpoint_url=ministack.endpoint,
        region_name=REGION,
        aws_access_key_id=ministack.key,
        aws_secret_access_key=ministack.key,
    )


def _status(ministack: Emulator) -> str:
    [stack] = _client(ministack, "cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    return stack["StackStatus"]


def _make_delete(ministack: Emulator) -> subprocess.CompletedProcess[str]:
    """Run `make delete ENV=prod`, and answer the questions of SAM with y."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    return subprocess.run(
        ["make", "delete", "ENV=prod"],
        check=False,
        cwd=ROOT,
        env=environment | ministack.environment,
        input="y\n" * 9,
        capture_output=True,
        text=True,
    )
