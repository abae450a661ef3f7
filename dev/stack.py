"""The stack of template.yaml in the emulator, its code packaged from what cargo-lambda built."""

import io
import json
import platform
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import WaiterError
from samtranslator.yaml_helper import yaml_parse

from dev import ROOT, TARGET
from dev.emulator import Emulator, Shows

TEMPLATE = ROOT / "template.yaml"
# Where cargo-lambda leaves the function.
PACKAGE = TARGET / "lambda" / "bootstrap"
# Each function, and the program that it runs.
PROGRAMS = {"IngestFunction": "bootstrap", "MigrateFunction": "migrate"}
CA_BUNDLE = "database-ca.pem"
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
    # None where the function logs in without a password.
    writer_secret_id: str | None
    migrate_function: str
    migrate_log_group: str
    redrive_mapping: str
    database_secret_id: str


def read_template() -> dict[str, Any]:
    """Read the template as a deployment does; its functions become what they stand for in JSON."""
    return yaml_parse(TEMPLATE.read_text())


def deploy(
    emulator: Emulator, name: str, owner: dict[str, str], ca: Path, parameters: dict[str, Any]
) -> Stack:
    """Store the credentials of the database's owner, then create the stack and wait for it.

    The certificate of the database's authority travels in the functions' packages.
    """
    secret = emulator.client("secretsmanager").create_secret(
        Name=f"{name}/database", SecretString=json.dumps(owner)
    )
    settings = {
        "DatabaseSecretArn": secret["ARN"],
        "DatabaseCaBundle": CA_BUNDLE,
        "Architecture": architecture(),
        **parameters,
    }
    upload(emulator, name, ca)
    create(emulator, name, template(name), settings)
    return find(emulator, name, secret["ARN"])


def architecture() -> str:
    """Name this machine's processor as Lambda does."""
    return "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"


def create(emulator: Emulator, name: str, body: str, parameters: dict[str, Any]) -> None:
    """Create a stack and wait for it; where it is not created, say what CloudFormation says."""
    formation = emulator.client("cloudformation")
    formation.create_stack(
        StackName=name,
        TemplateBody=body,
        Parameters=as_parameters(parameters),
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    waiter = formation.get_waiter("stack_create_complete")
    try:
        waiter.wait(StackName=name, WaiterConfig=WAITING)
    except WaiterError:
        raise RuntimeError("\n".join(failures(emulator, name))) from None


def as_parameters(settings: dict[str, Any]) -> list[dict[str, str]]:
    """Write parameters as CloudFormation takes them."""
    return [{"ParameterKey": key, "ParameterValue": str(value)} for key, value in settings.items()]


def failures(emulator: Emulator, name: str) -> list[str]:
    """Tell which resources of a stack failed, and why."""
    pages = emulator.client("cloudformation").get_paginator("describe_stack_events")
    return [
        f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
        for page in pages.paginate(StackName=name)
        for event in page["StackEvents"]
        if event["ResourceStatus"].endswith("FAILED")
    ]


def find(emulator: Emulator, name: str, database_secret_id: str) -> Stack:
    """Find a stack that was created, by what its outputs say, and make up for what was left out."""
    formation = emulator.client("cloudformation")
    [stack] = formation.describe_stacks(StackName=name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    _mend_concurrency(emulator, outputs["FunctionName"])
    if Shows.CUSTOM_RESOURCES not in emulator.kind.shows:
        functions = emulator.client("lambda")
        functions.invoke(FunctionName=outputs["MigrateFunctionName"], Payload="{}")
    return Stack(
        name=name,
        queue_url=outputs["QueueUrl"],
        dead_letter_queue_url=outputs["DeadLetterQueueUrl"],
        function=outputs["FunctionName"],
        log_group=outputs["LogGroupName"],
        salt_id=outputs["SaltSecretArn"],
        writer_secret_id=outputs.get("WriterSecretArn"),
        migrate_function=outputs["MigrateFunctionName"],
        migrate_log_group=outputs["MigrateLogGroupName"],
        redrive_mapping=outputs["RedriveMappingId"],
        database_secret_id=database_secret_id,
    )


def delete(emulator: Emulator, name: str, database_secret_id: str) -> None:
    """Delete a stack, and what was made beside it; the salt stays, as its policy says."""
    s3 = emulator.client("s3")
    for program in PROGRAMS.values():
        s3.delete_object(Bucket=name, Key=program)
    s3.delete_bucket(Bucket=name)
    formation = emulator.client("cloudformation")
    formation.delete_stack(StackName=name)
    formation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig=WAITING)
    emulator.client("secretsmanager").delete_secret(
        SecretId=database_secret_id, ForceDeleteWithoutRecovery=True
    )


def salt(emulator: Emulator, stack: Stack) -> str:
    """Read the salt, as only the function and whoever verifies a token should."""
    return _secret(emulator, stack.salt_id)


def writer_password(emulator: Emulator, stack: Stack) -> str:
    """Read the password that the function logs in with."""
    return json.loads(_secret(emulator, stack.writer_secret_id))["password"]


def upload(emulator: Emulator, bucket: str, ca: Path) -> None:
    """Store the functions' packages where the template says they are."""
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket=bucket)
    for program in PROGRAMS.values():
        s3.put_object(Bucket=bucket, Key=program, Body=_package(program, ca))


def template(bucket: str) -> str:
    """Write the template as `sam package` does, with the addresses of the packages in it."""
    made = read_template()
    # It refuses whoever comes without TLS, which the emulator does not speak.
    del made["Resources"]["QueuePolicy"]
    for function, program in PROGRAMS.items():
        made["Resources"][function]["Properties"]["CodeUri"] = f"s3://{bucket}/{program}"
    return as_text(made)


def as_text(template: dict[str, Any]) -> str:
    """Write a template without spaces: CloudFormation takes at most 51,200 bytes as text."""
    return json.dumps(template, separators=(",", ":"))


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


def _secret(emulator: Emulator, secret_id: str) -> str:
    return emulator.client("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"]


def _mend_concurrency(emulator: Emulator, function: str) -> None:
    """Set as a number what MiniStack leaves the text of a parameter, and then trips over."""
    functions = emulator.client("lambda")
    mappings = functions.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    for mapping in mappings:
        concurrency = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": concurrency}
        )


def _package(program: str, ca: Path) -> bytes:
    """Zip what cargo-lambda built, as `sam package` does, and the bundle beside it."""
    binary = TARGET / "lambda" / program / "bootstrap"
    if not binary.exists():
        raise SystemExit(f"There is no {program} yet: run `make build`.")
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(binary, "bootstrap")
        archive.write(ca, CA_BUNDLE)
    return package.getvalue()
