"""`login-etl resalt` on a stack: every token is replaced, and logins go on."""

import hmac
import json
import secrets

from dev import stack
from dev.logins import login, token
from e2e import program
from e2e.deployment import Database
from e2e.driver import wait_until
from e2e.program import Run

IP = "203.0.113.7"
READ = "SELECT user_id, masked_ip, masked_device_id FROM user_logins ORDER BY user_id"


def test_every_token_follows_the_later_salt(database: Database) -> None:
    database.deploy()
    _store(database, "a", "b")
    salt = stack.salt(database.emulator, database.stack)
    later = secrets.token_hex(32)
    secret = json.dumps({"salt": salt, "later_salts": [later]})
    client = database.emulator.client("secretsmanager")
    client.put_secret_value(SecretId=database.stack.salt_id, SecretString=secret)

    refused, waits = _run(database, "accept-salt", "--yes"), _run(database, "status")
    denied = _resalt(database)
    unchanged = database.query(READ)
    database.update(database.template, Resalt="true")
    done = _resalt(database)
    again = _resalt(database)
    _store(database, "a", "b", "c")

    assert (refused.status, "run resalt" in refused.progress) == (1, True), refused
    assert "waits for resalt" in waits.output, waits
    assert (denied.status, "SALT_SECRET_ID" in denied.progress) == (1, True), denied
    assert unchanged == [_row(salt, user) for user in ("a", "b")]
    assert (done.status, done.result["rows"]) == (0, 2), done
    assert (again.status, again.result["rows"]) == (0, 0), again
    of_both = [
        (user, *(_later(later, token) for token in tokens))
        for user, *tokens in (_row(salt, user) for user in ("a", "b", "c"))
    ]
    # The logins of later are equal to those of before.
    assert database.query(READ) == sorted([*of_both[:2], *of_both])


def _resalt(database: Database) -> Run:
    return _run(database, "resalt", "--yes", "--json")


def _run(database: Database, *arguments: str) -> Run:
    return program.run(database.emulator, "--stack", database.stack.name, *arguments)


def _store(database: Database, *users: str) -> None:
    before = len(database.users())
    for user in users:
        body = login(user_id=user, ip=IP, device_id=f"device-of-{user}")
        database.send(json.dumps(body))
    wait_until(lambda: len(database.users()) == before + len(users), database.users)


def _row(salt: str, user: str) -> tuple[str, str, str]:
    return user, token(salt, "ip", IP), token(salt, "device_id", f"device-of-{user}")


def _later(salt: str, earlier: str) -> str:
    return hmac.digest(salt.encode(), earlier.encode(), "sha256").hex()
