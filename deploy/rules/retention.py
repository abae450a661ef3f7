"""What a failed creation leaves behind, and what it cannot delete."""

from cfnlint.rules import CloudFormationLintRule, RuleMatch
from cfnlint.template import Template

from dev.checks.deployments import stacks


class RetainedAfterFailedCreation(CloudFormationLintRule):
    """`Retain` also keeps the resources of a creation that failed; nobody finds or deletes them."""

    id = "E9001"
    shortdesc = "A failed creation leaves nothing behind"
    description = "DeletionPolicy is RetainExceptOnCreate, not Retain"
    source_url = "https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-deletionpolicy.html"
    tags = ("resources", "deletionpolicy")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find resources that a failed creation leaves behind."""
        return [
            RuleMatch(
                ["Resources", name, "DeletionPolicy"],
                f"{name} stays after a creation that failed: use RetainExceptOnCreate",
            )
            for name, resource in cfn.get_resources().items()
            if resource.get("DeletionPolicy") == "Retain"
        ]


class ProtectedDuringCreation(CloudFormationLintRule):
    """A protected cluster refuses to be deleted, so a failed creation ends in ROLLBACK_FAILED."""

    id = "E9002"
    shortdesc = "A failed creation can be rolled back"
    description = "By default, no database is protected from deletion when it is created"
    source_url = (
        "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/USER_DeleteCluster.html"
    )
    tags = ("resources", "rds")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find databases that the default parameters protect."""
        return [
            RuleMatch(
                ["Resources", name, "Properties", "DeletionProtection"],
                f"{name} is protected when it is created: a failed creation could not delete it",
            )
            for name in sorted(
                {
                    name
                    for _, resources in stacks(cfn.template)
                    for name, resource in resources.items()
                    if resource["Type"] in {"AWS::RDS::DBCluster", "AWS::RDS::DBInstance"}
                    and str(resource["Properties"].get("DeletionProtection")).lower() == "true"
                }
            )
        ]
