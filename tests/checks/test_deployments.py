"""The kinds of stack of a template, and their resources without functions."""

from typing import Any

import pytest

from dev.checks import deployments
from dev.checks.deployments import Deployment, resolve

Json = dict[str, Any]


def _template(**parameters: Json) -> Json:
    return {
        "Parameters": {name: {"Type": "String"} | one for name, one in parameters.items()},
        "Conditions": {
            "Large": {"Fn::Equals": [{"Ref": "Size"}, "large"]},
            "Named": {"Fn::Not": [{"Fn::Equals": [{"Ref": "DatabaseHost"}, ""]}]},
        },
        "Resources": {
            "Queue": {"Type": "AWS::SQS::Queue", "Condition": "Large"},
            "Key": {
                "Type": "AWS::KMS::Key",
                "Properties": {
                    "Host": {"Fn::If": ["Named", {"Ref": "DatabaseHost"}, {"Ref": "AWS::NoValue"}]},
                    "Place": {"Fn::Sub": ["${One}.${AWS::Region}.${AWS::URLSuffix}", {"One": "a"}]},
                    "Arn": {"Fn::GetAtt": ["Key", "Arn"]},
                },
            },
        },
    }


SIZE = {"Default": "small", "AllowedValues": ["small", "large"]}
HOST = {"Default": ""}


def test_each_choice_is_a_stack_twice() -> None:
    found = deployments.deployments(_template(Size=SIZE, DatabaseHost=HOST))

    assert [(one.parameters["Size"], bool(one.parameters["DatabaseHost"])) for one in found] == [
        ("small", False),
        ("small", True),
        ("large", False),
        ("large", True),
    ]


def test_forbidden_parameters_make_no_stack() -> None:
    template = _template(Size=SIZE, DatabaseHost=HOST)
    small = {"Fn::Equals": [{"Ref": "Size"}, "small"]}
    unnamed = {"Fn::Equals": [{"Ref": "DatabaseHost"}, ""]}
    template["Rules"] = {
        "OnlySmall": {"Assertions": [{"Assert": small, "AssertDescription": "too large"}]},
        "Unnamed": {"Assertions": [{"Assert": unnamed, "AssertDescription": "named"}]},
    }

    found = deployments.deployments(template)

    assert {(one.parameters["Size"], one.parameters["DatabaseHost"]) for one in found} == {
        ("small", "")
    }


def test_functions_and_conditions_are_resolved() -> None:
    template = _template(Size=SIZE, DatabaseHost=HOST)
    there = Deployment({"Size": "small", "DatabaseHost": ""}, region="cn-north-1")

    resources = resolve(template, there)["Resources"]

    assert set(resources) == {"Key"}
    assert resources["Key"]["Properties"] == {
        "Place": "a.cn-north-1.amazonaws.com.cn",
        "Arn": "arn:aws-cn:kms:cn-north-1:111122223333:key/login-etl-prod-Key-1ABCDEFGHIJK",
    }


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"Unknown": {"Default": ""}}, "EXAMPLES in deployments.py has no value for Unknown"),
        (
            {"DatabaseHost": {"Default": "", "AllowedPattern": "^[0-9]*$"}},
            "AllowedPattern of DatabaseHost refuses logins.cluster",
        ),
    ],
)
def test_parameter_without_usable_example_is_an_error(parameter: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        deployments.deployments(_template(Size=SIZE, **{"DatabaseHost": HOST} | parameter))


def test_unknown_function_is_an_error() -> None:
    template = _template(Size=SIZE, DatabaseHost=HOST)
    template["Resources"]["Key"]["Properties"]["New"] = {"Fn::New": []}

    with pytest.raises(ValueError, match="Fn::New is not known"):
        resolve(template, Deployment({"Size": "small", "DatabaseHost": ""}))
