"""Each alarm of the template is raised by its cause and cleared by the repair in the runbook.

The causes are real, and the messages pass through the queue, the mapping and the function. The
alarms are those of the stack, with their own periods; `cloudwatch.py` makes LocalStack evaluate
them, and advances the time. The functions' metrics are read from their logs. LocalStack counts
failed invocations and dead letters. It lacks some of AWS's metrics: the age of the oldest message,
throttled invocations, the zero of an invocation that did not fail, and those of a database of RDS.
The tests publish these, and the number of messages in flight, since no test puts 60,000 messages in
flight. The tests' stack has no optional part, so the alarms of these are created beside the stack.

Two differences are not tested. CloudWatch's periods start at a whole minute, LocalStack's end at
the evaluation. CloudWatch evaluates only the last periods, LocalStack a few more.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dev import EVENTS, stack
from dev.emulator import Feature
from dev.local_system import FAST_PARAMETERS
from dev.logins import login, record
from e2e import documented, incidents, insights, program
from e2e.cloudwatch import (
    ALARMS,
    API,
    EXPORT,
    INSTANCE,
    OPTIONAL,
    VAULT,
    CloudWatch,
    queue_name,
)
from e2e.driver import Driver, wait_until
from e2e.mappings import mapping_disabled

pytestmark = [
    pytest.mark.needs(Feature.ALARMS),
    pytest.mark.own_localstack("changes times in the file of LocalStack's CloudWatch"),
]

A_DAY = timedelta(days=1)
# More periods than LocalStack looks at. CloudWatch looks at EvaluationPeriods.
PERIODS_SEEN = 7
GUESSER = "guesser"

# Triggers the cause once more, while it lasts.
Trigger = Callable[[], None]
Cause = Callable[[CloudWatch], AbstractContextManager[Trigger]]


@pytest.fixture
def cloudwatch(driver: Driver) -> Iterator[CloudWatch]:
    """Return CloudWatch, a healthy day after all other tests."""
    cloudwatch = CloudWatch(driver)
    cloudwatch.create_optional_alarms()
    cloudwatch.advance_time(A_DAY)
    _healthy_day(cloudwatch)
    cloudwatch.states()
    # The longest period but that of the daily count: the healthy values belong to an earlier one.
    cloudwatch.advance_time(timedelta(seconds=300))
    yield cloudwatch
    cloudwatch.delete_optional_alarms()


def _logins_during(incident: incidents.Incident) -> Cause:
    """Return a cause that sends a login during an incident."""

    @contextmanager
    def cause(cloudwatch: CloudWatch) -> Iterator[Trigger]:
        with incident(cloudwatch.driver):
            yield lambda: _send(cloudwatch.driver, login())

    return cause


@contextmanager
def _sender_with_wrong_key(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    driver = cloudwatch.driver
    yield lambda: _send(driver, login(user_id=..., userId="wrong-key"))
    # Nothing can repair these messages.
    _settle(driver)
    sqs = driver.system.emulator.client("sqs")
    sqs.purge_queue(QueueUrl=driver.system.stack.dead_letter_queue_url)


@contextmanager
def _disabled_mapping(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    driver = cloudwatch.driver
    queue_url = driver.system.stack.queue_url
    sent = []

    def trigger() -> None:
        sent.append(datetime.now(UTC))
        _send(driver, login())
        old_at = sent[0] + timedelta(seconds=FAST_PARAMETERS["AlarmAgeSeconds"] + 0.5)
        sleep(max(0, (old_at - datetime.now(UTC)).total_seconds()))
        age = datetime.now(UTC) - sent[0]
        queue = {"QueueName": queue_name(queue_url)}
        cloudwatch.publish("oldest-message", queue, age.total_seconds())

    with mapping_disabled(driver, queue_url):
        yield trigger


@contextmanager
def _many_in_flight(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    driver = cloudwatch.driver
    queue = {"QueueName": queue_name(driver.system.stack.queue_url)}

    def trigger() -> None:
        _send(driver, login())
        cloudwatch.publish("in-flight", queue, ALARMS["in-flight"]["Threshold"] + 1)

    yield trigger


@contextmanager
def _guessing_sender(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    driver = cloudwatch.driver

    def trigger() -> None:
        guesses = [login(user_id=GUESSER, ip=f"198.51.100.{number}") for number in range(101)]
        driver.send(*map(json.dumps, guesses))
        driver.wait_for(rows=101)
        # As the schedule does each day.
        stack.migrate(driver.system.emulator, driver.system.stack)

    yield trigger
    driver.execute("DELETE FROM user_logins")


@contextmanager
def _failing_migrate(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    driver = cloudwatch.driver

    def trigger() -> None:
        with pytest.raises(RuntimeError, match="login_writer"):
            stack.migrate(driver.system.emulator, driver.system.stack)

    driver.execute("ALTER ROLE login_writer CREATEDB")
    try:
        yield trigger
    finally:
        driver.execute("ALTER ROLE login_writer NOCREATEDB")


def _published(name: str, dimensions: dict[str, str], value: float) -> Cause:
    """Return a cause that publishes a value of what the tests' stack does not have."""

    @contextmanager
    def cause(cloudwatch: CloudWatch) -> Iterator[Trigger]:
        def trigger() -> None:
            _send(cloudwatch.driver, login())
            cloudwatch.publish(name, dimensions, value)

        yield trigger

    return cause


@contextmanager
def _slow_roll_ups(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    migrate = {"function": cloudwatch.driver.system.stack.migrate_function}
    yield lambda: cloudwatch.publish("roll-ups-behind", migrate, 1)


@contextmanager
def _stopped_export(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    def trigger() -> None:
        _send(cloudwatch.driver, login())
        # Until LocalStack does not see the last run any more.
        cloudwatch.advance_time(PERIODS_SEEN * A_DAY)

    cloudwatch.exports = False
    yield trigger
    cloudwatch.exports = True


@contextmanager
def _no_concurrency(cloudwatch: CloudWatch) -> Iterator[Trigger]:
    driver = cloudwatch.driver
    functions = driver.system.emulator.client("lambda")
    function = {"FunctionName": driver.system.stack.function}

    def trigger() -> None:
        # LocalStack logs messages that it cannot deliver, so these contain no raw value.
        _send(driver, login(ip=None, device_id=None))
        with pytest.raises(ClientError, match="TooManyRequestsException"):
            driver.invoke(record(login()))
        cloudwatch.publish("throttles", function, 1)

    functions.put_function_concurrency(**function, ReservedConcurrentExecutions=0)
    try:
        yield trigger
    finally:
        functions.delete_function_concurrency(**function)


CAUSES: dict[str, Cause] = {
    "dead-letters": _logins_during(
        incidents.statements(
            "ALTER TABLE user_logins ADD CONSTRAINT temporary CHECK (locale <> 'RU') NOT VALID",
            "ALTER TABLE user_logins DROP CONSTRAINT temporary",
        )
    ),
    "oldest-message": _disabled_mapping,
    "in-flight": _many_in_flight,
    "function-errors": _logins_during(incidents.wrong_setting),
    "throttles": _no_concurrency,
    "failed-messages": _sender_with_wrong_key,
    "database-errors": _logins_during(incidents.no_server),
    "near-timeout": _logins_during(incidents.locked("0")),
    "salt-changed": _logins_during(incidents.wrong_salt),
    "token-guesses": _guessing_sender,
    "migrate-errors": _failing_migrate,
    "roll-ups-behind": _slow_roll_ups,
    "api-errors": _published("api-errors", {"FunctionName": API}, 1),
    "api-unavailable": _published("api-unavailable", {"function": API}, 1),
    "api-throttles": _published("api-throttles", {"FunctionName": API}, 1),
    "api-slow": _published("api-slow", {"FunctionName": API}, 5001),
    "export-errors": _published("export-errors", {"FunctionName": EXPORT}, 1),
    "export-missing": _stopped_export,
    "vault-reveals": _published("vault-reveals", {"function": VAULT}, 21),
    "vault-failed-reveals": _published("vault-failed-reveals", {"function": VAULT}, 4),
    "vault-unopenable": _published("vault-unopenable", {"function": VAULT}, 1),
    "vault-unavailable": _published("vault-unavailable", {"function": VAULT}, 1),
    "vault-errors": _published("vault-errors", {"FunctionName": VAULT}, 1),
    "vault-honey": _published("vault-honey", {"function": VAULT}, 1),
    "vault-erasures": _published("vault-erasures", {"function": VAULT}, 21),
    "database-cpu": _published("database-cpu", {"DBInstanceIdentifier": INSTANCE}, 81),
    "database-capacity": _published("database-capacity", {"DBInstanceIdentifier": INSTANCE}, 96),
    "database-connections": _published(
        "database-connections", {"DBInstanceIdentifier": INSTANCE}, 151
    ),
}

# A line that the row's query must find.
FOUND: dict[str, dict[str, Any]] = {
    "dead-letters": {"reason": "RowRefused", "sqlstate": "23514"},
    "function-errors": {"message": "startup failed", "error": "DATABASE_PORT is not a port number"},
    "failed-messages": {"reason": "MisspeltKey", "field": "user_id"},
    "database-errors": {"error_type": "DatabaseUnreachable"},
    "near-timeout": {"message": "batch failed", "used_percent": 100},
    "salt-changed": {"error_type": "SaltChanged"},
}
# The graph and the line of the dashboard, for rows that name the dashboard.
GRAPHS = {
    "oldest-message": ("In: messages in the queue", "waiting"),
    "throttles": ("Lambda: invocations", "Throttles"),
    "in-flight": ("In: messages in the queue", "in flight"),
    "roll-ups-behind": ("Analysts: days not rolled up yet", "days"),
    "api-errors": ("Analysts: requests to the API", "Errors"),
    "api-unavailable": ("Analysts: requests to the API", "answered with 500 or more"),
    "api-throttles": ("Analysts: requests to the API", "Throttles"),
    "api-slow": ("Analysts: requests to the API", "longest, ms"),
    "export-errors": ("Export: runs", "Errors"),
    "vault-reveals": ("Vault: reveals and erasures", "revealed"),
    "vault-failed-reveals": ("Vault: reveals and erasures", "reveals failed"),
    "vault-unopenable": ("Vault: reveals and erasures", "did not open"),
    "vault-unavailable": ("Vault: requests", "answered with 500 or more"),
    "vault-errors": ("Vault: requests", "Errors"),
    "vault-honey": ("Vault: reveals and erasures", "honey tokens asked for"),
    "vault-erasures": ("Vault: reveals and erasures", "erased"),
    "database-cpu": ("Database: load", "processors of the maximum, %"),
    "database-capacity": ("Database: load", "capacity of the maximum, %"),
    "database-connections": ("Database: load", "connections"),
}
# The SQL query of a document, for rows that link to it, and its first value.
SQL = {"token-guesses": (("Who must not hold what", "privacy.md"), GUESSER)}
# The rows that say: run `migrate`, which then fails with the reason.
BY_HAND = {"migrate-errors"}
# The rows whose graph shows nothing.
EMPTY = {"export-missing"}
# In these cases no login waits to be written.
WITHOUT_ROWS = {"failed-messages", "token-guesses", "migrate-errors", "roll-ups-behind"}
# Other alarms with the same cause. In a slow run, `dead-letters` is raised as well.
ALSO_RAISED = {
    "database-errors": {"function-errors"},
    "near-timeout": {"function-errors", "database-errors"},
}


def test_every_alarm_has_a_cause() -> None:
    assert set(CAUSES) == set(ALARMS)
    assert set(FOUND) | set(GRAPHS) | set(SQL) | BY_HAND | EMPTY == set(ALARMS)
    kinds = ["CreatesDatabase"] * 3 + ["HasAnalysts"] * 5 + ["HasExport"] * 2 + ["HasVault"] * 7
    assert sorted(OPTIONAL.values()) == kinds


def test_healthy_run_raises_no_alarm(driver: Driver, cloudwatch: CloudWatch) -> None:
    bodies = (EVENTS / "login-queue.jsonl").read_text().splitlines()
    logins = [body for body in bodies if "user_id" in json.loads(body)]

    driver.send(*logins)
    driver.wait_for(rows=99)
    wait_until(
        lambda: cloudwatch.highest_point("Through: messages", "written") == 99, cloudwatch.states
    )

    assert set(cloudwatch.states().values()) == {"OK"}


@pytest.mark.parametrize("name", CAUSES)
def test_cause_raises_its_alarm_and_repair_clears_it(
    driver: Driver, cloudwatch: CloudWatch, name: str
) -> None:
    alarm = cloudwatch.alarms()[name]
    bad_periods = alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
    before = cloudwatch.raised()

    with CAUSES[name](cloudwatch) as trigger:
        for number in range(bad_periods):
            trigger()
            wait_until(lambda: cloudwatch.is_breached(name), cloudwatch.states)
            cloudwatch.advance_time(timedelta(seconds=alarm["Period"]))
            # One failure raises no alarm before its redelivery.
            if number == 0 and bad_periods > 2:
                assert name not in cloudwatch.raised()
        raised = cloudwatch.raised()
        found = _run_queries(cloudwatch, documented.rows("alarm")[name])
        value = cloudwatch.highest_point(*GRAPHS[name]) if name in GRAPHS else 0
        answers = driver.query(documented.sql(*SQL[name][0])) if name in SQL else []

    assert before == set()
    assert name in raised
    assert raised - {name, "dead-letters"} == ALSO_RAISED.get(name, set())
    if name in FOUND:
        assert any(FOUND[name].items() <= line.items() for line in found), found
    elif name in SQL:
        assert [answer[0] for answer in answers] == [SQL[name][1]]
    elif name in BY_HAND:
        assert "(#run-migrate)" in documented.rows("alarm")[name]
    elif name in EMPTY:
        assert cloudwatch.highest_point("Export: runs", "Invocations") == 0
    else:
        assert value > 0
    _redrive(driver)
    driver.wait_for(rows=0 if name in WITHOUT_ROWS else bad_periods)
    cloudwatch.advance_time(max(A_DAY, PERIODS_SEEN * timedelta(seconds=alarm["Period"])))
    _healthy_day(cloudwatch)
    assert set(cloudwatch.states().values()) == {"OK"}


def _run_queries(cloudwatch: CloudWatch, row: str) -> list[dict[str, Any]]:
    """Run the queries that a row of the runbook names."""
    lines = list(cloudwatch.driver.log_lines())
    named = documented.queries(row)
    return [line for query in named for line in insights.run(insights.SAVED[query], lines)]


def _send(driver: Driver, body: dict[str, Any]) -> None:
    driver.send(json.dumps(body))


def _healthy_day(cloudwatch: CloudWatch) -> None:
    """Publish what AWS publishes on a day without trouble: an empty queue, a run of migrate."""
    system = cloudwatch.driver.system
    cloudwatch.publish("oldest-message", {"QueueName": queue_name(system.stack.queue_url)}, 0)
    stack.migrate(system.emulator, system.stack)
    cloudwatch.publish("migrate-errors", {"FunctionName": system.stack.migrate_function}, 0)
    cloudwatch.publish("export-errors", {"FunctionName": EXPORT}, 0)


def _settle(driver: Driver) -> None:
    """Wait until every message is written or in the dead-letter queue."""
    emulator, queue_url = driver.system.emulator, driver.system.stack.queue_url
    wait_until(
        lambda: stack.count(emulator, queue_url) == 0, lambda: stack.count(emulator, queue_url)
    )


def _redrive(driver: Driver) -> None:
    """Do what `make redrive` does, if there are dead letters."""
    _settle(driver)
    emulator, deployed = driver.system.emulator, driver.system.stack
    if stack.count(emulator, deployed.dead_letter_queue_url):
        done = program.run(
            emulator, "--stack", deployed.name, "--yes", "redrive", "--patience", "3"
        )
        assert done.status == 0, done
