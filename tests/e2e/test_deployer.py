"""The roles of deploy/deployer.yaml may deploy the stack, and nothing beyond it.

AWS publishes which permissions CloudFormation needs for a resource type, and which resources an
action accepts; cfn-lint has both. MiniStack decides what a policy allows.
"""

import base64
import copy
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document
from samtranslator.yaml_helper import yaml_parse

from dev import ROOT, TARGET, emulator
from dev.checks.transform import transformed
from dev.emulator import REGION, Emulator, Feature, Kind
from dev.local_system import make_directory

# Only this emulator decides by policies.
pytestmark = pytest.mark.needs(Feature.ROLES)

DEPLOYER = "login-etl-staging-deployer"
STACK = "login-etl-staging"
ACCOUNT = "000000000000"
STACK_ARN = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}"
SAM = "AWS::Serverless-2016-10-31"
SUBJECT = "repo:OWNER/REPOSITORY"
GITHUB = "token.actions.githubusercontent.com"
TOOLS = TARGET / "tools" / "deploy" / "bin"
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
MANAGED_POLICY_LIMIT = 6144
INLINE_POLICIES_LIMIT = 10240

# The parameters of deployer.yaml that add policies.
ALL_POLICIES = (
    *("CreateDatabase=true", "Analysts=true", "Export=true", "Vault=true", "Images=true"),
)

# Actions for properties that template.yaml does not set. CloudFormation does not call them.
UNUSED = {
    "apigateway:TagResource": "no action of IAM: to tag an API is a POST",
    "apigateway:UntagResource": "no action of IAM: to untag an API is a DELETE",
    "cognito-idp:DescribeUserPoolClient": "no user pool",
    "ec2:AssociateSubnetCidrBlock": "no range of IPv6 addresses",
    "ec2:CreateVpcEncryptionControl": "no encryption control",
    "ec2:DescribeIpamPools": "no pool of addresses",
    "ec2:DisassociateSubnetCidrBlock": "no range of IPv6 addresses",
    "ec2:ModifyVpcTenancy": "no dedicated hardware",
    "elasticfilesystem:DescribeMountTargets": "no file system",
    "elasticloadbalancing:ModifyCapacityReservation": "no reserved capacity",
    "elasticloadbalancing:ModifyIpPools": "no pool of addresses",
    "firehose:TagDeliveryStream": "no delivery of logs",
    "iam:AttachGroupPolicy": "no groups",
    "iam:AttachUserPolicy": "no users",
    "iam:DeleteRolePermissionsBoundary": "no boundary",
    "iam:DetachGroupPolicy": "no groups",
    "iam:DetachUserPolicy": "no users",
    "iam:PutRolePermissionsBoundary": "no boundary",
    "lambda:AssociateRuntimeAlias": "no pinned runtime",
    "lambda:DeleteFunctionCodeSigningConfig": "no code signing",
    "lambda:GetCodeSigningConfig": "no code signing",
    "lambda:PassCapacityProvider": "no capacity provider",
    "lambda:PutFunctionCodeSigningConfig": "no code signing",
    "lambda:PutFunctionScalingConfig": "no capacity provider",
    "logs:CreateLogDelivery": "no delivery of logs",
    "logs:DeleteDataProtectionPolicy": "no data protection policy",
    "logs:DeleteIndexPolicy": "no index",
    "logs:DeleteResourcePolicy": "no resource policy",
    "logs:PutBearerTokenAuthentication": "no bearer tokens",
    "logs:PutDataProtectionPolicy": "no data protection policy",
    "logs:PutIndexPolicy": "no index",
    "logs:PutLogGroupDeletionProtection": "no protection of log groups",
    "logs:PutResourcePolicy": "no resource policy",
    "rds:AddRoleToDBCluster": "no role of the database",
    "rds:AddRoleToDBInstance": "no role of the database",
    "rds:CreateDBInstanceReadReplica": "no replica",
    "rds:PromoteReadReplica": "no replica",
    "rds:RemoveFromGlobalCluster": "no global database",
    "rds:RemoveRoleFromDBCluster": "no role of the database",
    "rds:RemoveRoleFromDBInstance": "no role of the database",
    "rds:RestoreDBClusterToPointInTime": "a restore goes through a snapshot",
    "rds:RestoreDBInstanceFromDBSnapshot": "Aurora restores clusters",
    "rds:RestoreDBInstanceToPointInTime": "Aurora restores clusters",
    "rds:StartDBInstanceAutomatedBackupsReplication": "no copies in other regions",
    "rds:StopDBInstanceAutomatedBackupsReplication": "no copies in other regions",
    "s3:CreateBucketMetadataTableConfiguration": "no table of metadata",
    "s3:DeleteBucketAnalyticsConfiguration": "no analytics",
    "s3:DeleteBucketCors": "no other origins",
    "s3:DeleteBucketEncryption": "no action of IAM: to delete it is a put",
    "s3:DeleteBucketLifecycle": "no action of IAM: to delete it is a put",
    "s3:DeleteBucketMetadataTableConfiguration": "no table of metadata",
    "s3:DeleteBucketMetricsConfiguration": "no metrics of requests",
    "s3:DeleteBucketReplication": "no copies in other regions",
    "s3:DeleteBucketWebsite": "no website",
    "s3:DeleteObject": "a bucket with files is not deleted",
    "s3:PutAccelerateConfiguration": "no acceleration",
    "s3:PutAnalyticsConfiguration": "no analytics",
    "s3:PutBucketAbac": "no access by tags",
    "s3:PutBucketAcl": "no lists of access: the bucket's owner owns its files",
    "s3:PutBucketCORS": "no other origins",
    "s3:PutBucketLogging": "no log of S3",
    "s3:PutBucketNotification": "no notifications",
    "s3:PutBucketObjectLockConfiguration": "no locked files: an erased row must go",
    "s3:PutBucketReplication": "no copies in other regions",
    "s3:PutBucketVersioning": "no older versions: an erased row must go",
    "s3:PutBucketWebsite": "no website",
    "s3:PutIntelligentTieringConfiguration": "no tiers",
    "s3:PutInventoryConfiguration": "no inventory",
    "s3:PutMetricsConfiguration": "no metrics of requests",
    "s3:PutObjectAcl": "no lists of access: the bucket's owner owns its files",
    "s3:PutObjectLockConfiguration": "no locked files: an erased row must go",
    "s3:PutReplicationConfiguration": "no copies in other regions",
    "s3:REST.PUT.OBJECT": "no delivery of logs",
    "s3:UpdateBucketMetadataAnnotationTableConfiguration": "no table of metadata",
    "s3:UpdateBucketMetadataInventoryTableConfiguration": "no table of metadata",
    "s3:UpdateBucketMetadataJournalTableConfiguration": "no table of metadata",
    "s3:getObject": "no description of the API in S3",
    "s3files:ListMountTargets": "no file system",
    "s3tables:CreateNamespace": "no table of metadata",
    "s3tables:CreateTable": "no table of metadata",
    "s3tables:CreateTableBucket": "no table of metadata",
    "s3tables:GetTable": "no table of metadata",
    "s3tables:GetTableMetadataLocation": "no table of metadata",
    "s3tables:PutTableBucketPolicy": "no table of metadata",
    "s3tables:PutTableEncryption": "no table of metadata",
    "s3tables:PutTablePolicy": "no table of metadata",
    "s3tables:UpdateTableMetadataLocation": "no table of metadata",
    "secretsmanager:RemoveRegionsFromReplication": "no copies in other regions",
    "secretsmanager:ReplicateSecretToRegions": "no copies in other regions",
    "vpc-lattice:CreateServiceNetworkVpcEndpointAssociation": "no service network",
    "vpc-lattice:DescribeServiceNetworkVpcEndpointAssociation": "no service network",
    "vpce:AllowMultiRegion": "no endpoint of another region",
}
# The policies of the repository stay.
UNUSED_OF_REGISTRY = {"ecr:DeleteLifecyclePolicy", "ecr:DeleteRepositoryPolicy"}
# The types that pass a role, and the service that gets it.
PASSED_TO = {
    "AWS::Lambda::Function": "lambda.amazonaws.com",
    "AWS::Scheduler::Schedule": "scheduler.amazonaws.com",
}


@pytest.fixture(scope="module")
def ministack() -> Iterator[Emulator]:
    """Start MiniStack, and create the two roles."""
    directory = make_directory()
    log = TARGET / "e2e-deployer.log"
    # GitHub's token signs no request, which a private emulator refuses.
    started = emulator.start(Kind.MINISTACK, directory / "emulator", log, is_private=False)
    try:
        _run(_documented_command(), started.environment | {"AWS_DEFAULT_REGION": REGION})
        yield started
    finally:
        started.stop()


@pytest.fixture
def pipeline(ministack: Emulator) -> Iterator[dict[str, str]]:
    """Return the environment of a program that has the credentials of the pipeline's role.

    The emulator does not have the condition key cloudformation:RoleArn, so this condition is away.
    """
    iam, role = ministack.client("iam"), _role(ministack, "PipelineRole")
    policy = {"RoleName": role, "PolicyName": "deploy"}
    document = iam.get_role_policy(**policy)["PolicyDocument"]
    adapted = copy.deepcopy(document)
    for statement in adapted["Statement"]:
        if "cloudformation:RoleArn" in str(statement):
            del statement["Condition"]
    iam.put_role_policy(**policy, PolicyDocument=json.dumps(adapted))
    session = _assume(ministack, f"{SUBJECT}:environment:staging")
    yield ministack.environment | {
        "AWS_ACCESS_KEY_ID": session["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": session["SecretAccessKey"],
        "AWS_SESSION_TOKEN": session["SessionToken"],
        "SAM_CLI_TELEMETRY": "0",
    }
    iam.put_role_policy(**policy, PolicyDocument=json.dumps(document))


def test_deployment_role_has_each_permission_of_types(ministack: Emulator) -> None:
    policies = _policies(ministack, "DeploymentRole")
    needed = _permissions()

    assert {action for _, action in needed} >= UNUSED.keys()
    refused = {
        (resource_type, action, resource)
        for resource_type, action in needed
        if action not in UNUSED
        for resource in _resources(action, STACK)
        if not _allowed(policies, action, resource, resource_type)
    }
    assert refused == set()


def test_own_database_needs_no_database_policy(ministack: Emulator) -> None:
    policies = [
        parse_policy_document(document)
        for document in _managed(ministack, "DeploymentRole")
        if "rds:CreateDBCluster" not in str(document)
    ]

    refused = {
        (resource_type, action)
        for resource_type, action in _permissions()
        if not resource_type.startswith(("AWS::RDS::", "AWS::EC2::")) and action not in UNUSED
        for resource in _resources(action, STACK)
        if not _allowed(policies, action, resource, resource_type)
    }
    assert len(policies) == 6
    assert refused == set()
    for action in ("rds:CreateDBCluster", "ec2:CreateVpc", "iam:CreateServiceLinkedRole"):
        assert not any(
            _allowed(policies, action, resource) for resource in _resources(action, STACK)
        )


def test_pipeline_creates_registry_and_pushes_images(ministack: Emulator) -> None:
    policies = _policies(ministack, "PipelineRole")
    template = yaml_parse((ROOT / "deploy" / "registry.yaml").read_text())
    [images] = template["Resources"].values()
    needed = _permissions({images["Type"]})
    repository = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/login-etl"
    via = {"kms:viaservice": f"ecr.{REGION}.amazonaws.com"}

    assert images["DeletionPolicy"] == "RetainExceptOnCreate"
    for action in {action for _, action in needed} | {"ecr:PutImage", "ecr:BatchGetImage"}:
        for resource in _resources(action, STACK):
            if action not in UNUSED_OF_REGISTRY:
                assert _allowed(policies, action, resource, **via), action
    assert not _allowed(policies, "ecr:PutImage", f"{repository}-other")


def test_deployment_role_invokes_custom_resources_only(ministack: Emulator) -> None:
    policies = _policies(ministack, "DeploymentRole")
    functions = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}"

    for function in ("MigrateFunction", "VaultFunction"):
        assert _allowed(policies, "lambda:InvokeFunction", f"{functions}-{function}-1")
    for function in ("IngestFunction", "ApiFunction", "ExportFunction"):
        assert not _allowed(policies, "lambda:InvokeFunction", f"{functions}-{function}-1")


def test_deployment_role_opens_no_sealed_value(ministack: Emulator) -> None:
    policies = _policies(ministack, "DeploymentRole")
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"

    assert not _allowed(policies, "kms:DeriveSharedSecret", key)
    # CloudFormation invokes the function; the API is for people.
    for route in ("token", "reveal", "erase"):
        request = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:1/$default/POST/{route}"
        assert not _allowed(policies, "execute-api:Invoke", request)


def test_other_stacks_are_out_of_reach(ministack: Emulator) -> None:
    policies = _policies(ministack, "DeploymentRole")

    reached = {
        action
        for action in _actions(policies)
        for resource in _resources(action, "other-stack")
        if "other" in resource and _allowed(policies, action, resource)
    }
    assert {action for action in reached if ":Describe" not in action} == {
        # From a snapshot of any database of the account.
        "rds:RestoreDBClusterFromSnapshot",
    }


def test_deployment_changes_no_rights_of_others(ministack: Emulator) -> None:
    policies = _policies(ministack, "DeploymentRole")
    role = f"arn:aws:iam::{ACCOUNT}:role/{STACK}-IngestRole-1"
    administrator = {"iam:policyarn": "arn:aws:iam::aws:policy/AdministratorAccess"}
    ec2 = {"iam:passedtoservice": "ec2.amazonaws.com"}
    own = ministack.client("cloudformation").describe_stack_resources(StackName=DEPLOYER)

    assert not _allowed(policies, "iam:AttachRolePolicy", role, **administrator)
    assert not _allowed(policies, "iam:PassRole", role, **ec2)
    for resource in own["StackResources"]:
        if resource["ResourceType"] == "AWS::IAM::Role":
            arn = f"arn:aws:iam::{ACCOUNT}:role/{resource['PhysicalResourceId']}"
            assert not _allowed(policies, "iam:PutRolePolicy", arn)
            assert not _allowed(policies, "iam:PassRole", arn)


def test_deployment_role_reads_no_exported_file(ministack: Emulator) -> None:
    policies = _policies(ministack, "DeploymentRole")
    file = f"arn:aws:s3:::{STACK}-exportbucket-1/user_logins/dt=2026-11-22/part-00000.parquet"

    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert not _allowed(policies, action, file)


def test_no_policy_allows_all_actions_or_services(ministack: Emulator) -> None:
    for role in ("DeploymentRole", "PipelineRole"):
        for policy in _policies(ministack, role):
            for statement in policy:
                assert statement.effect == "Deny" or statement.actions != []
                assert statement.effect == "Deny" or not any("*" in a for a in statement.actions)


def test_policies_fit_quotas(ministack: Emulator) -> None:
    for document in _managed(ministack, "DeploymentRole"):
        assert len(json.dumps(document, separators=(",", ":"))) <= MANAGED_POLICY_LIMIT
    inline = _inline(ministack, "PipelineRole")
    sizes = [len(json.dumps(document, separators=(",", ":"))) for document in inline]
    assert sum(sizes) <= INLINE_POLICIES_LIMIT


def test_only_one_environment_of_repository_is_trusted(ministack: Emulator) -> None:
    assert _assume(ministack, f"{SUBJECT}:environment:staging")

    for subject in (
        f"{SUBJECT}:environment:production",
        f"{SUBJECT}:ref:refs/heads/main",
        "repo:OTHER/REPOSITORY:environment:staging",
        "repo:OWNER@1/REPOSITORY@2:environment:staging",
    ):
        with pytest.raises(ClientError, match="Not authorized"):
            _assume(ministack, subject)


@pytest.mark.parametrize("subject", ["repo:OWNER/REPO", "repo:OWNER@123456/REPO.name@456789"])
def test_subject_takes_both_forms(subject: str) -> None:
    pattern = _deployer()["Parameters"]["GitHubSubject"]["AllowedPattern"]
    matches = [
        value for value in (subject, f"{subject}:*", "repo:OWNER/*") if re.fullmatch(pattern, value)
    ]

    assert matches == [subject]


def test_pipeline_role_reads_no_secret(ministack: Emulator) -> None:
    policies = _policies(ministack, "PipelineRole")
    actions = _actions(policies)

    assert {action.split(":")[0] for action in actions} == {
        "cloudformation",
        "ecr",
        "iam",
        "kms",
        "lambda",
        "logs",
        "s3",
        "sqs",
    }
    assert {action for action in actions if action.startswith("iam:")} == {"iam:PassRole"}
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"
    via = {"kms:viaservice": f"secretsmanager.{REGION}.amazonaws.com"}
    assert not _allowed(policies, "kms:Decrypt", key, **via)


def test_pipeline_role_may_run_smoke_test(ministack: Emulator) -> None:
    policies = _policies(ministack, "PipelineRole")
    queue = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{STACK}"
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{STACK}"
    groups = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
    via = {"kms:viaservice": f"sqs.{REGION}.amazonaws.com"}

    for action, resource in (
        ("cloudformation:DescribeStacks", f"{STACK_ARN}/1"),
        ("lambda:InvokeFunction", f"{function}-IngestFunction-1"),
        ("sqs:SendMessage", f"{queue}-logins"),
        ("sqs:GetQueueAttributes", f"{queue}-logins"),
        ("kms:GenerateDataKey", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"),
        ("kms:Decrypt", f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"),
        ("logs:FilterLogEvents", f"{groups}:{STACK}-IngestLogGroup-1:*"),
        ("logs:FilterLogEvents", f"{groups}:/aws/lambda/{STACK}-IngestFunction-1:*"),
    ):
        assert _allowed(policies, action, resource, **via), action
    assert not _allowed(policies, "lambda:InvokeFunction", f"{function}-MigrateFunction-1")
    assert not _allowed(policies, "sqs:SendMessage", f"{queue}-DeadLetterQueue-1")


def test_pipeline_deploys_with_deployment_role_only(ministack: Emulator) -> None:
    policies = _policies(ministack, "PipelineRole")
    stack = f"{STACK_ARN}/1"
    role = _outputs(ministack)["DeploymentRoleArn"]
    create = "cloudformation:CreateChangeSet"

    assert _allowed(policies, create, stack, **{"cloudformation:rolearn": role})
    assert not _allowed(policies, create, stack, **{"cloudformation:rolearn": "arn:other"})
    assert not _allowed(policies, create, stack)
    assert not _allowed(policies, "cloudformation:UpdateStack", stack)
    assert _allowed(
        policies,
        create,
        f"arn:aws:cloudformation:{REGION}:aws:transform/Serverless-2016-10-31",
    )


def test_pipeline_uploads_under_its_stacks_name_only(ministack: Emulator) -> None:
    policies = _policies(ministack, "PipelineRole")
    bucket = "arn:aws:s3:::aws-sam-cli-managed-default-samclisourcebucket-1"

    assert _allowed(policies, "s3:PutObject", f"{bucket}/{STACK}/package")
    assert not _allowed(policies, "s3:PutObject", f"{bucket}/login-etl-prod/package")
    assert not _allowed(policies, "s3:PutObject", f"{bucket}/package")


def test_sam_deploys_with_rights_of_pipeline(
    ministack: Emulator, pipeline: dict[str, str], tmp_path: Path
) -> None:
    template = tmp_path / "template.yaml"
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": f"{STACK}-logins"}}
    template.write_text(json.dumps({"Transform": SAM, "Resources": {"LoginQueue": queue}}))
    command = [
        *(TOOLS / "sam", "deploy", "--template", template),
        *("--stack-name", STACK, "--role-arn", _outputs(ministack)["DeploymentRoleArn"]),
        *("--region", REGION, "--resolve-s3", "--s3-prefix", STACK),
        *("--capabilities", "CAPABILITY_IAM"),
        *(
            "--no-confirm-changeset",
            "--no-fail-on-empty-changeset",
            "--tags",
            "environment=staging",
        ),
    ]

    first = subprocess.run(command, check=False, env=pipeline, capture_output=True, text=True)
    # SAM's bucket refuses requests without TLS, which the emulator does not have.
    [bucket] = re.findall("Managed S3 bucket: (.*)", first.stdout)
    ministack.client("s3").delete_bucket_policy(Bucket=bucket)
    _run(command, pipeline)

    url = ministack.client("sqs").get_queue_url(QueueName=f"{STACK}-logins")["QueueUrl"]
    sqs = boto3.client(
        "sqs",
        endpoint_url=ministack.endpoint,
        region_name=REGION,
        aws_access_key_id=pipeline["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=pipeline["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=pipeline["AWS_SESSION_TOKEN"],
    )
    sqs.send_message(QueueUrl=url, MessageBody="{}")
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.delete_queue(QueueUrl=url)


def _documented_command() -> list[object]:
    """Return the command of the document that creates the roles, here with all policies."""
    text = (ROOT / "docs" / "deployment.md").read_text().replace("\\\n", "")
    [command] = re.findall(
        f"^aws cloudformation deploy --stack-name {DEPLOYER} .*", text, re.MULTILINE
    )
    return [TOOLS / "aws", *shlex.split(command)[1:], *ALL_POLICIES]


def _run(command: list[object], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _outputs(ministack: Emulator) -> dict[str, str]:
    found = ministack.client("cloudformation").describe_stacks(StackName=DEPLOYER)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def _deployer() -> dict[str, Any]:
    return yaml_parse((ROOT / "deploy" / "deployer.yaml").read_text())


def _permissions(types: set[str] | None = None) -> set[tuple[str, str]]:
    """Return the permissions that AWS publishes for types, by default those of template.yaml."""
    return {
        (resource_type, action)
        for resource_type in types or _types()
        for handler in _schema(resource_type)["handlers"].values()
        for action in handler["permissions"]
        if action != "iam:PassRole" or resource_type in PASSED_TO
    }


def _types() -> set[str]:
    """Return the resource types of the stack, as SAM's transform writes them."""
    resources = transformed(ROOT / "template.yaml")["Resources"].values()
    types = {resource["Type"] for resource in resources}
    return {name for name in types if name.startswith("AWS::")}


def _schema(resource_type: str) -> dict[str, Any]:
    return PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource_type).schema


@cache
def _services() -> dict[str, Any]:
    """Return AWS's list of actions, each with the kinds of resources that it accepts."""
    path = files("cfnlint") / "data" / "AdditionalSpecs" / "Policies.json"
    return json.loads(path.read_text())


def _resources(action: str, stack: str) -> list[str]:
    """Return resources of a stack on which CloudFormation takes an action."""
    service, name = action.split(":")
    kinds = _services()[service]["Actions"][name.lower()].get("Resources", [])
    if service == "apigateway":
        # An API, and all APIs; the other kinds are of other types.
        kinds = ["api", "apis"]
    arns = [arn for kind in kinds for arn in _arns(service, kind, name, stack)]
    assert arns or not kinds, action
    return arns or ["*"]


def _arns(service: str, kind: str, name: str, stack: str) -> list[str]:
    """Return the ARN that a resource of a stack has, by the names that CloudFormation gives."""
    here = f"arn:aws:{service}:{REGION}:{ACCOUNT}"
    secret = "other" if stack != STACK else "Salt"
    if service == "ec2":
        return [f"{here}:{kind}/x-1"]
    if service == "rds" and kind in {"og", "pg"}:
        # The groups that exist in each account. Nothing changes their tags.
        return [] if "Tags" in name else [f"{here}:{kind}:default.aurora-postgresql17"]
    if name == "DescribeGlobalClusters":
        return [f"arn:aws:rds::{ACCOUNT}:global-cluster:*"]
    known = {
        "apigateway:api": f"arn:aws:apigateway:{REGION}::/apis/1",
        "apigateway:apis": f"arn:aws:apigateway:{REGION}::/apis",
        "cloudwatch:alarm": f"{here}:alarm:{stack}-throttles",
        "cloudwatch:dashboard": f"arn:aws:cloudwatch::{ACCOUNT}:dashboard/{stack}",
        "ecr:repository": f"{here}:repository/login-etl",
        "elasticloadbalancing:listener/app": f"{here}:listener/app/x/1/1",
        "elasticloadbalancing:loadbalancer/app/": f"{here}:loadbalancer/app/x/1",
        "elasticloadbalancing:targetgroup": f"{here}:targetgroup/x/1",
        "iam:policy": f"arn:aws:iam::{ACCOUNT}:policy/{stack}-NetworkPolicy-1",
        "iam:role": f"arn:aws:iam::{ACCOUNT}:role/{stack}-IngestRole-1",
        "kms:key": f"{here}:key/1",
        "lambda:eventSourceMapping": f"{here}:event-source-mapping:1",
        "lambda:function": f"{here}:function:{stack}-IngestFunction-1",
        "lambda:layerVersion": f"{here}:layer:ca:1",
        "logs:log-group": f"{here}:log-group:{stack}-IngestLogGroup-1",
        "rds:cluster": f"{here}:cluster:{stack}-databasecluster-1",
        "rds:cluster-pg": f"{here}:cluster-pg:{stack}-databaseparameters-1",
        "rds:cluster-snapshot": f"{here}:cluster-snapshot:{stack}-snapshot-databasecluster-1",
        "rds:db": f"{here}:db:{stack}-databaseinstance-1",
        "rds:snapshot": f"{here}:snapshot:{stack}-snapshot-databaseinstance-1",
        "rds:subgrp": f"{here}:subgrp:{stack}-databasesubnets-1",
        "s3:bucket": f"arn:aws:s3:::{stack}-exportbucket-1",
        "s3:object": f"arn:aws:s3:::aws-sam-cli-managed-default-samclisourcebucket-1/{stack}/key",
        "scheduler:schedule": f"{here}:schedule/default/{stack}-Upkeep-1",
        "secretsmanager:Secret": f"{here}:secret:{secret}-1-AbCdEf",
        "sqs:queue": f"{here}:{stack}-logins",
    }
    if name == "CreateServiceLinkedRole":
        service_role = "role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS"
        return [f"arn:aws:iam::{ACCOUNT}:{service_role}"]
    found = known.get(f"{service}:{kind}")
    return [found] if found else []


def _allowed(
    policies: list[list[Any]], action: str, resource: str, resource_type: str = "", **keys: str
) -> bool:
    """Return whether policies allow an action, as CloudFormation takes it for the stack."""
    context = {
        "iam:passedtoservice": PASSED_TO.get(resource_type, ""),
        "iam:policyarn": f"arn:aws:iam::{ACCOUNT}:policy/{STACK}-NetworkPolicy-1",
        "iam:awsservicename": "rds.amazonaws.com",
        "kms:viaservice": f"secretsmanager.{REGION}.amazonaws.com",
        "lambda:functionarn": _arns("lambda", "function", "", STACK)[0],
    }
    request = EvalContext(
        principal_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/role/session",
        principal_type="AssumedRole",
        principal_account=ACCOUNT,
        action=action,
        resource_arn=resource,
        region=REGION,
        service_context=context | keys,
    )
    return evaluate(request, policies).decision == "Allow"


def _actions(policies: list[list[Any]]) -> set[str]:
    """Return the actions that policies allow."""
    return {
        action
        for policy in policies
        for statement in policy
        if statement.effect == "Allow"
        for action in statement.actions
    }


def _policies(ministack: Emulator, role: str) -> list[list[Any]]:
    documents = _managed(ministack, role) + _inline(ministack, role)
    return [parse_policy_document(document) for document in documents]


def _role(ministack: Emulator, role: str) -> str:
    formation = ministack.client("cloudformation")
    found = formation.describe_stack_resource(StackName=DEPLOYER, LogicalResourceId=role)
    return found["StackResourceDetail"]["PhysicalResourceId"]


def _managed(ministack: Emulator, role: str) -> list[dict[str, Any]]:
    iam = ministack.client("iam")
    attached = iam.list_attached_role_policies(RoleName=_role(ministack, role))
    return [
        iam.get_policy_version(
            PolicyArn=policy["PolicyArn"],
            VersionId=iam.get_policy(PolicyArn=policy["PolicyArn"])["Policy"]["DefaultVersionId"],
        )["PolicyVersion"]["Document"]
        for policy in attached["AttachedPolicies"]
    ]


def _inline(ministack: Emulator, role: str) -> list[dict[str, Any]]:
    iam, name = ministack.client("iam"), _role(ministack, role)
    return [
        iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]


def _assume(ministack: Emulator, subject: str) -> dict[str, Any]:
    """Assume the pipeline's role with a token of GitHub, whose signature MiniStack ignores."""
    claims = {"iss": f"https://{GITHUB}", "aud": "sts.amazonaws.com", "sub": subject}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    return ministack.client("sts").assume_role_with_web_identity(
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{_role(ministack, 'PipelineRole')}",
        RoleSessionName="pipeline",
        WebIdentityToken=f"{token}.c2lnbmF0dXJl",
    )["Credentials"]
