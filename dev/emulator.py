"""An AWS emulator, started here on a loopback port or running already."""

import os
import secrets
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from importlib import import_module
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import boto3
from botocore.client import BaseClient
from botocore.config import Config

from dev import PRIVATE_EMULATOR, processes
from dev.processes import Process

REGION = "us-east-1"
# An emulator that this project did not start grants this access key every permission.
KNOWN_KEY = "test"


class Feature(Flag):
    """A behaviour of AWS that only one of the emulators has."""

    ROLES = auto()  # a function can only do what its role allows
    CUSTOM_RESOURCES = auto()  # CloudFormation invokes the function behind a custom resource
    LOG_GROUPS = auto()  # a function logs to the group that the template names
    BATCHES = auto()  # batches of more than ten messages, and the batching window
    BAD_ANSWERS = auto()  # a malformed answer fails the batch
    REDRIVES = auto()  # StartMessageMoveTask moves dead letters
    ALARMS = auto()  # CloudWatch has the metrics of queues, and evaluates alarms
    IMAGES = auto()  # creates a function that is a container image; none runs it without Docker
    INIT_SCRIPTS = auto()  # runs scripts when it is ready
    KEY_AGREEMENT = auto()  # KMS derives shared secrets


class Kind(StrEnum):
    """The emulators; the module of the same name starts each."""

    MINISTACK = auto()
    LOCALSTACK = auto()

    @property
    def features(self) -> Feature:
        """The features of this emulator."""
        ministack = Feature.ROLES | Feature.CUSTOM_RESOURCES | Feature.LOG_GROUPS | Feature.IMAGES
        return ministack if self is Kind.MINISTACK else ~ministack


@dataclass
class Emulator:
    """An endpoint for AWS calls, with its process if it was started here."""

    kind: Kind
    endpoint: str
    log: Path
    # The access key with every permission. The secret key is the same text.
    key: str = KNOWN_KEY
    process: Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, with AWS variables that point an SDK to the emulator."""
        other = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return other | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.key,
        }

    @property
    def credentials_file(self) -> str:
        """A credentials file for the AWS CLI and the SDKs."""
        return (
            f"[default]\naws_access_key_id = {self.key}\naws_secret_access_key = {self.key}\n"
            f"region = {REGION}\n"
        )

    def client(self, service: str) -> BaseClient:
        """Create a client for an AWS service."""
        # Some tests expect an invocation to fail; a retry would invoke the function again. Other
        # requests are sent again as every SDK does: LocalStack answers DescribeAlarms with an error
        # while it changes the state of an alarm.
        attempts = 1 if service == "lambda" else 5
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.key,
            # `migrate` may run for 300 s, for example to wait until Postgres starts.
            config=Config(
                retries={"mode": "standard", "total_max_attempts": attempts}, read_timeout=330
            ),
        )

    def stop(self) -> None:
        """Stop the emulator and its functions, if it was started here."""
        if self.process is not None:
            processes.stop(self.process)


def create(directory: Path, log: Path, **settings: str) -> Emulator:
    """Start the emulator that E2E_EMULATOR names, or use the emulator at E2E_ENDPOINT_URL."""
    kind = Kind(os.environ.get("E2E_EMULATOR", Kind.MINISTACK))
    if endpoint := os.environ.get("E2E_ENDPOINT_URL"):
        return use(kind, endpoint, log)
    return start(kind, directory, log, **settings)


def use(kind: Kind, endpoint: str, log: Path) -> Emulator:
    """Use a running emulator; `stop` leaves it running."""
    emulator = Emulator(kind, endpoint.rstrip("/"), log)
    health_url = f"{emulator.endpoint}{import_module(f'dev.{kind}').HEALTH}"
    if not _answers(health_url):
        raise SystemExit(f"No {kind} answers at {health_url}")
    return emulator


def start(
    kind: Kind, directory: Path, log: Path, *, is_private: bool = True, **settings: str
) -> Emulator:
    """Start an emulator with its state in a new directory.

    Only this run can use a private emulator. Every local user can use the other kind, which stands
    in for an emulator that a user started.
    """
    directory.mkdir(mode=0o700)
    port = processes.free_port()
    key = secrets.token_hex(16) if is_private else KNOWN_KEY
    emulator = Emulator(kind, f"http://127.0.0.1:{port}", log, key)
    program = import_module(f"dev.{kind}")
    emulator.process = processes.start(
        [program.PYTHON, *(PRIVATE_EMULATOR if is_private else ["-m"]), program.MODULE],
        log=log,
        cwd=directory,
        # Functions inherit the emulator's environment, so it must not be the caller's.
        env={
            "PATH": os.defpath,
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "AWS_ENDPOINT_URL": emulator.endpoint,
            "AWS_ACCESS_KEY_ID": emulator.key,
            "AWS_SECRET_ACCESS_KEY": emulator.key,
            "AWS_EC2_METADATA_DISABLED": "true",
            **program.settings(directory, port),
            **settings,
        },
    )
    health_url = f"{emulator.endpoint}{program.HEALTH}"
    processes.wait_until(
        lambda: processes.listens(emulator.process, port) and _answers(health_url),
        kind,
        emulator.process,
        log,
    )
    return emulator


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (URLError, ConnectionError):
        return False
