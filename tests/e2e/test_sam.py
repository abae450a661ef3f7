"""SAM builds and deploys the stack, or deploys packages that were built before.

The command in the stack's output sends a login.

Left out is what the emulator has not: TLS on its queues, and a database of the stack's own.
"""

import base64
import hashlib
import json
import os
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from deploy import packages
from dev import ROOT, TARGET, stack
from dev.emulator import Feature, Kind
from dev.local_system import running_services
from dev.logins import Row, row
from dev.stack import ALL_PROGRAMS, CA_BUNDLE, PROGRAMS, TEMPLATE
from e2e.deployment import STACK, Database
from e2e.driver import wait_until

TOOLS = TARGET / "tools" / "deploy" / "bin"
BUILT = TARGET / "e2e-sam" / "build"
IMAGE_URI = "111122223333.dkr.ecr.us-east-1.amazonaws.com/login-etl:0123abc-arm64"


@pytest.fixture
def database() -> Iterator[Database]:
    """Start servers, and create an empty database."""
    with running_services(TARGET / "e2e-sam" / "logs") as services:
        database = Database(services)
        try:
            yield database
        finally:
            if services.emulator.process is None:
                salt_id = database.stack.salt_id if database.stack else None
                stack.erase(services.emulator, STACK, salt_id)


def test_stack_deployed_by_sam_masks_a_login(
    database: Database,
) -> None:
    architecture = f"Architecture={stack.architecture()}"
    _sam(
        database,
        *("build", "--template", TEMPLATE, "--build-dir", BUILT),
        *("--parameter-overrides", architecture),
    )
    deploy = _deployment(database, _adapt_to_the_emulator(database))
    _sam(database, *deploy)
    database.find()

    command = shlex.split(database.output("SendTestMessage"))
    _run(database, TOOLS / command[0], *command[1:], "--endpoint-url", database.emulator.endpoint)
    wait_until(lambda: database.users() == ["test"], database.users)

    [columns] = database.query("SELECT * FROM user_logins")
    salt = stack.salt(database.emulator, database.stack)
    sent = json.loads(command[-1])
    stored = Row(*columns)
    # Around midnight, the dates may differ.
    assert stored == row(sent, salt, datetime.now(UTC))._replace(create_date=stored.create_date)
    there = _resources(database)
    again = _sam(database, *deploy)
    # LocalStack reports a change for every change set.
    assert "No changes to deploy" in again or database.emulator.kind is Kind.LOCALSTACK
    assert _resources(database) == there
    _sam(database, "delete", "--stack-name", STACK, "--no-prompts")
    assert stack.salt(database.emulator, database.stack) == salt
    assert database.users() == ["test"]


def test_functions_run_the_bytes_of_verified_packages(database: Database, tmp_path: Path) -> None:
    zips = {name: _zip(database, tmp_path, program) for name, program in ALL_PROGRAMS.items()}
    template = packages.template("dev", packages.checksums("arm64", tmp_path), tmp_path)

    _sam(database, *_deployment(database, _write(database, template, tmp_path / "template.json")))

    functions = database.emulator.client("lambda")
    resources = _resources(database)
    running = {
        name: functions.get_function(FunctionName=resources[name])["Configuration"]["CodeSha256"]
        for name in PROGRAMS
    }
    built = {name: hashlib.sha256(zips[name].read_bytes()).digest() for name in PROGRAMS}
    assert running == {name: base64.b64encode(digest).decode() for name, digest in built.items()}


@pytest.mark.needs(Feature.IMAGES)
def test_image_recipe_builds_and_deploys_an_image_function(database: Database) -> None:
    write, build, deploy = _make_deploy(f"IMAGE_URI={IMAGE_URI}")
    architecture = f"Architecture={stack.architecture()}"

    _run(database, *write)
    _run(database, *build, "--build-dir", BUILT, "--parameter-overrides", architecture)
    _add_ca(database, "MigrateFunction")
    built = yaml_parse((BUILT / "template.yaml").read_text())
    template = _write(database, built, BUILT / "adapted.json")
    _run(database, *deploy, *_deployment(database, template)[1:], "--region", "us-east-1")

    # The emulator runs images in Docker only, so nothing invokes the function.
    functions = database.emulator.client("lambda")
    resources = _resources(database)
    image = functions.get_function(FunctionName=resources["IngestFunction"])
    migrate = functions.get_function(FunctionName=resources["MigrateFunction"])
    assert image["Configuration"]["PackageType"] == "Image"
    assert image["Code"]["ImageUri"] == IMAGE_URI
    processed = database.formation.get_template(StackName=STACK, TemplateStage="Processed")
    properties = processed["TemplateBody"]["Resources"]["IngestFunction"]["Properties"]
    assert {"Runtime", "Handler", "Layers"} & properties.keys() == set()
    assert migrate["Configuration"]["Runtime"] == "provided.al2023"
    assert database.users() == []


def _make_deploy(*words: str) -> list[list[str]]:
    """Return the commands of `make deploy`, without the environment's section of samconfig.toml."""
    command = ["make", "--dry-run", "deploy", "ENV=dev", *words]
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.replace("\\\n", " ").replace("SAM_CLI_TELEMETRY=0 ", "").splitlines()
    commands = [shlex.split(line.replace("--config-env dev", "")) for line in lines]
    return [words for words in commands if words[0].startswith(str(TOOLS))]


def _deployment(database: Database, template: Path) -> list[object]:
    """Return the arguments with which SAM deploys a template."""
    overrides = [f"{name}={value}" for name, value in database.parameters.items()]
    return [
        *("deploy", "--template", template, "--stack-name", STACK, "--s3-bucket", STACK),
        *("--capabilities", "CAPABILITY_IAM", "--no-fail-on-empty-changeset"),
        *("--parameter-overrides", *overrides),
    ]


def _zip(database: Database, target: Path, program: str) -> Path:
    """Write a package where `make zip` writes it, with Postgres's CA certificate."""
    path = target / "zip" / "arm64" / program / "bootstrap.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as package:
        package.write(TARGET / "lambda" / program / "bootstrap", "bootstrap")
        package.write(database.postgres.certificate_authority, CA_BUNDLE)
    return path


def _adapt_to_the_emulator(database: Database) -> Path:
    """Add Postgres's CA certificate to the packages, and allow requests without TLS."""
    for function in PROGRAMS:
        _add_ca(database, function)
    built = yaml_parse((BUILT / "template.yaml").read_text())
    return _write(database, built, BUILT / "adapted.json")


def _add_ca(database: Database, function: str) -> None:
    bundle = database.postgres.certificate_authority.read_bytes()
    (BUILT / function / CA_BUNDLE).write_bytes(bundle)


def _write(database: Database, template: dict[str, Any], path: Path) -> Path:
    """Write a template for the emulator, which has no TLS."""
    del template["Resources"]["QueuePolicy"]
    path.write_text(stack.for_emulator(database.emulator.kind, json.dumps(template)))
    return path


def _resources(database: Database) -> dict[str, str]:
    """Return the physical id of each resource, by logical id."""
    answer = database.emulator.client("cloudformation").describe_stack_resources(StackName=STACK)
    return {
        resource["LogicalResourceId"]: resource["PhysicalResourceId"]
        for resource in answer["StackResources"]
    }


def _sam(database: Database, *arguments: object) -> str:
    return _run(database, TOOLS / "sam", *arguments, "--region", "us-east-1")


def _run(database: Database, *command: object) -> str:
    environment = database.emulator.environment | {
        # As in the Makefile: SAM uses its build.
        "CARGO_TARGET_DIR": str(TARGET),
        "SAM_CLI_TELEMETRY": "0",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
