"""Fails if a stack or its database is protected from deletion: `make delete` runs it first.

CloudFormation refuses to delete a protected database only when it has already deleted the queue and
the functions.
"""

import argparse
import sys
import tomllib
from collections.abc import Callable

import boto3
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

from dev import ROOT

Client = Callable[[str], BaseClient]


def protections(client: Client, stack: str) -> list[str]:
    """Return what protects a stack from deletion, each with the way to end it."""
    formation = client("cloudformation")
    try:
        [found] = formation.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        # `sam delete` reports a stack that does not exist.
        if error.response["Error"]["Code"] == "ValidationError":
            return []
        raise
    reasons = []
    if found.get("EnableTerminationProtection"):
        reasons.append(
            f"The stack {stack} has termination protection: aws cloudformation "
            f"update-termination-protection --no-enable-termination-protection --stack-name {stack}"
        )
    pages = formation.get_paginator("list_stack_resources").paginate(StackName=stack)
    clusters = [
        resource["PhysicalResourceId"]
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::RDS::DBCluster" and "PhysicalResourceId" in resource
    ]
    status = found["StackStatus"]
    return reasons + [
        f"The database {cluster} has deletion protection: {way_to_unprotect(cluster, status)}"
        for cluster in clusters
        if _is_protected(client, cluster)
    ]


def way_to_unprotect(cluster: str, status: str) -> str:
    """Return how to end the protection of a database whose stack has a status."""
    # CloudFormation updates no stack after one of these.
    if status in {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"}:
        return (
            "aws rds modify-db-cluster --no-deletion-protection --db-cluster-identifier " + cluster
        )
    return "deploy with DatabaseDeletionProtection=false first"


def _is_protected(client: Client, cluster: str) -> bool:
    rds = client("rds")
    try:
        [found] = rds.describe_db_clusters(DBClusterIdentifier=cluster)["DBClusters"]
    except rds.exceptions.DBClusterNotFoundFault:
        return False
    return bool(found.get("DeletionProtection"))


def main() -> int:
    """Read samconfig.toml, and print what protects the stack of an environment."""
    parser = argparse.ArgumentParser(prog="deploy.protection", description=__doc__)
    parser.add_argument("environment")
    environment = parser.parse_args().environment
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())
    if environment not in settings:
        parser.error(f"samconfig.toml has no environment {environment}")
    where = settings[environment]["global"]["parameters"]
    session = boto3.Session(region_name=where["region"])
    try:
        reasons = protections(session.client, where["stack_name"])
    except (BotoCoreError, ClientError) as error:
        print(error, file=sys.stderr)
        return 1
    if reasons:
        print(*reasons, "Nothing was deleted.", sep="\n", file=sys.stderr)
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
