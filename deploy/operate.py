"""What an operator does with a deployed stack: `python -m deploy.operate --help`.

It takes the stack's name and region from samconfig.toml, and the credentials that AWS's SDK finds.
"""

import argparse
import json
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from time import monotonic, sleep

import boto3
from botocore.client import BaseClient

from dev import ROOT

PATIENCE_S = 30

Client = Callable[[str], BaseClient]


def redrive(client: Client, stack: str, patience_s: float = PATIENCE_S) -> int:
    """Let the function take the dead letters, until for a while no more of them become rows."""
    outputs = _outputs(client, stack)
    queue, mapping = outputs["DeadLetterQueueUrl"], outputs["RedriveMappingId"]
    before = left = _count(client, queue)
    print(f"{before} dead letter(s)")
    client("lambda").update_event_source_mapping(UUID=mapping, Enabled=True)
    try:
        patient_until = monotonic() + patience_s
        while monotonic() < patient_until:
            sleep(patience_s / 15)
            if (now := _count(client, queue)) != left:
                left, patient_until = now, monotonic() + patience_s
                print(f"{left} left")
    finally:
        client("lambda").update_event_source_mapping(UUID=mapping, Enabled=False)
    if left:
        print(f"{left} failed again; their lines in {outputs['LogGroupName']} say why")
    return 1 if left else 0


def rotate(client: Client, stack: str) -> int:
    """Give the function's role in the database a new password; if that fails, keep the old one."""
    outputs = _outputs(client, stack)
    if "WriterSecretArn" not in outputs:
        print("There is no password: the function logs in by IAM.")
        return 1
    secrets, secret = client("secretsmanager"), outputs["WriterSecretArn"]
    old = secrets.get_secret_value(SecretId=secret)["SecretString"]
    password = secrets.get_random_password(PasswordLength=64, ExcludePunctuation=True)
    new = json.loads(old) | {"password": password["RandomPassword"]}
    secrets.put_secret_value(SecretId=secret, SecretString=json.dumps(new))
    answer = client("lambda").invoke(FunctionName=outputs["MigrateFunctionName"], Payload="{}")
    if "FunctionError" not in answer:
        print("The password is a new one. The function fetches it when it next logs in.")
        return 0
    secrets.put_secret_value(SecretId=secret, SecretString=old)
    print(f"The password is the old one: {json.load(answer['Payload'])['errorMessage']}")
    return 1


def _outputs(client: Client, stack: str) -> dict[str, str]:
    [found] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def _count(client: Client, queue_url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


def main() -> int:
    """Read the command line and do what it says."""
    environments = tomllib.loads((ROOT / "samconfig.toml").read_text())
    del environments["version"]
    parser = argparse.ArgumentParser(prog="deploy.operate", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for command in (redrive, rotate):
        one = commands.add_parser(command.__name__, help=command.__doc__)
        one.add_argument("environment", choices=environments)
        one.set_defaults(command=command)
    arguments = parser.parse_args()
    settings = environments[arguments.environment]["global"]["parameters"]
    client = partial(boto3.client, region_name=settings["region"])
    return arguments.command(client, settings["stack_name"])


if __name__ == "__main__":
    sys.exit(main())
