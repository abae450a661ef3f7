"""The stack in a LocalStack that already runs: `make deploy ENV=localstack`, docs/localstack.md.

The commands read their parameters from environment variables. The database's password is one of
these because every user of a machine can list command lines.
"""

import argparse
import getpass
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import unquote, urlsplit

from botocore.exceptions import ClientError

from dev import ROOT, TARGET, emulator, log_metrics, logs, stack
from dev.emulator import REGION, Emulator, Kind
from dev.stack import ALL_PROGRAMS, CA_BUNDLE, PROGRAMS, Stack

STACK = "login-etl-localstack"
FAILED_CREATION = (STACK, "ROLLBACK_COMPLETE")
# The bucket has the stack's name.
OWNER_SECRET = f"{STACK}/database"
ENDPOINT = "http://localhost:4566"
DATABASE_URL_FORM = "DATABASE_URL is not of the form postgresql://USER@HOST:PORT/DATABASE"
SAM = TARGET / "tools" / "deploy" / "bin" / "sam"
AWS = TARGET / "tools" / "deploy" / "bin" / "aws"
BUILT = TARGET / "localstack"

# Of dev/compose.yaml.
COMPOSE = "docker compose -f dev/compose.yaml"
COMPOSE_DATABASE = "postgresql://postgres@postgres:5432/logins"
COMPOSE_PASSWORD = "postgres"
COMPOSE_CA = BUILT / "ca.pem"

# Where the template's defaults make a developer wait: there a bad message is in the dead-letter
# queue after an hour, here after 20 seconds.
PARAMETERS = {
    "FunctionTimeout": 10,
    "VisibilityTimeout": 10,
    "MaxReceiveCount": 2,
    "BatchSize": 10,
    "BatchingWindow": 0,
    "MaximumConcurrency": 2,
    # LocalStack has no saved queries.
    "SavedQueries": "false",
}
PATIENCE_S = 120


@dataclass(frozen=True)
class Database:
    """Postgres, by the name under which the functions reach it."""

    host: str
    port: int
    name: str
    owner: str
    ca: Path | None
    is_compose: bool

    def __str__(self) -> str:
        """Name the database without its password, which is kept elsewhere."""
        return f"{self.owner}@{self.host}:{self.port}/{self.name}"


def deploy() -> int:
    """Create the stack, or update it, and bring the schema up to date."""
    database, parameters = _database(), _parameters()
    localstack = _localstack()
    _refuse_failed_creation(localstack)
    print(f"Deploying {STACK} to {localstack.endpoint}, with the database {database}", flush=True)
    secret = _store_owner(localstack, database)
    template = _package(database.ca)
    _create_bucket(localstack)
    values = {
        "DatabaseSecretArn": secret,
        "DatabaseHost": database.host,
        "DatabasePort": database.port,
        "DatabaseName": database.name,
        "DatabaseCaBundle": CA_BUNDLE if database.ca else "",
        "Architecture": stack.architecture(),
        **PARAMETERS,
        **parameters,
    }
    _sam_deploy(localstack, template, values)
    deployed = _describe(localstack)
    try:
        # LocalStack's free edition runs no custom resource, and a second run changes nothing.
        stack.migrate(localstack, deployed)
    except RuntimeError as error:
        print(f"The stack is deployed, but {error}", file=sys.stderr)
        print(f"The functions connect to {database}: see docs/localstack.md", file=sys.stderr)
        return 1
    _print_next_steps(localstack, deployed, database)
    return 0


def send() -> int:
    """Send each line of FILE, or move the messages of another QUEUE, and wait for the outcome."""
    localstack = _localstack()
    deployed = _describe(localstack)
    before = _outcome(localstack, deployed)
    if queue := os.environ.get("QUEUE"):
        sent = _move(localstack, queue, deployed.queue_url)
    elif file := os.environ.get("FILE"):
        sent = _send(localstack, deployed.queue_url, Path(file).read_text().splitlines())
    else:
        raise SystemExit("FILE=… or QUEUE=… is missing")
    deadline = monotonic() + PATIENCE_S
    while True:
        new = _outcome(localstack, deployed) - before
        if new["written"] + new["dead"] >= sent or monotonic() > deadline:
            break
        sleep(0.5)
    written, dead = new.pop("written", 0), new.pop("dead", 0)
    print(f"{sent} sent: {written} written, {dead} in the dead-letter queue")
    for error_type, batches in new.items():
        print(f"{batches} batches failed: {error_type}, see docs/operations.md")
    return 0 if written + dead == sent and not (new and dead) else 1


def delete() -> int:
    """Delete the stack; the salt, its key and the rows stay."""
    localstack = _localstack()
    # A stack that could not be created has no outputs.
    salt = _outputs(localstack).get("SaltSecretArn")
    stack.delete(localstack, STACK, OWNER_SECRET)
    kept = f" The rows stay, and so does the salt that masked them: {salt}" if salt else ""
    print(f"{STACK} is deleted.{kept}")
    return 0


def _localstack() -> Emulator:
    endpoint = os.environ.get("ENDPOINT") or ENDPOINT
    return emulator.use(Kind.LOCALSTACK, endpoint, log=Path(os.devnull))


def _describe(localstack: Emulator) -> Stack:
    _refuse_failed_creation(localstack)
    _outputs(localstack)
    return stack.describe(localstack, STACK, OWNER_SECRET)


def _outputs(localstack: Emulator) -> dict[str, str]:
    try:
        return stack.outputs(localstack, STACK)
    except ClientError:
        where = localstack.endpoint
        raise SystemExit(f"There is no {STACK} at {where}: make deploy ENV=localstack") from None


def _database() -> Database:
    """Read DATABASE_URL and DATABASE_CA; without them, the database is that of dev/compose.yaml."""
    given = os.environ.get("DATABASE_URL")
    url = urlsplit(given or COMPOSE_DATABASE)
    try:
        port = url.port or 5432
    except ValueError:
        raise SystemExit(DATABASE_URL_FORM) from None
    if url.scheme not in {"postgresql", "postgres"} or not (url.hostname and url.username):
        raise SystemExit(DATABASE_URL_FORM)
    if url.password:
        raise SystemExit(
            "DATABASE_URL has a password, which others can read in the list of processes: put the "
            "password into the environment variable PGPASSWORD instead"
        )
    # An option may be a password too, so the message does not repeat the options.
    if url.query not in {"", "sslmode=verify-full"}:
        raise SystemExit(
            "DATABASE_URL has options, but only ?sslmode=verify-full is allowed: the functions "
            "verify the server's certificate in every case"
        )
    return Database(
        host=url.hostname,
        port=port,
        name=unquote(url.path[1:]) or "logins",
        owner=unquote(url.username),
        ca=_certificate_authority(is_compose=not given),
        is_compose=not given,
    )


def _parameters() -> dict[str, str]:
    """Read PARAMETERS, such as `BatchSize=100 BatchingWindow=5`."""
    pairs = shlex.split(os.environ.get("PARAMETERS", ""))
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise SystemExit(f"PARAMETERS has no value for {', '.join(wrong)}")
    return dict(pair.split("=", 1) for pair in pairs)


def _certificate_authority(*, is_compose: bool) -> Path | None:
    given = os.environ.get("DATABASE_CA")
    path = Path(given) if given else COMPOSE_CA if is_compose else None
    if path is None or path.is_file():
        return path
    if given:
        raise SystemExit(f"DATABASE_CA={given} is not a file")
    where = COMPOSE_CA.relative_to(ROOT)
    copy = f"{COMPOSE} cp postgres:/var/lib/postgresql/data/ca.pem {where}"
    raise SystemExit(
        f"There is no {where}. Copy it from the Postgres of dev/compose.yaml:\n\n"
        f"    mkdir -p {where.parent}\n    {copy}\n\n"
        "or name another database with DATABASE_URL and DATABASE_CA."
    )


def _password(database: Database) -> str:
    if given := os.environ.get("PGPASSWORD"):
        return given
    if database.is_compose:
        return os.environ.get("POSTGRES_PASSWORD") or COMPOSE_PASSWORD
    if sys.stdin.isatty():
        return getpass.getpass(f"Password of {database}: ")
    raise SystemExit("PGPASSWORD is missing: put the owner's password into this variable")


def _store_owner(localstack: Emulator, database: Database) -> str:
    """Store the credentials of the schema's owner, as Secrets Manager keeps them for RDS."""
    secrets = localstack.client("secretsmanager")
    value = json.dumps({"username": database.owner, "password": _password(database)})
    try:
        return secrets.put_secret_value(SecretId=OWNER_SECRET, SecretString=value)["ARN"]
    except secrets.exceptions.ResourceNotFoundException:
        return secrets.create_secret(Name=OWNER_SECRET, SecretString=value)["ARN"]


def _create_bucket(localstack: Emulator) -> None:
    s3 = localstack.client("s3")
    try:
        s3.head_bucket(Bucket=STACK)
    except ClientError:
        s3.create_bucket(Bucket=STACK)


def _package(ca: Path | None) -> Path:
    """Lay out the functions' code beside the template, as `sam build` does."""
    for function, program in PROGRAMS.items():
        folder = BUILT / function
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy2(stack.binary(program), folder / "bootstrap")
        if ca:
            shutil.copyfile(ca, folder / CA_BUNDLE)
    template = BUILT / "template.json"
    # The optional parts stay off here, but SAM would look for folders with their code.
    optional = ALL_PROGRAMS.keys() - PROGRAMS.keys()
    elsewhere = {function: f"s3://{STACK}/{function}" for function in optional}
    body = stack.template_with(elsewhere | {function: function for function in PROGRAMS})
    template.write_text(stack.for_emulator(Kind.LOCALSTACK, body))
    return template


def _sam_deploy(localstack: Emulator, template: Path, parameters: dict[str, Any]) -> None:
    command = [
        *(str(SAM), "deploy", "--template", str(template), "--stack-name", STACK),
        *("--s3-bucket", STACK, "--region", REGION, "--capabilities", "CAPABILITY_IAM"),
        *("--no-confirm-changeset", "--no-fail-on-empty-changeset", "--parameter-overrides"),
        *(f"{name}={value}" for name, value in parameters.items()),
    ]
    environment = localstack.environment | {"SAM_CLI_TELEMETRY": "0"}
    environment.pop("PGPASSWORD", None)
    status = subprocess.run(command, check=False, env=environment).returncode
    if status:
        _refuse_failed_creation(localstack)
        raise SystemExit(status)


def _refuse_failed_creation(localstack: Emulator) -> None:
    """Refuse to deploy again after a failed creation, as CloudFormation does.

    LocalStack deletes nothing in a rollback: a second creation finds the queue's name taken.
    """
    stacks = localstack.client("cloudformation").describe_stacks()["Stacks"]
    if any((one["StackName"], one["StackStatus"]) == FAILED_CREATION for one in stacks):
        raise SystemExit(
            f"{STACK} could not be created. Remove the cause, then delete and deploy the stack:\n\n"
            "    make delete ENV=localstack\n    make deploy ENV=localstack"
        )


def _move(localstack: Emulator, queue: str, to: str) -> int:
    """Move the messages that wait in a queue; delete each after it was sent."""
    sqs = localstack.client("sqs")
    try:
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    except sqs.exceptions.QueueDoesNotExist:
        raise SystemExit(f"There is no queue {queue} at {localstack.endpoint}") from None
    moved = 0
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        moved += _send(localstack, to, [message["Body"] for message in messages])
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return moved


def _send(localstack: Emulator, queue_url: str, bodies: list[str]) -> int:
    bodies = [body for body in bodies if body.strip()]
    return sum(len(ids) for ids in stack.send(localstack, queue_url, bodies))


def _outcome(localstack: Emulator, deployed: Stack) -> Counter[str]:
    """Count the rows and failed batches that the function logged, and the dead letters."""
    logged = log_metrics.read(logs.lines(localstack, deployed))
    dead = stack.count(localstack, deployed.dead_letter_queue_url)
    return Counter(written=logged.sum("written"), dead=dead) + logged.error_types


def _print_next_steps(localstack: Emulator, deployed: Stack, database: Database) -> None:
    made = stack.outputs(localstack, STACK)
    aws = AWS.relative_to(ROOT)
    here = f"--endpoint-url {localstack.endpoint}"
    command = made["SendTestMessage"].removeprefix("aws ")
    query = "SELECT * FROM user_logins LIMIT 10"
    if database.is_compose:
        rows = f'{COMPOSE} exec postgres psql -U postgres -d {database.name} -c "{query}"'
    else:
        host = "localhost" if database.host == "host.docker.internal" else database.host
        tls = f"sslmode=verify-full&sslrootcert={database.ca}" if database.ca else "sslmode=require"
        url = f"postgresql://{database.owner}@{host}:{database.port}/{database.name}?{tls}"
        rows = f'psql "{url}" -c "{query}"'
    credentials = "AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    endpoint = "" if localstack.endpoint == ENDPOINT else f" ENDPOINT={localstack.endpoint}"
    print(
        f"""
{STACK} is deployed, and its schema is up to date.

Send one message:
    {credentials} {aws} {here} {command}

Send the sample messages:
    make send ENV=localstack FILE=events/login-queue.jsonl{endpoint}

Read a few rows:
    {rows}

Read what the function logged:
    {credentials} {aws} {here} --region {REGION} logs filter-log-events \\
        --log-group-name /aws/lambda/{deployed.function} --query 'events[].message' --output text"""
    )


def main() -> int:
    """Read the command line and run the command."""
    parser = argparse.ArgumentParser(prog="deploy.localstack", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for command in (deploy, send, delete):
        one = commands.add_parser(command.__name__, help=command.__doc__)
        one.set_defaults(command=command)
    return parser.parse_args().command()


if __name__ == "__main__":
    sys.exit(main())
