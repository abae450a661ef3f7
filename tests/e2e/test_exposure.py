"""What other users of the machine can see of a running function."""

import shutil

import psutil
import psycopg
import pytest

from dev import EVENTS, local_system, postgres
from e2e import function
from e2e.driver import Driver


@pytest.mark.own_localstack("inspects the function's process, which may be in a container")
def test_running_function_shows_no_secret_to_others(driver: Driver) -> None:
    system = driver.system
    secrets = {driver.salt, *system.passwords.values()}
    answer = driver.invoke_file(EVENTS / "good.json")

    functions = function.processes(system.stack)
    listings = [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    environments = [str(process.environ()) for process in functions]
    written = [file for process in functions for file in process.open_files() if file.mode != "r"]

    assert answer == {"batchItemFailures": []}
    assert [text for text in listings + environments for secret in secrets if secret in text] == []
    assert written == []
    # The search had input: functions run, and their environment has the other settings.
    assert functions
    assert all("DATABASE_SECRET_ID" in text for text in environments)


def test_terse_log_of_postgres_quotes_no_row() -> None:
    directory = local_system.make_directory()
    server = postgres.create(
        directory / "postgres", directory / "postgres.log", {"log_error_verbosity": "terse"}
    )
    try:
        with server.connect() as admin:
            admin.execute("CREATE TABLE user_logins (user_id text CHECK (user_id = ''))")
            _insert_refused(admin, "terse user")
            admin.execute("SET log_error_verbosity = 'default'")
            _insert_refused(admin, "default user")
        log = server.log.read_text()
    finally:
        server.stop()
        shutil.rmtree(directory)

    assert log.count("violates check constraint") == 2
    assert "terse user" not in log
    # By default the log quotes the row. The template's parameter group prevents this.
    assert "default user" in log


def _insert_refused(admin: psycopg.Connection, user: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        admin.execute("INSERT INTO user_logins VALUES (%s)", [user])
