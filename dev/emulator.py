"""An AWS emulator: one of our own on a loopback port, or one that is there already."""

import os
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from importlib import import_module
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import boto3
from botocore.client import BaseClient
from botocore.config import Config

from dev import processes
from dev.processes import Process

REGION = "us-east-1"
# Who may do everything, to the emulators.
KEY = "test"


class Feature(Flag):
    """What can be seen on one emulator and not on the other."""

    ROLES = auto()  # a function may do what its role allows, and nothing else
    CUSTOM_RESOURCES = auto()  # a stack runs the function behind a resource of its own type
    LOG_GROUPS = auto()  # a function logs into the group that the template gives it
    BATCHES = auto()  # of more than ten messages, and the window in which they gather
    BAD_ANSWERS = auto()  # an answer that Lambda does not understand fails the batch
    REDRIVES = auto()  # StartMessageMoveTask
    ALARMS = auto()  # the metrics of a queue, and the alarms on them
    INIT_SCRIPTS = auto()  # scripts that run when the emulator is ready


class Kind(StrEnum):
    """The emulators; the module of that name tells how to start it."""

    MINISTACK = auto()
    LOCALSTACK = auto()

    @property
    def features(self) -> Feature:
        """What can be seen on this one."""
        ministack = Feature.ROLES | Feature.CUSTOM_RESOURCES | Feature.LOG_GROUPS
        return ministack if self is Kind.MINISTACK else ~ministack


@dataclass
class Emulator:
    """An endpoint that takes AWS calls; with the process behind it, where that is ours."""

    kind: Kind
    endpoint: str
    log: Path
    process: Process | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Our environment, its AWS variables replaced by those that lead an SDK to the emulator."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return ours | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
        }

    def client(self, service: str) -> BaseClient:
        """Make a client of one AWS service."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=KEY,
            # An invocation that fails is what some tests are about: it must not be made twice.
            config=Config(retries={"total_max_attempts": 1}),
        )

    def stop(self) -> None:
        """Stop the emulator and the functions that it runs, unless it was there before us."""
        if self.process is not None:
            processes.stop(self.process)


def create(directory: Path, log: Path) -> Emulator:
    """Start the emulator that E2E_EMULATOR names, or use the running one at E2E_ENDPOINT_URL."""
    kind = Kind(os.environ.get("E2E_EMULATOR", Kind.MINISTACK))
    if endpoint := os.environ.get("E2E_ENDPOINT_URL"):
        return use(kind, endpoint, log)
    return start(kind, directory, log)


def use(kind: Kind, endpoint: str, log: Path) -> Emulator:
    """Use an emulator that somebody else started, and that stays when we stop."""
    emulator = Emulator(kind, endpoint.rstrip("/"), log)
    healthy = f"{emulator.endpoint}{import_module(f'dev.{kind}').HEALTH}"
    if not _answers(healthy):
        raise SystemExit(f"No {kind} answers at {healthy}")
    return emulator


def start(kind: Kind, directory: Path, log: Path, **settings: str) -> Emulator:
    """Start an emulator with its state in a new directory."""
    directory.mkdir()
    port = processes.free_port()
    emulator = Emulator(kind, f"http://127.0.0.1:{port}", log)
    program = import_module(f"dev.{kind}")
    emulator.process = processes.start(
        program.COMMAND,
        log=log,
        cwd=directory,
        # Nothing of the caller's environment, because functions inherit the emulator's.
        env={
            "PATH": os.defpath,
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "AWS_ENDPOINT_URL": emulator.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            **program.settings(directory, port),
            **settings,
        },
    )
    healthy = f"{emulator.endpoint}{program.HEALTH}"
    processes.wait_until(lambda: _answers(healthy), kind, emulator.process, log)
    return emulator


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (URLError, ConnectionError):
        return False
