"""Transforms a template as CloudFormation does, with AWS's own SAM translator.

`python -m dev.checks.transform template.yaml` prints the result, which the linters read too: they
do not transform a template themselves.
"""

import json
import sys
from pathlib import Path
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

REGION = "eu-central-1"
# `sam package` uploads the code and puts its place into the template.
CODE = "s3://bucket/code"


def transformed(path: Path) -> dict[str, Any]:
    """Read a template and transform it."""
    template = yaml_parse(path.read_text())
    _set_code(template.get("Globals", {}).get("Function", {}))
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            _set_code(resource["Properties"])
    # Our roles name no policy of AWS. The session sends nothing: the translator wants a region.
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    return translator.translate(template, parameter_values={})


def _set_code(properties: dict[str, Any]) -> None:
    if "CodeUri" in properties:
        properties["CodeUri"] = CODE


if __name__ == "__main__":
    print(json.dumps(transformed(Path(sys.argv[1])), indent=1))
