"""The commands for a LocalStack that already runs, tried on one that they did not start."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile
from time import sleep

import psutil
import psycopg
import pytest

from deploy.localstack import OWNER_SECRET, STACK
from dev import EVENTS, ROOT, TARGET, stack
from dev.emulator import Emulator, Feature, Kind
from dev.emulator import start as start_emulator
from dev.local_system import DATABASE, Services, running_services
from dev.logins import token
from dev.stack import Stack
from e2e.test_compose import LOGIN_QUEUE, with_ready_script

pytestmark = [
    pytest.mark.needs(Feature.INIT_SCRIPTS),
    pytest.mark.own_localstack("starts a LocalStack of its own"),
]


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Start Postgres with an empty database, and a LocalStack with messages in `login-queue`."""

    def localstack(directory: Path, log: Path) -> Emulator:
        return start_emulator(
            Kind.LOCALSTACK, directory, log, is_private=False, **with_ready_script(directory)
        )

    with running_services(TARGET / "e2e-localstack", start_emulator=localstack) as services:
        with services.postgres.connect() as admin:
            admin.execute(f"CREATE DATABASE {DATABASE}")
        yield services


def test_the_sample_messages_become_rows(services: Services) -> None:
    messages = EVENTS / "login-queue.jsonl"
    logins = [body for body in map(json.loads, messages.read_text().splitlines()) if "ip" in body]

    deployed = _run(services, "deploy")
    sent = _run(services, "send", FILE=str(messages))

    assert "its schema is up to date" in deployed
    assert "100 sent: 99 written, 1 in the dead-letter queue" in sent
    salt = stack.salt(services.emulator, _describe(services))
    masked_ips = Counter(token(salt, "ip", body["ip"]) for body in logins)
    assert masked_ips.total() == 99
    assert Counter(_masked_ips(services)) == masked_ips


def test_a_second_deployment_updates_the_stack(services: Services) -> None:
    _run(services, "deploy")
    salt = stack.salt(services.emulator, _describe(services))
    before = len(_masked_ips(services))

    _run(services, "deploy", PARAMETERS="MemorySize=512")
    moved = _run(services, "send", QUEUE=LOGIN_QUEUE)

    functions = services.emulator.client("lambda")
    function = functions.get_function(FunctionName=_describe(services).function)["Configuration"]
    assert function["MemorySize"] == 512
    assert stack.salt(services.emulator, _describe(services)) == salt
    assert "100 sent: 99 written, 1 in the dead-letter queue" in moved
    assert len(_masked_ips(services)) == before + 99


def test_a_failed_migration_fails_the_command(services: Services) -> None:
    output = _run(services, "deploy", status=1, PGPASSWORD="hunter2")

    assert "The stack is deployed, but migrate failed: " in output
    assert "SQLSTATE 28P01" in output
    assert "hunter2" not in output
    _run(services, "deploy")


@pytest.fixture
def database_url(services: Services) -> str:
    """Delete the stack of the test before; create a database without its salt fingerprint."""
    if STACK in _inventory(services)["stacks"]:
        _run(services, "delete")
    name = f"first_{token_hex(4)}"
    with services.postgres.connect() as admin:
        admin.execute(f"CREATE DATABASE {name}")
    return f"postgresql://postgres@{services.postgres.host}:{services.postgres.port}/{name}"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        # MigrateFunction is refused, then the mapping of IngestFunction, after Schema.
        (f"LogFilter={'x' * 4096}", "environment variables you have provided exceeded the 4KB"),
        ("BatchSize=11", "Maximum batch window in seconds must be greater than 0"),
    ],
)
def test_failed_creation_is_deleted_and_repeated(
    services: Services, database_url: str, parameters: str, reason: str, tmp_path: Path
) -> None:
    failed = _run(services, "deploy", status=1, DATABASE_URL=database_url, PARAMETERS=parameters)
    refused = _run(services, "deploy", status=1, DATABASE_URL=database_url)
    _run(services, "delete")
    _run(services, "deploy", DATABASE_URL=database_url)

    assert reason in _reasons(failed)
    assert refused in failed
    assert "make delete ENV=localstack" in refused
    assert "1 sent: 1 written" in _run(services, "send", FILE=_one_login(tmp_path))


def test_failed_migration_is_repeated_after_its_remedy(
    services: Services, database_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(database_url, password=services.postgres.password) as owner:
        owner.execute('CREATE TABLE user_logins ("User_Id" varchar(128))')
    # `migrate` would wait 90 s for a host that may start.
    away = database_url.replace(services.postgres.host, "nowhere.invalid")

    unreachable = _run(services, "deploy", status=1, DATABASE_URL=away)
    refused = _run(services, "deploy", status=1, DATABASE_URL=database_url)
    assert "but migrate failed: the database is not ready: " in refused
    problems = refused.split("but migrate failed: ")[1].splitlines()[0]
    with psycopg.connect(database_url, password=services.postgres.password) as owner:
        for remedy in re.findall(r": (ALTER TABLE [^;]+)", problems):
            owner.execute(remedy)
    _run(services, "deploy", DATABASE_URL=database_url)

    assert "but migrate failed: Postgres cannot be reached" in unreachable
    assert "1 sent: 1 written" in _run(services, "send", FILE=_one_login(tmp_path))


def test_delete_leaves_salt_and_rows(services: Services) -> None:
    _run(services, "deploy")
    described = _describe(services)
    salt, rows = stack.salt(services.emulator, described), _masked_ips(services)

    _run(services, "delete")

    assert stack.salt(services.emulator, described) == salt
    assert _masked_ips(services) == rows
    formation = services.emulator.client("cloudformation")
    stacks = formation.list_stacks(StackStatusFilter=["CREATE_COMPLETE", "UPDATE_COMPLETE"])
    assert STACK not in {one["StackName"] for one in stacks["StackSummaries"]}
    assert services.emulator.client("s3").list_buckets()["Buckets"] == []


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"DATABASE_URL": "postgresql://postgres:hunter2@db/logins"}, "variable PGPASSWORD"),
        (
            {"DATABASE_URL": "postgresql://postgres@db/logins?sslmode=disable"},
            "verify the server's certificate",
        ),
        (
            {"DATABASE_URL": "postgresql://postgres@db/?password=hunter2"},
            "DATABASE_URL has options",
        ),
        (
            {"DATABASE_URL": "postgresql://postgres@db:none/"},
            "postgresql://USER@HOST:PORT/DATABASE",
        ),
        ({"DATABASE_URL": "mysql://root@db/logins"}, "postgresql://USER@HOST:PORT/DATABASE"),
        ({"PARAMETERS": "BatchSize"}, "PARAMETERS has no value for BatchSize"),
        ({"DATABASE_CA": "nowhere.pem"}, "DATABASE_CA=nowhere.pem is not a file"),
        ({"PGPASSWORD": ""}, "PGPASSWORD is missing"),
        ({"ENDPOINT": "http://127.0.0.1:1"}, "No localstack answers"),
    ],
)
def test_wrong_parameters_are_refused(
    services: Services, variables: dict[str, str], sentence: str
) -> None:
    output = _run(services, "deploy", status=1, **variables)

    assert sentence in output
    assert "hunter2" not in output


def test_end_to_end_tests_leave_nothing_behind(services: Services) -> None:
    before = _inventory(services)
    environment = {
        "E2E_EMULATOR": "localstack",
        "E2E_ENDPOINT_URL": services.emulator.endpoint,
        # Another name and address of this machine, as Docker's network has.
        "E2E_DATABASE_HOST": "127.0.0.2",
        "E2E_DATABASE_LISTEN": "127.0.0.2",
    }
    tests = ["tests/e2e/test_queue.py", "tests/e2e/test_exposure.py"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests],
        check=False,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    assert done.returncode == 0, done.stdout
    assert "2 passed, 2 deselected" in done.stdout
    assert "test_running_function_shows_no_secret_to_others: " in done.stdout
    assert _inventory(services) == before


def _run(services: Services, command: str, status: int = 0, **variables: str) -> str:
    """Run a command, and see that nobody can read the password while it runs."""
    postgres = services.postgres
    environment = os.environ | {
        "ENDPOINT": services.emulator.endpoint,
        "DATABASE_URL": f"postgresql://postgres@{postgres.host}:{postgres.port}/{DATABASE}",
        "DATABASE_CA": str(postgres.certificate_authority),
        "PGPASSWORD": postgres.password,
        # In seconds, instead of 5.
        "SAM_CLI_POLL_DELAY": "1",
        **variables,
    }
    listed: set[str] = set()
    with TemporaryFile("w+") as output:
        with subprocess.Popen(
            [sys.executable, "-m", "deploy.localstack", command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as running:
            while running.poll() is None:
                processes = psutil.process_iter(["cmdline"])
                listed |= {" ".join(one.info["cmdline"] or []) for one in processes}
                sleep(0.05)
        output.seek(0)
        text = output.read()
    assert running.returncode == status, text
    assert [line for line in listed if postgres.password in line] == []
    assert postgres.password not in text
    assert postgres.password not in services.emulator.log.read_text()
    return text


def _reasons(output: str) -> str:
    """Join the last column of SAM's table of events, which wraps its texts."""
    return " ".join(line[75:].strip() for line in output.splitlines() if line[75:].strip())


def _one_login(directory: Path) -> str:
    """Write a file with one of the sample messages."""
    file = directory / "login.jsonl"
    file.write_text((EVENTS / "login-queue.jsonl").read_text().splitlines()[0])
    return str(file)


def _describe(services: Services) -> Stack:
    return stack.describe(services.emulator, STACK, OWNER_SECRET)


def _masked_ips(services: Services) -> list[str]:
    with services.postgres.connect(DATABASE) as owner:
        rows = owner.execute("SELECT masked_ip FROM user_logins ORDER BY 1").fetchall()
    return [masked_ip for (masked_ip,) in rows]


def _inventory(services: Services) -> dict[str, set[str]]:
    """List what is in the LocalStack, but for keys, which can only be scheduled for deletion."""
    client = services.emulator.client
    statuses = ["CREATE_COMPLETE", "UPDATE_COMPLETE", "CREATE_FAILED", "DELETE_FAILED"]
    stacks = client("cloudformation").list_stacks(StackStatusFilter=statuses)
    return {
        "stacks": {one["StackName"] for one in stacks["StackSummaries"]},
        "queues": set(client("sqs").list_queues().get("QueueUrls", [])),
        "buckets": {one["Name"] for one in client("s3").list_buckets()["Buckets"]},
        "functions": {
            one["FunctionName"] for one in client("lambda").list_functions()["Functions"]
        },
        "secrets": {one["Name"] for one in client("secretsmanager").list_secrets()["SecretList"]},
        "log groups": {
            one["logGroupName"] for one in client("logs").describe_log_groups()["logGroups"]
        },
    }
