"""Functions from a container image."""

from cfnlint.rules import CloudFormationLintRule, RuleMatch
from cfnlint.template import Template


class ImageIsNotBuilt(CloudFormationLintRule):
    """With a BuildMethod, `sam build` builds a zip package, which Lambda does not take as an image.

    cfn-lint's rule E3685 finds the other settings of a zip package.
    """

    id = "E9008"
    shortdesc = "SAM does not build a zip package for a function from an image"
    description = "A function from an image has no BuildMethod"
    source_url = "https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/building-custom-runtimes.html"
    tags = ("resources", "lambda")

    def match(self, cfn: Template) -> list[RuleMatch]:
        """Find functions from an image that SAM would build."""
        return [
            RuleMatch(["Resources", name, "Metadata"], f"{name} is an image: remove BuildMethod")
            for kind in ("AWS::Serverless::Function", "AWS::Lambda::Function")
            for name, function in cfn.get_resources(kind).items()
            if function["Properties"].get("PackageType") == "Image"
            and "BuildMethod" in function.get("Metadata", {})
        ]
