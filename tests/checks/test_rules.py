"""Each rule of deploy/rules accepts the template, and finds its fault when it is put back."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cfnlint.core import get_rules, run_checks
from cfnlint.decode import decode
from cfnlint.match import Match
from cfnlint.rules import RulesCollection

from deploy import packages
from dev import ROOT
from dev.checks.transform import transformed
from dev.stack import TEMPLATE, read_template

Json = dict[str, Any]
IMAGE = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/login-etl:tag"


@pytest.fixture(scope="module")
def own() -> RulesCollection:
    """Load the rules of deploy/rules only."""
    rules = RulesCollection()
    rules.create_from_directory(str(ROOT / "deploy" / "rules"))
    return rules


@pytest.fixture(scope="module")
def every() -> RulesCollection:
    """Load these rules and those of cfn-lint."""
    return get_rules([str(ROOT / "deploy" / "rules")], [], [])


def _resources(template: Json, kind: str) -> list[Json]:
    return [one for one in template["Resources"].values() if one["Type"] == kind]


def _properties(template: Json, name: str) -> Json:
    return template["Resources"][name]["Properties"]


def _retain_key(template: Json) -> None:
    template["Resources"]["Key"]["DeletionPolicy"] = "Retain"


def _retain_salt(template: Json) -> None:
    template["Resources"]["Salt"]["DeletionPolicy"] = "Retain"


def _protect_by_default(template: Json) -> None:
    template["Parameters"]["DatabaseDeletionProtection"]["Default"] = "true"


def _protect_always(template: Json) -> None:
    _properties(template, "DatabaseCluster")["DeletionProtection"] = True


def _create_no_endpoints(template: Json) -> None:
    template["Parameters"]["VpcEndpoints"]["AllowedValues"].append("none")
    template["Conditions"]["CreatesEndpoints"] = {
        "Fn::And": [
            {"Condition": "CreatesDatabase"},
            {"Fn::Not": [{"Fn::Equals": [{"Ref": "VpcEndpoints"}, "none"]}]},
        ]
    }
    for endpoint in _resources(template, "AWS::EC2::VPCEndpoint"):
        if endpoint["Condition"] == "CreatesDatabase":
            endpoint["Condition"] = "CreatesEndpoints"


def _reach_kms_with_all_endpoints_only(template: Json) -> None:
    template["Resources"]["KmsEndpoint"]["Condition"] = "CreatesAllEndpoints"


def _forget_china(template: Json) -> None:
    name = {"Fn::Sub": "com.amazonaws.${AWS::Region}.sqs"}
    _properties(template, "SqsEndpoint")["ServiceName"] = name


def _name_dashboard_without_region(template: Json) -> None:
    _properties(template, "Dashboard")["DashboardName"] = {"Ref": "AWS::StackName"}


def _forget_waiting_messages(template: Json) -> None:
    _properties(template, "OldestMessageAlarm")["TreatMissingData"] = "notBreaching"


def _keep_messages_for_four_days(template: Json) -> None:
    del _properties(template, "LoginQueue")["MessageRetentionPeriod"]


def _fill_the_environment(template: Json) -> None:
    variables = _properties(template, "IngestFunction")["Environment"]["Variables"]
    variables["MORE"] = "x" * 3000


def _describe_an_alarm_at_length(template: Json) -> None:
    _properties(template, "DeadLettersAlarm")["AlarmDescription"] = "x" * 1025


def _allow_much(template: Json) -> None:
    [policy] = _properties(template, "IngestRole")["Policies"]
    [first, *_] = policy["PolicyDocument"]["Statement"]
    policy["PolicyDocument"]["Statement"] += [first] * 50


def _name_a_queue_at_length(template: Json) -> None:
    name = {"Fn::Sub": "${AWS::StackName}-queue-of-logins-to-be-written"}
    _properties(template, "LoginQueue")["QueueName"] = name


def _name_many_actions_for_the_queue(template: Json) -> None:
    [first, *_] = _properties(template, "QueuePolicy")["PolicyDocument"]["Statement"]
    first["Action"] = [f"sqs:{number}" for number in range(8)]


FAULTS = [
    (_retain_key, "E9001"),
    (_retain_salt, "E9001"),
    (_protect_by_default, "E9002"),
    (_protect_always, "E9002"),
    (_forget_china, "E9003"),
    (_create_no_endpoints, "E9004"),
    (_reach_kms_with_all_endpoints_only, "E9004"),
    (_name_dashboard_without_region, "E9005"),
    (_forget_waiting_messages, "E9006"),
    (_keep_messages_for_four_days, "E9007"),
    (_fill_the_environment, "E9009"),
    (_describe_an_alarm_at_length, "E9009"),
    (_allow_much, "E9009"),
    (_name_a_queue_at_length, "E9009"),
    (_name_many_actions_for_the_queue, "E9009"),
]


@pytest.mark.parametrize(
    ("put_back", "rule"), FAULTS, ids=lambda one: getattr(one, "__name__", one)
)
def test_fault_put_back_is_found(
    put_back: Callable[[Json], None], rule: str, own: RulesCollection, tmp_path: Path
) -> None:
    template = transformed(TEMPLATE)
    put_back(template)

    found = _judge(template, own, tmp_path)

    assert {match.rule.id for match in found} == {rule}, found


def test_template_keeps_every_rule(own: RulesCollection, tmp_path: Path) -> None:
    assert len({rule.id for rule in own}) == 9
    assert _judge(read_template(), own, tmp_path) == []
    assert _judge(transformed(TEMPLATE), own, tmp_path) == []


def test_image_keeps_every_rule(every: RulesCollection, tmp_path: Path) -> None:
    template = packages.image_template(IMAGE)
    turned_off = template["Metadata"]["cfn-lint"]["config"]["ignore_checks"]

    found = _judge(template, every, tmp_path)

    assert {match.rule.id for match in found} <= {*turned_off}, found


def test_old_image_recipe_is_found(every: RulesCollection, tmp_path: Path) -> None:
    # As docs/deployment.md once said, without moving what stands in Globals and in Metadata.
    template = read_template()
    del template["Globals"]["Function"]["CodeUri"]
    _properties(template, "MigrateFunction")["CodeUri"] = "."
    _properties(template, "IngestFunction").update(PackageType="Image", ImageUri=IMAGE)

    found = _judge(template, every, tmp_path)

    assert {"E3685", "E9008"} <= {match.rule.id for match in found}, found


def test_make_validate_runs_each_judge() -> None:
    command = ["make", "--dry-run", "validate", "validate-regions"]
    steps = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout

    for judge in (
        r"cfn-lint --append-rules .+ --regions ALL_REGIONS .+ target/validate/transformed\.json",
        r"cfn-lint --append-rules deploy/rules .+ --template template\.yaml",
        r"cfn-lint --append-rules deploy/rules .+ deploy/registry\.yaml",
        r"cfn-lint --append-rules deploy/rules .+ deploy/deployer\.yaml",
        r"cfn-lint --append-rules deploy/rules .+ target/packages/image\.json",
        r"python -m dev\.checks\.policies",
        r"python -m dev\.checks\.xray_names",
        r"python -m dev\.checks\.aws_calls",
        r"sam validate --lint",
        r"checkov",
    ):
        assert re.search(judge, steps), judge


def _judge(template: Json, rules: RulesCollection, folder: Path) -> list[Match]:
    path = folder / "template.json"
    path.write_text(json.dumps(template))
    read, problems = decode(str(path))
    return problems or run_checks(str(path), read, rules, ["eu-central-1"])
