"""The incidents of the runbook: each context causes an incident and repairs it by the runbook."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import psycopg

from e2e import documented, function, program
from e2e.driver import Driver

END_SESSIONS = """
SELECT count(pg_terminate_backend(pid, 5000))
FROM pg_stat_activity
WHERE usename = 'login_writer'
"""

Incident = Callable[[Driver], AbstractContextManager[None]]


@contextmanager
def no_server(driver: Driver) -> Iterator[None]:
    """Stop Postgres, and start it again."""
    driver.system.postgres.stop()
    try:
        yield
    finally:
        driver.system.postgres.start()


def statements(cause: str, repair: str) -> Incident:
    """Return the incident that a statement causes and another statement repairs."""

    @contextmanager
    def change(driver: Driver) -> Iterator[None]:
        driver.execute(cause)
        driver.query(END_SESSIONS)
        try:
            yield
        finally:
            driver.execute(repair)
            driver.query(END_SESSIONS)

    return change


def locked(lock_timeout: str) -> Incident:
    """Return the incident of a locked table; a lock_timeout of 0 lets the function wait.

    It ends by terminating the session that the runbook's query finds.
    """

    @contextmanager
    def lock(driver: Driver) -> Iterator[None]:
        driver.execute(f"ALTER ROLE login_writer SET lock_timeout = '{lock_timeout}'")
        driver.query(END_SESSIONS)
        with closing(psycopg.connect(driver.system.url("postgres"))) as session:
            session.execute("LOCK TABLE user_logins")
            try:
                yield
            finally:
                [holder, *_] = driver.query(documented.sql("Find who holds a lock"))
                driver.query("SELECT pg_terminate_backend(%s, 5000)", holder[0])
                driver.execute("ALTER ROLE login_writer RESET lock_timeout")
                driver.query(END_SESSIONS)

    return lock


@contextmanager
def wrong_fingerprint(driver: Driver) -> Iterator[None]:
    """Change the salt fingerprint in the database, until the function's salt is accepted."""
    driver.execute("UPDATE salt_fingerprint SET fingerprint = 'of another salt'")
    yield
    accepted = program.run(
        driver.system.emulator, "--stack", driver.system.stack.name, "--yes", "accept-salt"
    )
    assert accepted.status == 0, accepted


@contextmanager
def wrong_salt(driver: Driver) -> Iterator[None]:
    """Replace the salt in its secret, until its previous version is restored."""
    secrets = driver.system.emulator.client("secretsmanager")
    secret = {"SecretId": driver.system.stack.salt_id}
    secrets.put_secret_value(**secret, SecretString="another salt, which is long enough")
    driver.configure()
    try:
        yield
    finally:
        before = secrets.get_secret_value(**secret, VersionStage="AWSPREVIOUS")
        secrets.put_secret_value(**secret, SecretString=before["SecretString"])


@contextmanager
def wrong_setting(driver: Driver) -> Iterator[None]:
    """Set an invalid setting, with which the function does not start, and then the old setting."""
    port = driver.configure(DATABASE_PORT="none")["DATABASE_PORT"]
    try:
        yield
    finally:
        driver.configure(DATABASE_PORT=port)


@contextmanager
def no_secret(driver: Driver) -> Iterator[None]:
    """Refuse the login, and forbid the function to fetch its credentials again."""
    system = driver.system
    forbidden = function.policy(system.emulator, system.stack, function.without("ReadTheSecrets"))
    with forbidden, BY_ERROR_TYPE["DatabaseLoginRefused"](driver):
        yield


BY_ERROR_TYPE: dict[str, Incident] = {
    "DatabaseUnreachable": no_server,
    "DatabaseLoginRefused": statements(
        "ALTER ROLE login_writer NOLOGIN", "ALTER ROLE login_writer LOGIN"
    ),
    "DatabaseOutOfConnections": statements(
        "ALTER ROLE login_writer CONNECTION LIMIT 0", "ALTER ROLE login_writer CONNECTION LIMIT -1"
    ),
    "DatabaseTimedOut": locked("0"),
    "DatabaseDeadlock": locked("100ms"),
    "DatabaseRefused": statements(
        "REVOKE INSERT ON user_logins FROM login_writer",
        "GRANT INSERT ON user_logins TO login_writer",
    ),
    "SaltChanged": wrong_fingerprint,
    # As the vault's function raises it for a batch that is sealed to another key.
    "VaultKeyChanged": statements(
        """CREATE FUNCTION refuse_key() RETURNS trigger LANGUAGE plpgsql
               AS 'BEGIN RAISE EXCEPTION USING ERRCODE = ''LE003''; END';
           CREATE TRIGGER refuse_key BEFORE INSERT ON user_logins
               FOR EACH STATEMENT EXECUTE FUNCTION refuse_key()""",
        "DROP TRIGGER refuse_key ON user_logins; DROP FUNCTION refuse_key()",
    ),
    "SecretsUnavailable": no_secret,
}
