"""Endpoints of a network that no route leaves."""

from dataclasses import replace

from cfnlint.helpers import REGIONS
from cfnlint.rules import CloudFormationLintRule, RuleMatch
from cfnlint.template import Template

from dev.checks.deployments import resolve, stacks

# Without the first two, the migrate function cannot read its secret, nor answer CloudFormation: the
# stack can neither be created nor rolled back. Without the third, no bad message is returned.
NEEDED = ("s3", "secretsmanager", "sqs")
# A function that uses a key for key agreement calls KMS itself.
KEY_AGREEMENT = "KEY_AGREEMENT"

# Without the isolated partitions (us-iso…, us-isob…, us-isof…, eu-isoe…): AWS publishes no names of
# their endpoints.
JUDGED = [region for region in REGIONS if "-iso" not in region]

# In China, these services have another prefix: see getDefaultEndpointPrefix in AWS's CDK,
# https://github.com/aws/aws-cdk/blob/main/packages/aws-cdk-lib/aws-ec2/lib/vpc-endpoint.ts
CHINA = {"sqs", "xray"}


def service_name(service: str, region: str) -> str:
    """Return the name of a service's endpoint."""
    prefix = (
        "cn.com.amazonaws" if region.startswith("cn-") and service in CHINA else "com.amazonaws"
    )
    return f"{prefix}.{region}.{service}"


class EndpointOfPartition(CloudFormationLintRule):
    """CloudFormation refuses the name of an endpoint that the region does not have."""

    id = "E9003"
    shortdesc = "The names of endpoints exist in each region"
    description = "An endpoint has the prefix that AWS uses in the partition"
    source_url = (
        "https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html"
    )
    tags = ("resources", "vpcendpoint")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find endpoints with a name that a region does not have."""
        wrong: dict[str, str] = {}
        found = stacks(cfn.template)
        for region in JUDGED if found else []:
            # The stack with the most resources has all endpoints.
            largest, _ = max(found, key=lambda stack: len(stack[1]))
            here = replace(largest, region=region)
            for name, resource in resolve(cfn.template, here)["Resources"].items():
                if resource["Type"] == "AWS::EC2::VPCEndpoint":
                    actual = resource["Properties"]["ServiceName"]
                    if actual != service_name(actual.rsplit(".", 1)[1], region):
                        wrong[name] = f"{name}: {region} has no endpoint {actual}"
        return [
            RuleMatch(["Resources", name, "Properties", "ServiceName"], message)
            for name, message in wrong.items()
        ]


class NetworkHasEndpoints(CloudFormationLintRule):
    """Without a route to the internet, a function reaches AWS only through endpoints."""

    id = "E9004"
    shortdesc = "A network that the stack creates has the endpoints that the functions need"
    description = "No value of a parameter creates a network without these endpoints"
    source_url = "https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cfn-custom-resource-vpce.html"
    tags = ("resources", "vpcendpoint", "customresource")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find sets of parameters that create a network without an endpoint."""
        missing: dict[str, str] = {}
        for deployment, resources in stacks(cfn.template):
            types = {resource["Type"]: name for name, resource in resources.items()}
            network = types.get("AWS::EC2::VPC")
            if network is None or "AWS::EC2::InternetGateway" in types:
                continue
            present = {
                resource["Properties"]["ServiceName"].rsplit(".", 1)[1]
                for resource in resources.values()
                if resource["Type"] == "AWS::EC2::VPCEndpoint"
            }
            usages = {
                resource["Properties"].get("KeyUsage")
                for resource in resources.values()
                if resource["Type"] == "AWS::KMS::Key"
            }
            needed = (*NEEDED, *(["kms"] if KEY_AGREEMENT in usages else []))
            if absent := [service for service in needed if service not in present]:
                missing[network] = f"no endpoint for {', '.join(absent)} with {deployment}"
        return [RuleMatch(["Resources", name], message) for name, message in missing.items()]
