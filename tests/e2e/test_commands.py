"""The AWS commands of docs/operations.md, run as they are written, on the stack of the tests."""

import re

from dev import ROOT
from e2e import documented
from e2e.commands import run
from e2e.driver import Driver

TEXT = (ROOT / "docs" / "operations.md").read_text()
NOT_RUN = {
    "aws logs describe-query-definitions": "no emulator saves queries",
    "aws rds restore-db-cluster-to-point-in-time": "its arguments depend on the cluster",
    "aws rds create-db-instance": "its arguments depend on the cluster",
}
# test_created_database.py runs them.
OF_CREATED_DATABASE = documented.commands("A database that the stack created")
# test_export.py runs it.
OF_EXPORT = documented.commands("Run the export")


def test_documented_aws_commands_succeed(driver: Driver) -> None:
    emulator, deployed = driver.system.emulator, driver.system.stack
    secrets, functions = emulator.client("secretsmanager"), emulator.client("lambda")
    salt = driver.salt
    secrets.put_secret_value(
        SecretId=deployed.salt_id, SecretString="of somebody who made a mistake"
    )
    commands = _commands()
    left_out = {name for name in NOT_RUN if any(one.startswith(name) for one in commands)}
    values = _values(driver)

    try:
        for command in commands:
            if not command.startswith(tuple(NOT_RUN)):
                run(emulator, deployed.name, command, values)
        restored = driver.salt
    finally:
        secrets.put_secret_value(SecretId=deployed.salt_id, SecretString=salt)
        functions.update_function_configuration(FunctionName=deployed.function, MemorySize=256)

    assert len(commands) > 8
    assert left_out == set(NOT_RUN)
    assert restored == salt


def _commands() -> list[str]:
    """Find the commands, in code blocks and in the text."""
    blocks = re.findall(r"^```sh\n(.+?)^```", TEXT, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    shown = [line for line in lines if line.startswith("aws ")] + re.findall(r"`(aws [^`]+)`", TEXT)
    return [command for command in shown if command not in [*OF_CREATED_DATABASE, *OF_EXPORT]]


def _values(driver: Driver) -> dict[str, str]:
    """Find what the placeholders stand for: outputs of the stack, a mapping, and two versions."""
    emulator, deployed = driver.system.emulator, driver.system.stack
    [found] = emulator.client("cloudformation").describe_stacks(StackName=deployed.name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
    answer = emulator.client("lambda").list_event_source_mappings(FunctionName=deployed.function)
    [mapping] = [
        one["UUID"]
        for one in answer["EventSourceMappings"]
        if one["EventSourceArn"].endswith("-logins")
    ]
    answer = emulator.client("secretsmanager").list_secret_version_ids(SecretId=deployed.salt_id)
    versions = {
        f"id with {label}": version["VersionId"]
        for version in answer["Versions"]
        for label in version["VersionStages"]
    }
    return outputs | versions | {"UUID": mapping}
