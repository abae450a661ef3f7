"""Quotas of AWS that CloudFormation meets only in the middle of a deployment.

cfn-lint's own rules check the template's quotas: its body, of at most 1 MB from S3, which `sam
deploy` uses (E1002), and the number of parameters, resources and outputs:
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
"""

import json
from collections.abc import Iterator
from typing import Any

from cfnlint.rules import CloudFormationLintRule, RuleMatch
from cfnlint.template import Template

from dev.checks.deployments import stacks

# docs/deployment.md states this length.
LONGEST_STACK_NAME = "a" * 64
# A parameter with any text counts with this length. A host name has at most 253 characters.
TEXT = "x" * 255
ENVIRONMENT_BYTES = 4096

# Characters of names and texts, by the API that CloudFormation calls.
LENGTHS = {
    # https://docs.aws.amazon.com/apigatewayv2/latest/api-reference/apis-apiid.html
    "AWS::ApiGatewayV2::Api": {"Name": 128, "Description": 1024},
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
    "AWS::CloudWatch::Alarm": {"AlarmName": 255, "AlarmDescription": 1024},
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html
    "AWS::CloudWatch::Dashboard": {"DashboardName": 255},
    # https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html
    "AWS::EC2::SecurityGroup": {"GroupDescription": 255},
    # https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreatePolicy.html
    "AWS::IAM::ManagedPolicy": {"Description": 1000},
    # https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html
    "AWS::KMS::Key": {"Description": 8192},
    # https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
    "AWS::Lambda::Function": {"Description": 256},
    # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutQueryDefinition.html
    "AWS::Logs::QueryDefinition": {"Name": 255, "QueryString": 10000},
    # https://docs.aws.amazon.com/scheduler/latest/APIReference/API_CreateSchedule.html
    "AWS::Scheduler::Schedule": {"Description": 512},
    # https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
    "AWS::SecretsManager::Secret": {"Description": 2048},
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
    "AWS::SQS::Queue": {"QueueName": 80},
}

# Characters of policies. IAM does not count white space.
POLICIES = {
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    "AWS::IAM::ManagedPolicy": {"PolicyDocument": 6144},
    "AWS::IAM::Role": {"AssumeRolePolicyDocument": 2048},
    # https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-limits-endpoints.html
    "AWS::EC2::VPCEndpoint": {"PolicyDocument": 20480},
    # https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_SetRepositoryPolicy.html
    "AWS::ECR::Repository": {"RepositoryPolicyText": 10240},
    # https://docs.aws.amazon.com/kms/latest/developerguide/resource-limits.html
    "AWS::KMS::Key": {"KeyPolicy": 32768},
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-policies.html
    "AWS::SQS::QueuePolicy": {"PolicyDocument": 8192},
}
# All inline policies of a role together.
INLINE_POLICIES = 10240
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-policies.html
QUEUE_STATEMENTS, QUEUE_ACTIONS, QUEUE_PRINCIPALS, QUEUE_CONDITIONS = 20, 7, 50, 10


class Quotas(CloudFormationLintRule):
    """AWS refuses what is too large, in the middle of a deployment."""

    id = "E9009"
    shortdesc = "Names, texts, policies and environments are within AWS's quotas"
    description = (
        "Judged with the longest name of a stack, and 255 characters in a parameter for any text"
    )
    source_url = "https://docs.aws.amazon.com/general/latest/gr/aws-service-information.html"
    tags = ("resources", "limits")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find what is too large in a stack that the parameters allow."""
        found: dict[tuple[str, str], str] = {}
        texts = {
            name: TEXT[: int(parameter.get("MaxLength", len(TEXT)))]
            for name, parameter in cfn.template.get("Parameters", {}).items()
            if parameter["Type"] == "String"
            and not {"AllowedValues", "AllowedPattern"} & {*parameter}
        }
        for _, resources in stacks(cfn.template, LONGEST_STACK_NAME, values=texts):
            for name, resource in resources.items():
                properties = resource.get("Properties", {})
                for place, size, limit in _sizes(resource["Type"], properties):
                    if size > limit:
                        found[name, place] = f"{name}: {place} is {size}, and AWS allows {limit}"
        return [RuleMatch(["Resources", name], message) for (name, _), message in found.items()]


def _sizes(kind: str, properties: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Measure a resource: the place, its size, and AWS's limit."""
    for place, limit in LENGTHS.get(kind, {}).items():
        yield place, len(properties.get(place, "")), limit
    for place, limit in POLICIES.get(kind, {}).items():
        yield place, len(_compact(properties.get(place, ""))), limit
    match kind:
        case "AWS::IAM::Role":
            inline = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
            yield "Policies", sum(len(_compact(policy)) for policy in inline), INLINE_POLICIES
        case "AWS::Lambda::Function":
            variables = properties.get("Environment", {}).get("Variables", {})
            # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
            yield "Environment", len(_compact(variables).encode()), ENVIRONMENT_BYTES
        case "AWS::SQS::QueuePolicy":
            yield from _of_queue_policy(properties["PolicyDocument"]["Statement"])


def _of_queue_policy(statements: list[dict[str, Any]]) -> Iterator[tuple[str, int, int]]:
    yield "Statement", len(statements), QUEUE_STATEMENTS
    principals = [_list(one) for st in statements for one in _values(st.get("Principal"))]
    yield "Principal", sum(map(len, principals)), QUEUE_PRINCIPALS
    conditions = [one for st in statements for one in st.get("Condition", {}).values()]
    yield "Condition", sum(map(len, conditions)), QUEUE_CONDITIONS
    for number, statement in enumerate(statements):
        yield f"Action of statement {number}", len(_list(statement["Action"])), QUEUE_ACTIONS


def _values(principal: Any) -> list[Any]:  # noqa: ANN401 - a text or an object
    return [*principal.values()] if isinstance(principal, dict) else [principal]


def _list(value: Any) -> list[Any]:  # noqa: ANN401 - of all JSON types
    return value if isinstance(value, list) else [value]


def _compact(document: Any) -> str:  # noqa: ANN401 - of all JSON types
    return json.dumps(document, separators=(",", ":")) if document else ""
