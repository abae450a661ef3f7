"""What must never drift in the template, read as the deployment reads it."""

from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from e2e.stack import TEMPLATE

HOUR_S = 3600


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """Read the template."""
    return yaml_parse(TEMPLATE.read_text())


@pytest.fixture(scope="module")
def default(template: dict[str, Any]) -> dict[str, Any]:
    """Read what the parameters are where nobody sets them."""
    parameters = template["Parameters"].items()
    return {name: parameter.get("Default") for name, parameter in parameters}


def test_a_message_stays_hidden_for_as_long_as_aws_advises(default: dict[str, Any]) -> None:
    advised = 6 * default["FunctionTimeout"] + default["BatchingWindow"]

    assert default["VisibilityTimeout"] >= advised


def test_an_hour_without_the_database_makes_no_dead_letter(default: dict[str, Any]) -> None:
    # A batch that fails comes back when its visibility timeout is over, and not before.
    survived = default["MaxReceiveCount"] * default["VisibilityTimeout"]

    assert survived >= HOUR_S


def test_dead_letters_are_kept_for_as_long_as_sqs_can(template: dict[str, Any]) -> None:
    queue = template["Resources"]["DeadLetterQueue"]["Properties"]

    assert queue["MessageRetentionPeriod"] == 14 * 24 * HOUR_S
    assert queue["RedriveAllowPolicy"]["redrivePermission"] == "byQueue"


def test_only_the_failed_messages_of_a_batch_come_back(template: dict[str, Any]) -> None:
    mapping = template["Resources"]["IngestFunction"]["Properties"]["Events"]["Logins"]

    assert mapping["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert "RedrivePolicy" in template["Resources"]["LoginQueue"]["Properties"]


def test_the_salt_outlives_the_stack_and_is_not_rotated(template: dict[str, Any]) -> None:
    salt = template["Resources"]["Salt"]

    assert (salt["DeletionPolicy"], salt["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert salt["Properties"]["GenerateSecretString"]["PasswordLength"] == 64
    rotations = [
        one
        for one in template["Resources"].values()
        if one["Type"] == "AWS::SecretsManager::RotationSchedule"
    ]
    assert rotations == []


def test_no_policy_allows_every_resource_or_action(template: dict[str, Any]) -> None:
    policies = template["Resources"]["IngestRole"]["Properties"]["Policies"]

    for policy in policies:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert "*" not in str(statement["Resource"])
            assert "*" not in str(statement["Action"])


def test_no_secret_is_in_an_environment_variable(template: dict[str, Any]) -> None:
    function = template["Resources"]["IngestFunction"]["Properties"]

    assert set(function["Environment"]["Variables"]) == {
        "SALT_SECRET_ID",
        "DATABASE_SECRET_ID",
        "DATABASE_HOST",
        "DATABASE_PORT",
        "DATABASE_NAME",
        "DATABASE_CA_BUNDLE",
        "RUST_LOG",
    }
