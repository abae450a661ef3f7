"""The examples in the documents: queries, shell commands, and message bodies."""

import json
import os
import re
import shlex
import subprocess

import pytest

from dev import ROOT, TARGET
from dev.checks.markdown import commands
from dev.emulator import REGION
from dev.logins import failed, login, record, token
from e2e.driver import Driver

AWS = TARGET / "tools" / "deploy" / "bin"
ADDRESS = "199.172.111.135"
# The commands of docs/operations.md that an emulator can run, and a text that each prints.
PRINTED = {
    "aws cloudformation describe-stacks": "SaltSecretArn",
    "aws lambda list-event-source-mappings": "-logins",
    "aws lambda update-event-source-mapping --uuid <UUID>": "Enabl",
    "aws lambda update-event-source-mapping --uuid <RedriveMappingId>": "Disabl",
    "aws sqs purge-queue": "",
    "aws lambda update-function-configuration": '"MemorySize": 257',
    "aws lambda invoke": "null",
}


def test_devices_query_finds_duplicates(driver: Driver) -> None:
    _log_in(driver, "device_id", "593-47-5928", "users share this device")
    query = _blocks("message-format", "Duplicate devices", "sql")[0]

    found = _as_analyst(driver, query)

    assert found == [(token(driver.salt, "device_id", "593-47-5928"), 3, 2)]


def test_addresses_query_finds_duplicates(driver: Driver) -> None:
    _log_in(driver, "ip", ADDRESS, "users share this address")
    query = _blocks("privacy", "Duplicate addresses", "sql")[0]

    found = _as_analyst(driver, query)

    assert found == [(token(driver.salt, "ip", ADDRESS), 3, 2)]


def test_openssl_computes_the_token_in_the_row(driver: Driver) -> None:
    assert driver.invoke(record(login(ip=ADDRESS))) == failed()
    [script] = _blocks("privacy", "Verify a token", "sh")

    printed = _run(driver, script, SALT_SECRET_ID=driver.system.stack.salt_id)

    [(masked_ip,)] = driver.query("SELECT masked_ip FROM user_logins")
    assert ADDRESS in script
    assert printed.split()[-1] == masked_ip


@pytest.mark.parametrize("command", PRINTED)
def test_operators_command_runs_as_written(driver: Driver, command: str) -> None:
    printed = _run(driver, _filled(driver, _of_operations(command)))

    assert PRINTED[command] in printed


def test_the_previous_salt_is_restored(driver: Driver) -> None:
    old = driver.salt
    secrets, secret = driver.system.emulator.client("secretsmanager"), driver.system.stack.salt_id
    secrets.put_secret_value(SecretId=secret, SecretString="another salt, at least 32 bytes long")
    assert driver.salt != old

    listed = _run(
        driver, _filled(driver, _of_operations("aws secretsmanager list-secret-version-ids"))
    )
    versions = {
        stage: version["VersionId"]
        for version in json.loads(listed)["Versions"]
        for stage in version["VersionStages"]
    }
    restore = _of_operations("aws secretsmanager update-secret-version-stage")
    for stage, version in versions.items():
        restore = restore.replace(f"<id with {stage}>", version)
    _run(driver, _filled(driver, restore))

    assert driver.salt == old


@pytest.mark.parametrize("heading", ["The body", "Nested objects"])
def test_example_bodies_become_equal_rows(driver: Driver, heading: str) -> None:
    bodies = [json.loads(body) for body in _blocks("message-format", heading, "json")]

    answer = driver.invoke(*(record(body) for body in bodies))

    assert answer == failed()
    rows = driver.rows()
    # The examples under a heading are spellings of one login.
    assert rows == [rows[0]] * len(bodies)


def _log_in(driver: Driver, field: str, value: str, user: str) -> None:
    """Let two users share a value, one of them twice; a third user has none of it."""
    shared = {field: value}
    bodies = [
        login(user_id=f"{user} 1", **shared),
        login(user_id=f"{user} 1", **shared),
        login(user_id=f"{user} 2", **shared),
        login(),
        login(**{field: None}),
        login(**{field: None}),
    ]
    assert driver.invoke(*map(record, bodies)) == failed()


def _as_analyst(driver: Driver, query: str) -> list[tuple[object, ...]]:
    with driver.system.connect("analyst") as database:
        return database.execute(query).fetchall()


def _of_operations(start: str) -> str:
    """Find the command of docs/operations.md that starts like this."""
    shown = (one.text for one in commands() if one.document == "docs/operations.md")
    return next(one for one in shown if one.startswith(start))


def _filled(driver: Driver, command: str) -> str:
    """Put the names of this stack into a command."""
    system = driver.system
    client = system.emulator.client
    [found] = client("cloudformation").describe_stacks(StackName=system.stack.name)["Stacks"]
    names = {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}
    mappings = client("lambda").list_event_source_mappings(FunctionName=system.stack.function)
    [names["UUID"]] = [
        one["UUID"]
        for one in mappings["EventSourceMappings"]
        if one["EventSourceArn"].endswith("-logins")
    ]
    command = command.replace("login-etl-prod", system.stack.name)
    for name, value in names.items():
        command = command.replace(f"<{name}>", shlex.quote(value))
    return command


def _run(driver: Driver, script: str, **variables: str) -> str:
    """Run a script with the AWS command line that the Makefile installs, on the emulator."""
    environment = driver.system.emulator.environment | variables
    environment |= {"AWS_DEFAULT_REGION": REGION, "PATH": f"{AWS}:{os.environ['PATH']}"}
    # Without the option, its `sqs` ignores AWS_ENDPOINT_URL.
    function = 'aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }'
    command = ["bash", "-euo", "pipefail", "-c", f"{function}\n{script}"]
    return subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout


def _blocks(document: str, heading: str, language: str) -> list[str]:
    """Read the fenced blocks in a language under a heading."""
    text = (ROOT / "docs" / f"{document}.md").read_text()
    section = re.split(r"^#+ ", text.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(rf"^```{language}\n(.+?)^```", section, re.DOTALL | re.MULTILINE)
