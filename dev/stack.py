"""Deploys template.yaml to the emulator, with the programs that cargo-lambda built."""

import io
import json
import platform
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

from botocore.exceptions import ClientError, WaiterError
from samtranslator.yaml_helper import yaml_parse

from dev import ROOT, TARGET
from dev.emulator import Emulator, Feature, Kind

TEMPLATE = ROOT / "template.yaml"
# cargo-lambda builds the function here.
PACKAGE = TARGET / "lambda" / "bootstrap"
# The program of each function.
PROGRAMS = {"IngestFunction": "bootstrap", "MigrateFunction": "migrate"}
# The functions that a stack has only with a parameter. `make build-api`, `build-export` and
# `build-vault` build their programs.
OPTIONAL_PROGRAMS = {
    "Analysts": {"ApiFunction": "api"},
    "Export": {"ExportFunction": "export"},
    "Vault": {"VaultFunction": "vault"},
}
ALL_PROGRAMS = PROGRAMS | {
    function: program
    for programs in OPTIONAL_PROGRAMS.values()
    for function, program in programs.items()
}
CA_BUNDLE = "database-ca.pem"
BATCH = 10
WAITER_CONFIG = {"Delay": 1, "MaxAttempts": 60}


@dataclass(frozen=True)
class Stack:
    """A deployed stack: its name and its outputs."""

    name: str
    queue_url: str
    dead_letter_queue_url: str
    function: str
    log_group: str
    salt_id: str
    # None if the function logs in by IAM.
    writer_secret_id: str | None
    migrate_function: str
    migrate_log_group: str
    redrive_mapping: str
    database_secret_id: str


def read_template() -> dict[str, Any]:
    """Read the template; short forms such as !Ref become JSON, as in a deployment."""
    return yaml_parse(TEMPLATE.read_text())


def deploy(
    emulator: Emulator, name: str, owner: dict[str, str], ca: Path, parameters: dict[str, Any]
) -> Stack:
    """Store the database owner's credentials, then create the stack and wait for it.

    The functions' packages contain the CA certificate of the database.
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
    upload(emulator, name, ca, settings)
    create(emulator, name, template(name), settings)
    return find(emulator, name, secret["ARN"])


def architecture() -> str:
    """Return this machine's architecture, in Lambda's spelling."""
    return "arm64" if platform.machine() in {"aarch64", "arm64"} else "x86_64"


def create(emulator: Emulator, name: str, body: str, parameters: dict[str, Any]) -> None:
    """Create a stack and wait for it. A failure raises CloudFormation's reasons.

    The stack's packages must be uploaded: the template is put into the same bucket.
    """
    formation = emulator.client("cloudformation")
    formation.create_stack(
        StackName=name,
        TemplateURL=upload_template(emulator, name, body),
        Parameters=as_parameters(parameters),
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    waiter = formation.get_waiter("stack_create_complete")
    try:
        waiter.wait(StackName=name, WaiterConfig=WAITER_CONFIG)
    except WaiterError:
        raise RuntimeError("\n".join(failures(emulator, name))) from None


def as_parameters(settings: dict[str, Any]) -> list[dict[str, str]]:
    """Convert parameters to CloudFormation's format."""
    return [{"ParameterKey": key, "ParameterValue": str(value)} for key, value in settings.items()]


def failures(emulator: Emulator, name: str) -> list[str]:
    """Return which resources of a stack failed, and why."""
    pages = emulator.client("cloudformation").get_paginator("describe_stack_events")
    return [
        f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
        for page in pages.paginate(StackName=name)
        for event in page["StackEvents"]
        if event["ResourceStatus"].endswith("FAILED")
    ]


def find(emulator: Emulator, name: str, database_secret_id: str) -> Stack:
    """Read a created stack's outputs, and do what the emulator's CloudFormation does not."""
    stack = describe(emulator, name, database_secret_id)
    _convert_concurrency(emulator, stack.function)
    if Feature.CUSTOM_RESOURCES not in emulator.kind.features:
        migrate(emulator, stack)
    return stack


def migrate(emulator: Emulator, stack: Stack) -> None:
    """Bring the schema up to date, as the stack's custom resource does on AWS."""
    functions = emulator.client("lambda")
    answer = functions.invoke(FunctionName=stack.migrate_function, Payload="{}")
    if "FunctionError" in answer:
        error = json.load(answer["Payload"]).get("errorMessage")
        raise RuntimeError(f"migrate failed: {error}")


def roll_up(emulator: Emulator, stack: Stack) -> None:
    """Bring the rollups of the analysts up to date, as the schedule does each hour."""
    payload = json.dumps({"action": "roll-up"})
    functions = emulator.client("lambda")
    answer = functions.invoke(FunctionName=stack.migrate_function, Payload=payload)
    result = json.load(answer["Payload"])
    if "FunctionError" in answer or "error" in result:
        raise RuntimeError(f"the roll-up failed: {result.get('errorMessage') or result['error']}")


def outputs(emulator: Emulator, name: str) -> dict[str, str]:
    """Read the outputs of a stack."""
    [stack] = emulator.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def describe(emulator: Emulator, name: str, database_secret_id: str) -> Stack:
    """Describe a stack by its outputs."""
    found = outputs(emulator, name)
    return Stack(
        name=name,
        queue_url=found["QueueUrl"],
        dead_letter_queue_url=found["DeadLetterQueueUrl"],
        function=found["FunctionName"],
        log_group=found["LogGroupName"],
        salt_id=found["SaltSecretArn"],
        writer_secret_id=found.get("WriterSecretArn"),
        migrate_function=found["MigrateFunctionName"],
        migrate_log_group=found["MigrateLogGroupName"],
        redrive_mapping=found["RedriveMappingId"],
        database_secret_id=database_secret_id,
    )


def delete(emulator: Emulator, name: str, database_secret_id: str) -> None:
    """Delete a stack, its packages and the owner's secret; its policy retains the salt."""
    _delete_bucket(emulator, name)
    delete_stack(emulator, name)
    _delete_secret(emulator, database_secret_id)


def delete_stack(emulator: Emulator, name: str) -> None:
    """Delete only the stack."""
    formation = emulator.client("cloudformation")
    formation.delete_stack(StackName=name)
    waiter = formation.get_waiter("stack_delete_complete")
    try:
        waiter.wait(StackName=name, WaiterConfig=WAITER_CONFIG)
    except WaiterError:
        # LocalStack shows DELETE_FAILED while it deletes a stack that it could not create.
        sleep(1)
        waiter.wait(StackName=name, WaiterConfig=WAITER_CONFIG)


def erase(emulator: Emulator, name: str, salt_id: str | None = None) -> None:
    """Delete a stack, complete or not, with its salt, its keys and its logs.

    CloudFormation retains the salt and the keys. If the stack is deleted already, the caller must
    name the salt, and the key of the queues stays. KMS deletes a key after 7 days at the earliest.
    """
    absent = suppress(ClientError, WaiterError)
    keys = []
    with absent:
        found = outputs(emulator, name)
        salt_id = salt_id or found["SaltSecretArn"]
        keys += [found[name] for name in ("KeyArn", "VaultKeyArn") if name in found]
    with absent:
        _delete_bucket(emulator, name)
    with absent:
        delete_stack(emulator, name)
    with absent:
        _delete_secret(emulator, f"{name}/database")
    if salt_id:
        salt = emulator.client("secretsmanager").describe_secret(SecretId=salt_id)
        _delete_secret(emulator, salt_id)
        keys.append(salt["KmsKeyId"])
    for key in keys:
        emulator.client("kms").schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    logs = emulator.client("logs")
    groups = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}-")["logGroups"]
    for group in groups:
        logs.delete_log_group(logGroupName=group["logGroupName"])


def salt(emulator: Emulator, stack: Stack) -> str:
    """Read the salt."""
    return _secret(emulator, stack.salt_id)


def writer_password(emulator: Emulator, stack: Stack) -> str:
    """Read the password that the function logs in with."""
    return json.loads(_secret(emulator, stack.writer_secret_id))["password"]


def api_password(emulator: Emulator, stack: Stack) -> str:
    """Read the password that the analysts' API logs in with."""
    secret = outputs(emulator, stack.name)["ApiSecretArn"]
    return json.loads(_secret(emulator, secret))["password"]


def upload(emulator: Emulator, bucket: str, ca: Path, parameters: Mapping[str, Any]) -> None:
    """Upload the packages of a stack's functions to a bucket of the stack's name."""
    s3 = emulator.client("s3")
    s3.create_bucket(Bucket=bucket)
    chosen = [OPTIONAL_PROGRAMS[one] for one in OPTIONAL_PROGRAMS if parameters.get(one) == "true"]
    for programs in (PROGRAMS, *chosen):
        for program in programs.values():
            s3.put_object(Bucket=bucket, Key=program, Body=package(program, ca))


def upload_template(emulator: Emulator, bucket: str, body: str) -> str:
    """Upload a template, as `sam deploy` does, and return its URL.

    CloudFormation takes 1 MB of template from S3, and only 51,200 bytes in the request itself.
    """
    body = for_emulator(emulator.kind, body)
    emulator.client("s3").put_object(Bucket=bucket, Key="template", Body=body)
    return f"{emulator.endpoint}/{bucket}/template"


def for_emulator(kind: Kind, body: str) -> str:
    """Let LocalStack keep what the template retains: it knows Retain only, and deletes the salt."""
    return body.replace("RetainExceptOnCreate", "Retain") if kind is Kind.LOCALSTACK else body


def template(bucket: str) -> str:
    """Return the template with the packages' URLs, as `sam package` does."""
    locations = {name: f"s3://{bucket}/{program}" for name, program in ALL_PROGRAMS.items()}
    return template_with(locations)


def template_with(code: Mapping[str, str]) -> str:
    """Return the template for an emulator, with the location of each function's code."""
    packaged = read_template()
    # The emulator has no TLS: requests without TLS must not be denied.
    del packaged["Resources"]["QueuePolicy"]
    # For MiniStack, the aws:PrincipalArn of a function is its session and not, as in AWS, its role.
    left_out = {
        "ExportBucketPolicy": {"RefuseWithoutTls"},
        "VaultErasureBucketPolicy": {
            "RefuseWithoutTls",
            "RefuseOtherWriters",
            "RefuseOtherReaders",
        },
    }
    for policy, statements in left_out.items():
        of_bucket = packaged["Resources"][policy]["Properties"]["PolicyDocument"]
        kept = [one for one in of_bucket["Statement"] if one.get("Sid") not in statements]
        of_bucket["Statement"] = kept
    for function, location in code.items():
        packaged["Resources"][function]["Properties"]["CodeUri"] = location
    return json.dumps(packaged)


def send(emulator: Emulator, queue_url: str, bodies: list[str]) -> Iterator[list[str]]:
    """Send messages, ten per request as SQS allows; yield the message ids of each request."""
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
    """Count the messages in a queue, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = emulator.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)
    return sum(int(answer["Attributes"][name]) for name in names)


def peek(emulator: Emulator, queue_url: str) -> list[dict[str, Any]]:
    """Read the messages of a queue without deleting them; no other program may read them."""
    sqs = emulator.client("sqs")
    messages: dict[str, dict[str, Any]] = {}
    while len(messages) < count(emulator, queue_url):
        # Hidden for 30 s: the queue would return a visible message again.
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


def _delete_bucket(emulator: Emulator, name: str) -> None:
    s3 = emulator.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for stored in page.get("Contents", []):
            s3.delete_object(Bucket=name, Key=stored["Key"])
    s3.delete_bucket(Bucket=name)


def _delete_secret(emulator: Emulator, secret_id: str) -> None:
    secrets = emulator.client("secretsmanager")
    secrets.delete_secret(SecretId=secret_id, ForceDeleteWithoutRecovery=True)


def _secret(emulator: Emulator, secret_id: str) -> str:
    return emulator.client("secretsmanager").get_secret_value(SecretId=secret_id)["SecretString"]


def _convert_concurrency(emulator: Emulator, function: str) -> None:
    """Set MaximumConcurrency as a number: MiniStack stores the parameter's text and then fails."""
    functions = emulator.client("lambda")
    mappings = functions.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    for mapping in mappings:
        concurrency = int(mapping["ScalingConfig"]["MaximumConcurrency"])
        functions.update_event_source_mapping(
            UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": concurrency}
        )


def binary(program: str) -> Path:
    """Return the file that cargo-lambda built of a program."""
    path = TARGET / "lambda" / program / "bootstrap"
    if not path.exists():
        target = "build" if program in PROGRAMS.values() else f"build-{program}"
        raise SystemExit(f"The program {program} is not built. Run: make {target}")
    return path


def copy_binary(program: str, folder: Path) -> Path:
    """Copy a built program to a folder: the file of a running program cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    # A copy from before may still run.
    (folder / program).unlink(missing_ok=True)
    return Path(shutil.copy2(binary(program), folder / program))


def package(program: str, ca: Path) -> bytes:
    """Zip a built program and the CA bundle, as `sam package` does."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(binary(program), "bootstrap")
        archive.write(ca, CA_BUNDLE)
    return zipped.getvalue()
