"""Dashboards, alarms and queues that say the truth."""

from cfnlint.rules import CloudFormationLintRule, RuleMatch
from cfnlint.template import Template

from dev.checks.deployments import stacks


class DashboardPerRegion(CloudFormationLintRule):
    """Dashboards are global: the same stack in a second region would take over the first's."""

    id = "E9005"
    shortdesc = "The name of a dashboard contains the region"
    description = "A dashboard has another name in another region"
    source_url = (
        "https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Dashboards.html"
    )
    tags = ("resources", "dashboard")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find dashboards with the same name in two regions."""
        same: set[str] = set()
        elsewhere = stacks(cfn.template, region="us-west-2")
        for (_, here), (_, there) in zip(stacks(cfn.template), elsewhere, strict=True):
            for name, resource in here.items():
                if resource["Type"] == "AWS::CloudWatch::Dashboard":
                    other = there[name]["Properties"].get("DashboardName")
                    if resource["Properties"].get("DashboardName") == other:
                        same.add(name)
        return [
            RuleMatch(
                ["Resources", name, "Properties", "DashboardName"],
                f"{name} has the same name in each region: add AWS::Region",
            )
            for name in sorted(same)
        ]


class QueueAlarmKeepsItsState(CloudFormationLintRule):
    """SQS sends no metrics for a queue that was not used for six hours, although messages wait."""

    id = "E9006"
    shortdesc = "An alarm on a queue ignores missing data"
    description = "TreatMissingData is ignore: no data does not mean an empty queue"
    source_url = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/monitoring-using-cloudwatch.html"
    tags = ("resources", "alarm", "sqs")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find alarms on queues that change their state without data."""
        return [
            RuleMatch(
                ["Resources", name, "Properties"],
                f"{name} returns to OK when the queue is inactive: TreatMissingData must be ignore",
            )
            for name, alarm in cfn.get_resources("AWS::CloudWatch::Alarm").items()
            if alarm["Properties"].get("Namespace") == "AWS/SQS"
            and alarm["Properties"].get("TreatMissingData") != "ignore"
        ]


class QueueRetention(CloudFormationLintRule):
    """By default, SQS deletes a message after 4 days, without moving it to a dead-letter queue."""

    id = "E9007"
    shortdesc = "A queue keeps its messages for 14 days, the maximum"
    description = "MessageRetentionPeriod is 1209600"
    source_url = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html"
    tags = ("resources", "sqs")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find queues that delete messages earlier."""
        return [
            RuleMatch(
                ["Resources", name, "Properties"],
                f"{name} deletes messages before 14 days: set MessageRetentionPeriod",
            )
            for name, queue in cfn.get_resources("AWS::SQS::Queue").items()
            if queue.get("Properties", {}).get("MessageRetentionPeriod") != 1209600
        ]
