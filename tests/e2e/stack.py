"""The stack of template.yaml in the emulator, its code packaged from what cargo-lambda built."""

import io
import json
import platform
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from e2e import ROOT, TARGET
from e2e.emulator import Emulator

TEMPLATE = ROOT / "template.yaml"
PACKAGE = TARGET / "lambda" / "bootstrap"
FUNCTION = "IngestFunction"
CA_BUNDLE = "database-ca.pem"
CODE = "bootstrap.zip"
BATCH = 10
WAITING = {"Delay": 1, "MaxAttempts": 60}


@dataclass(frozen=True)
class Stack:
    """A deployed stack: its name and what its outputs say."""

    name: str
    queue_url: str
    dead_letter_queue_url: str
    function: str
    log_group: str
    salt_id: str
    database_secret_id: str


def read_template() -> dict[str, Any]:
    """Read the template as a deployment does; its functions become what they stand for in JSON."""
    return yaml_parse(TEMPLATE.read_text())


def deploy(
    emulator: Emulator, name: str, credentials: dict[str, Any], ca: Path, parameters: dict[str, Any]
) -> Stack:
    """Store the database's credentials, then create the stack and wait for it.

    The authority's certificate travels in the function's package, as the database's would on AWS.
    """
    secret = emulator.client("secretsmanager").create_secret(
        Name=f"{name}/database", SecretString=json.dumps(credentials)
    )
    code = _upload(emulator, name, _package(ca))
    formation = emulator.client("cloudformation")
    settings = {
        "DatabaseSecretArn": secret["ARN"],
        "DatabaseCaBundle": CA_BUNDLE,
        "Architecture": "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64",
        **parameters,
    }
    formation.create_stack(
        StackName=name,
        TemplateBody=_template(code),
        Parameters=[
            {"ParameterKey": key, "ParameterValue": str(value)} for key, value in settings.items()
        ],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig=WAITING)
    stack = formation.describe_stacks(StackName=name)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    _mend_concurrency(emulator, outputs["FunctionName"], settings["MaximumConcurrency"])
    return Stack(
        name=name,
        queue_url=outputs["QueueUrl"],
        dead_letter_queue_url=outputs["DeadLetterQueueUrl"],
        function=outputs["FunctionName"],
        log_group=outputs["LogGroupName"],
        salt_id=outputs["SaltSecretArn"],
        database_secret_id=secret["ARN"],
    )


def delete(emulator: Emulator, stack: Stack) -> None:
    """Delete a stack, and what was made beside it; the salt stays, as its policy says."""
    s3 = emulator.client("s3")
    s3.delete_object(Bucket=stack.name, Key=CODE)
    s3.delete_bucket(Bucket=stack.name)
    emulator.client("secretsmanager").delete_secret(SecretId=stack.database_secret_id)
    formation = emulator.client("cloudformation")
    formation.delete_stack(StackName=stack.name)
    formation.get_waiter("stack_delete_complete").wait(StackName=stack.name, WaiterConfig=WAITING)


def salt(emulator: Emulator, stack: Stack) -> str:
    """Read the salt, as only the function and whoever verifies a token should."""
    secrets = emulator.client("secretsmanager")
    return secrets.get_secret_value(SecretId=stack.salt_id)["SecretString"]


def send(emulator: Emulator, queue_url: str, bodies: list[str]) -> Iterator[list[str]]:
    """Send messages, ten at a time as SQS allows; yield the ids that each ten were given."""
    sqs = emulator.client("sqs")
    for start in range(0, len(bodies), BATCH):
        entries = [
            {"Id": str(number), "MessageBody": body}
            for number, body in enumerate(bodies[start : start + BATCH])
        ]
        answer = sqs.send_message_batch(QueueUrl=queue_url, Entries=entries)
        if refused := answer.get("Failed"):
            raise RuntimeError(f"the queue refused {len(refused)} messages: {refused[0]['Code']}")
        yield [sent["MessageId"] for sent in answer["Successful"]]


def count(emulator: Emulator, queue_url: str) -> int:
    """Count the messages in a queue, those in flight included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = emulator.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


def peek(emulator: Emulator, queue_url: str) -> list[dict[str, Any]]:
    """Read the messages of a queue that nobody else reads, and leave them there."""
    sqs = emulator.client("sqs")
    messages: dict[str, dict[str, Any]] = {}
    while len(messages) < count(emulator, queue_url):
        # Hidden for a while, because a queue gives the same message again as long as it is visible.
        answer = sqs.receive_message(
            QueueUrl=queue_url, MaxNumberOfMessages=BATCH, VisibilityTimeout=30
        )
        if not answer.get("Messages"):
            break
        messages |= {message["MessageId"]: message for message in answer["Messages"]}
    for message in messages.values():
        sqs.change_message_visibility(
            QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )
    return list(messages.values())


def _mend_concurrency(emulator: Emulator, function: str, concurrency: int) -> None:
    """Set as a number what MiniStack leaves the text of a parameter, and then trips over."""
    functions = emulator.client("lambda")
    mappings = functions.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    for mapping in mappings:
        functions.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": concurrency}
        )


def _package(ca: Path) -> bytes:
    """Zip what cargo-lambda built, as `sam package` does, and the bundle beside it."""
    if not (PACKAGE / "bootstrap").exists():
        raise SystemExit("There is no bootstrap yet: run `make build`.")
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(PACKAGE / "bootstrap", "bootstrap")
        archive.write(ca, CA_BUNDLE)
    return package.getvalue()


def _upload(emulator: Emulator, bucket: str, package: bytes) -> str:
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key=CODE, Body=package)
    return f"s3://{bucket}/{CODE}"


def _template(code: str) -> str:
    """Put the address of the code into the template, and change nothing else."""
    template = read_template()
    template["Resources"][FUNCTION]["Properties"]["CodeUri"] = code
    return json.dumps(template)
