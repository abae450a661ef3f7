"""The vault of a stack: each policy opens one route, and a reveal leaves its entry.

`dev/vault.py` says why the stack is in one emulator and its key in another. For the stack, the key
is the key of an older stack.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dev import TARGET, emulator, logs, stack
from dev import vault as dev_vault
from dev.emulator import Emulator, Feature, Kind
from dev.local_system import Services, running_services
from dev.logins import login, token
from dev.vault import POLICIES
from e2e import documented, emf, insights, program, vault
from e2e.cloudwatch import OF_VAULT
from e2e.deployment import DATABASE, Database
from e2e.driver import wait_until
from e2e.program import Run
from e2e.test_costs import MEASURED

pytestmark = [
    pytest.mark.needs(Feature.KEY_AGREEMENT),
    pytest.mark.own_localstack("starts a LocalStack whose KMS the functions call"),
]

ACCOUNT = "000000000000"
USERS = ["a", "b", "c"]
# All users have this address. Each has a device id of its own.
IP = "203.0.113.7"
PURPOSE = ("--reason", "test", "--ticket", "SEC-1")


@dataclass(frozen=True)
class Person:
    """The session of a role, which calls the vault of a stack."""

    database: Database
    home: Path
    session: dict[str, str]

    def run(self, *arguments: str, typed: str = "") -> Run:
        """Run a command of `login-etl`."""
        url = dev_vault.url(self.database.emulator, self.database.stack.name)
        return vault.run(self.home, url, *arguments, typed=typed, **self.session)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Start the servers, with a KMS that agrees on keys."""

    def start(directory: Path, log: Path, **settings: str) -> Emulator:
        return emulator.start(Kind.MINISTACK, directory, log, **settings)

    with running_services(TARGET / "e2e-vault", start_emulator=start, with_kms=True) as services:
        yield services


@pytest.fixture(scope="module")
def sealed(services: Services) -> Iterator[Database]:
    """Deploy a stack with a vault, and write logins."""
    database = Database(services, Vault="true", VaultKeyArn=dev_vault.create_key(services.kms))
    try:
        database.deploy()
        bodies = [login(user_id=user, ip=IP, device_id=f"device-of-{user}") for user in USERS]
        database.send(*map(json.dumps, bodies))
        wait_until(lambda: database.users() == USERS, database.users)
        yield database
    finally:
        database.drop()


@pytest.fixture(scope="module")
def people(sealed: Database, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Person]:
    """Create a role for each policy of the vault, and one without."""
    home = tmp_path_factory.mktemp("home")
    policies = {verb: sealed.output(output) for verb, output in POLICIES.items()}
    return {
        name: Person(sealed, home, dev_vault.create_session(sealed.emulator, name, policy))
        for name, policy in (policies | {"nobody": None}).items()
    }


@pytest.fixture
def tokens(sealed: Database) -> dict[str, str]:
    """Compute the tokens of the values."""
    salt = stack.salt(sealed.emulator, sealed.stack)
    devices = {user: token(salt, "device_id", f"device-of-{user}") for user in USERS}
    return devices | {"ip": token(salt, "ip", IP)}


def test_reader_gets_value_after_its_entry(
    sealed: Database, people: dict[str, Person], tokens: dict[str, str]
) -> None:
    done = people["reveal"].run("reveal", tokens["ip"], *PURPOSE, "--json")

    assert done.status == 0, done
    assert (done.result["field"], done.result["value"]) == ("ip", IP)
    # The statement of the document shows the newest entry first.
    [entry, *_] = sealed.query(documented.sql("Reveal a value"))
    _, caller, verb, field, revealed, reason, ticket, outcome, request_id = entry
    assert caller == f"arn:aws:sts::{ACCOUNT}:assumed-role/reveal/ann"
    # The caller names no field.
    assert (verb, field, revealed) == ("reveal", None, tokens["ip"])
    assert (reason, ticket, outcome) == ("test", "SEC-1", "done")
    assert request_id


@pytest.mark.parametrize("name", [*POLICIES, "nobody"])
def test_each_policy_opens_one_route(
    people: dict[str, Person], tokens: dict[str, str], name: str, tmp_path: Path
) -> None:
    unknown = "0" * 64
    statuses = {
        "token": people[name].run("token", "--field", "ip", typed=IP).status,
        "reveal": people[name].run("reveal", tokens["ip"], *PURPOSE).status,
        "erase": people[name].run("erase", unknown, *PURPOSE, "--yes").status,
        "audit": people[name].run("vault", "agree", "--cloudtrail", str(_trail(tmp_path))).status,
        "verify": people[name].run("vault", "verify", "--sample", "1").status,
        "honey": people[name].run("vault", "honey", "1", *PURPOSE).status,
    }

    assert {verb for verb, status in statuses.items() if status != 3} == {name} & {*POLICIES}


def test_unknown_and_erased_have_their_status(
    people: dict[str, Person], tokens: dict[str, str]
) -> None:
    token = tokens["a"]

    unknown = people["reveal"].run("reveal", "1" * 64, *PURPOSE)
    before = people["reveal"].run("reveal", token, *PURPOSE)
    erased = people["erase"].run("erase", token, *PURPOSE, "--yes", "--json")
    after = people["reveal"].run("reveal", token, *PURPOSE)

    assert [one.status for one in (unknown, before, erased, after)] == [4, 0, 0, 5]
    assert (erased.result["erased"], erased.result["shared"]) == ([token], [])


def test_erased_user_leaves_shared_values(
    people: dict[str, Person], tokens: dict[str, str]
) -> None:
    done = people["erase"].run("erase", "--user", *PURPOSE, "--yes", "--json", typed="b")

    assert done.status == 0, done
    assert done.result["erased"] == [tokens["b"]]
    assert done.result["shared"] == [tokens["ip"]]
    assert people["reveal"].run("reveal", tokens["ip"], *PURPOSE).status == 0


def test_vault_verifies_itself(people: dict[str, Person]) -> None:
    done = people["verify"].run("vault", "verify", "--json")

    assert done.status == 0, done
    assert (done.result["sampled"], done.result["unopenable"]) == (done.result["opened"], 0)
    [key] = done.result["keys"]
    assert (key["is_current"], key["kms"]) == (True, "works")
    assert done.result["settings_have_current_key"]


def test_honey_token_is_unknown_and_measured(sealed: Database, people: dict[str, Person]) -> None:
    [honey] = people["honey"].run("vault", "honey", "1", *PURPOSE, "--json").result["tokens"]
    group = sealed.output("VaultLogGroupName")

    done = people["reveal"].run("reveal", honey, *PURPOSE)

    assert done.status == 4, done
    wait_until(
        lambda: any('"honey_tokens_asked":1' in line for line in _lines(sealed, group)),
        lambda: group,
    )
    assert not any(honey in line for line in _lines(sealed, group))


def test_unknown_erasures_are_replayed(
    sealed: Database, people: dict[str, Person], tokens: dict[str, str]
) -> None:
    assert people["erase"].run("erase", tokens["c"], *PURPOSE, "--yes").status == 0
    # As a backup from before: the database knows no erasure.
    with sealed.postgres.connect(DATABASE) as owner:
        owner.execute("TRUNCATE vault_listed, vault_erased")
    assert people["reveal"].run("reveal", tokens["c"], *PURPOSE).status == 4

    replay = ("--stack", sealed.stack.name, "vault", "replay")
    first = program.run(sealed.emulator, *replay, "--json")
    second = program.run(sealed.emulator, *replay, "--json")

    assert (first.status, second.status) == (0, 0), first
    assert first.result["erasures"] == first.result["listed"] == second.result["listed"] > 0
    assert second.result["erasures"] == 0
    assert people["reveal"].run("reveal", tokens["c"], *PURPOSE).status == 5


def test_login_of_vault_reads_no_table(sealed: Database) -> None:
    password = json.loads(_secret(sealed))["password"]

    for table in (
        "user_logins",
        "vault_sealed",
        "vault_inbox",
        "vault_audit",
        "vault_keys",
        "vault_honey",
    ):
        with (
            psycopg.connect(sealed.postgres.url("login_vault", password, DATABASE)) as session,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            session.execute(f"SELECT * FROM {table}")


def test_metrics_of_graphs_and_costs_are_written(
    sealed: Database, people: dict[str, Person], tokens: dict[str, str]
) -> None:
    people["reveal"].run("reveal", tokens["ip"], *PURPOSE)
    stack.migrate(sealed.emulator, sealed.stack)
    migrate = len(_metrics(sealed, sealed.stack.migrate_log_group, without_vault=True))

    def names() -> set[tuple[str, str, tuple[str, ...]]]:
        return {(one.namespace, one.name, tuple(sorted(one.dimensions))) for one in found()}

    def found() -> list[emf.Metric]:
        return [
            *_metrics(sealed, sealed.output("VaultLogGroupName")),
            *_metrics(sealed, sealed.stack.migrate_log_group),
        ]

    wait_until(lambda: names() >= OF_VAULT, names)
    charged = {(metric.name, json.dumps(metric.dimensions)) for metric in found()}
    of_ingest = 1  # `sealed`
    assert len(charged) - migrate + of_ingest == MEASURED["vault_metrics"]


def test_saved_query_finds_requests(
    sealed: Database, people: dict[str, Person], tokens: dict[str, str]
) -> None:
    people["reveal"].run("reveal", "1" * 64, *PURPOSE)
    people["reveal"].run("reveal", tokens["ip"], *PURPOSE)
    [query] = (insights.SAVED[name] for name in insights.OF_VAULT)

    def found() -> list[dict[str, Any]]:
        return insights.run(query, _lines(sealed, sealed.output("VaultLogGroupName")))

    wait_until(lambda: any(line.get("outcome") == "unknown" for line in found()), found)
    there = {field for line in found() for field in line}
    # Only a request to a service that failed has an error type.
    assert insights.fields(query) - there <= {"error_type"}


def test_vault_logs_no_value_and_no_token(
    sealed: Database, people: dict[str, Person], tokens: dict[str, str]
) -> None:
    people["reveal"].run("reveal", tokens["ip"], *PURPOSE)
    group = sealed.output("VaultLogGroupName")

    wait_until(lambda: any('"_aws"' in line for line in _lines(sealed, group)), lambda: group)

    text = "\n".join(_lines(sealed, group))
    assert not any(value in text for value in (IP, "device-of-", *tokens.values()))


def test_rotation_changes_password_of_vault(
    sealed: Database, people: dict[str, Person], tokens: dict[str, str]
) -> None:
    old = _secret(sealed)

    done = program.run(sealed.emulator, "--stack", sealed.stack.name, "--yes", "rotate")

    assert done.status == 0
    assert _secret(sealed) != old
    assert people["reveal"].run("reveal", tokens["ip"], *PURPOSE).status == 0


def test_vault_is_turned_off_and_on(
    sealed: Database, tmp_path: Path, tokens: dict[str, str]
) -> None:
    assert sealed.update(sealed.template, Vault="false") == "UPDATE_COMPLETE"
    functions = sealed.emulator.client("lambda").list_functions()["Functions"]
    assert len(functions) == 2
    assert sealed.stores_login("d")

    assert sealed.update(sealed.template) == "UPDATE_COMPLETE"

    policy = sealed.output("VaultReaderPolicyArn")
    session = dev_vault.create_session(sealed.emulator, "reveal-again", policy)
    done = Person(sealed, tmp_path, session).run("reveal", tokens["ip"], *PURPOSE, "--json")
    assert done.result["value"] == IP


def _trail(directory: Path) -> Path:
    """Write a log file of CloudTrail without events."""
    trail = directory / "trail.json"
    trail.write_text('{"Records": []}')
    return trail


def _secret(database: Database) -> str:
    secrets = database.emulator.client("secretsmanager")
    return secrets.get_secret_value(SecretId=database.output("VaultSecretArn"))["SecretString"]


def _lines(database: Database, group: str) -> list[str]:
    pages = database.emulator.client("logs").get_paginator("filter_log_events")
    return [
        event["message"] for page in pages.paginate(logGroupName=group) for event in page["events"]
    ]


def _metrics(database: Database, group: str, *, without_vault: bool = False) -> list[emf.Metric]:
    """Return the metrics in a log, each once, by choice without those of the fold."""
    lines = [line for line in _lines(database, group) if '"_aws"' in line]
    kept = [line for line in lines if not (without_vault and '"vault folded"' in line)]
    found = {
        (metric.name, json.dumps(metric.dimensions)): metric
        for line in kept
        for metric in emf.metrics(logs.fields(line))
    }
    return [*found.values()]
