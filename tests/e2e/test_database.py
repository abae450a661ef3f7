"""The database refuses rows, stops and restarts, and its roles have minimal privileges."""

import pytest
from psycopg.errors import InsufficientPrivilege

from dev import logs
from dev.logins import failed, login, record
from e2e.driver import Driver, wait_until

PRIVILEGES = """
SELECT relname, privilege
FROM pg_class
CROSS JOIN unnest(
    ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
) AS privilege
WHERE
    relkind IN ('r', 'p', 'v', 'm', 'f')
    AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    AND relnamespace::regnamespace::text NOT LIKE 'pg_toast%%'
    AND has_table_privilege(%s, oid, privilege)
"""

ATTRIBUTES = """
SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
FROM pg_roles
WHERE rolname = %s
"""


def test_refused_row_fails_and_the_rest_commits(driver: Driver) -> None:
    batch = [record(login(locale="XX" if place == 30 else "RU")) for place in range(50)]
    driver.execute("ALTER TABLE user_logins ADD CONSTRAINT no_xx CHECK (locale <> 'XX')")
    try:
        answer = driver.invoke(*batch)
    finally:
        driver.execute("ALTER TABLE user_logins DROP CONSTRAINT no_xx")

    assert answer == failed(batch[30])
    assert len(driver.rows()) == 49
    assert driver.reason(batch[30]["messageId"]) == "RowRefused"


def test_batch_sent_during_outage_succeeds_when_repeated(driver: Driver) -> None:
    earlier, batch = record(login()), [record(login()) for _ in range(10)]
    assert driver.invoke(earlier) == failed()

    driver.system.postgres.stop()
    try:
        while_away = driver.invoke(*batch)
    finally:
        driver.system.postgres.start()
    afterwards = driver.invoke(*batch)

    assert while_away == {"errorType": "DatabaseUnreachable"}
    # 57P01: Postgres ended the connection of the earlier batch because it stopped.
    assert errors(driver) == [
        "Postgres cannot be reached: connection refused; "
        "the previous connection ended: SQLSTATE 57P01"
    ]
    assert afterwards == failed()
    assert len(driver.rows()) == 11


def errors(driver: Driver) -> list[str]:
    """Return the errors of the batches that failed; the log may arrive late."""

    def texts() -> list[str]:
        lines = map(logs.fields, driver.log_lines())
        return [line["error"] for line in lines if line.get("message") == "batch failed"]

    wait_until(lambda: texts() != [], texts)
    return texts()


def test_restart_between_batches_causes_no_failure(driver: Driver) -> None:
    assert driver.invoke(record(login())) == failed()

    driver.system.postgres.restart()

    assert driver.invoke(record(login())) == failed()
    assert len(driver.rows()) == 2


def test_idle_session_that_postgres_ended_causes_no_failure(driver: Driver) -> None:
    # As a database that pauses: DatabaseParameters in template.yaml.
    driver.execute("ALTER DATABASE logins SET idle_session_timeout = '100ms'")
    try:
        driver.system.postgres.restart()
        assert driver.invoke(record(login())) == failed()
        wait_until(lambda: sessions(driver) == [], lambda: sessions(driver))

        assert driver.invoke(record(login())) == failed()
    finally:
        driver.execute("ALTER DATABASE logins RESET idle_session_timeout")
        driver.system.postgres.restart()

    assert len(driver.rows()) == 2


def sessions(driver: Driver) -> list[tuple[int]]:
    """Return the sessions of the function."""
    return driver.query("SELECT pid FROM pg_stat_activity WHERE usename = %s", "login_writer")


def test_writer_may_only_insert_and_read_the_ledger(driver: Driver) -> None:
    assert set(driver.query(PRIVILEGES, "login_writer")) == {
        ("user_logins", "INSERT"),
        ("processed_messages", "INSERT"),
        ("processed_messages", "SELECT"),
        ("processed_fifo_messages", "INSERT"),
        ("processed_fifo_messages", "SELECT"),
    }
    assert driver.query(ATTRIBUTES, "login_writer") == [(False,) * 5]


def test_analysts_may_only_read_user_logins(driver: Driver) -> None:
    assert set(driver.query(PRIVILEGES, "login_reader")) == {("user_logins", "SELECT")}
    assert driver.query(ATTRIBUTES, "login_reader") == [(False,) * 5]


@pytest.mark.parametrize(
    ("user", "statement"),
    [
        ("login_writer", "SELECT FROM user_logins"),
        ("login_writer", "UPDATE user_logins SET locale = NULL"),
        ("login_writer", "DELETE FROM user_logins"),
        ("login_writer", "TRUNCATE user_logins"),
        ("login_writer", "DELETE FROM processed_messages"),
        ("login_writer", "DELETE FROM processed_fifo_messages"),
        ("login_writer", "ALTER TABLE user_logins ADD COLUMN ip text"),
        ("login_writer", "CREATE ROLE friend"),
        ("analyst", "SELECT FROM processed_messages"),
        ("analyst", "INSERT INTO user_logins (user_id) VALUES ('me')"),
        ("analyst", "DELETE FROM user_logins"),
    ],
)
def test_statement_without_privilege_is_refused(driver: Driver, user: str, statement: str) -> None:
    with driver.system.connect(user) as database, pytest.raises(InsufficientPrivilege):
        database.execute(statement)


def test_function_connects_as_login_writer_over_tls(driver: Driver) -> None:
    assert driver.invoke(record(login())) == failed()

    sessions = "SELECT DISTINCT usename, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
    assert driver.query(f"{sessions} WHERE application_name = %s", "login-etl") == [
        ("login_writer", True)
    ]
