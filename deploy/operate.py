"""Commands for a deployed stack: `python -m deploy.operate --help`.

The stack's name and region come from samconfig.toml, the credentials from where the AWS SDK finds
them.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Callable
from functools import partial

import boto3
from botocore.client import BaseClient
from botocore.config import Config

from dev import ROOT

Client = Callable[[str], BaseClient]


def rotate(client: Client, stack: str) -> int:
    """Set a new password for login_writer; exit with 1 if it is not set yet.

    The function logs in with the current or the previous password in the secret, so an interruption
    at any place leaves a password that works.
    """
    outputs = _outputs(client, stack)
    if "WriterSecretArn" not in outputs:
        print("Nothing to rotate: the function logs in by IAM, without a password.")
        return 1
    # After an interrupted rotation, only the previous password works. Another change of the secret
    # would remove it, so the current password must be set first.
    if reason := _migrate(client, outputs):
        print(f"migrate failed, so the password was not changed: {reason}")
        return 1
    secrets, secret = client("secretsmanager"), outputs["WriterSecretArn"]
    old = secrets.get_secret_value(SecretId=secret)["SecretString"]
    password = secrets.get_random_password(PasswordLength=64, ExcludePunctuation=True)
    new = json.loads(old) | {"password": password["RandomPassword"]}
    secrets.put_secret_value(SecretId=secret, SecretString=json.dumps(new))
    if reason := _migrate(client, outputs):
        print(
            "The secret has a new password, but migrate failed. The function logs in with the old "
            f"password until the next run of migrate sets the new one: {reason}"
        )
        return 1
    print("The new password is set. The function fetches it when it next has to log in.")
    return 0


def _migrate(client: Client, outputs: dict[str, str]) -> str | None:
    """Let migrate set the current password, without pruning the ledger; return why it failed."""
    function = outputs["MigrateFunctionName"]
    answer = client("lambda").invoke(FunctionName=function, Payload='{"prune": false}')
    return json.load(answer["Payload"])["errorMessage"] if "FunctionError" in answer else None


def _outputs(client: Client, stack: str) -> dict[str, str]:
    [found] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def main() -> int:
    """Run the command that the command line names."""
    environments = tomllib.loads((ROOT / "samconfig.toml").read_text())
    del environments["version"]
    parser = argparse.ArgumentParser(prog="deploy.operate", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for function in (rotate,):
        summary = function.__doc__.splitlines()[0]
        command = commands.add_parser(function.__name__, help=summary)
        command.add_argument("environment", choices=environments)
        command.set_defaults(function=function)
    arguments = parser.parse_args()
    settings = environments[arguments.environment]["global"]["parameters"]
    # migrate may run for 5 minutes. boto3 would give up after one.
    config = Config(read_timeout=310)
    client = partial(boto3.client, region_name=settings["region"], config=config)
    return arguments.function(client, settings["stack_name"])


if __name__ == "__main__":
    sys.exit(main())
