"""Each alarm of the template goes off for its cause, which is found and mended as the runbook says.

The causes are real ones, and the messages come through the queue, the mapping and the function.
The alarms are those that the stack has made, with their own periods; how LocalStack is made to look
at them, and minutes to pass, is told in `cloudwatch.py`. The function's metrics are taken from its
log; failed invocations and dead letters LocalStack itself counts. Two of AWS's metrics it does not
have, and the tests put what they measure: how old the oldest message is, and that an invocation was
refused.

Not seen here: that a period of CloudWatch begins with a whole minute, where LocalStack's ends when
it looks; and that CloudWatch heeds the last periods only, where LocalStack goes a few further back.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deploy import operate
from dev import EVENTS, stack
from dev.emulator import Feature
from dev.local_system import FAST_PARAMETERS
from dev.logins import login, record
from e2e import documented, emf, incidents, insights
from e2e.cloudwatch import ALARMS, CloudWatch, queue_name
from e2e.driver import Driver, wait_until
from e2e.mappings import disabled

pytestmark = [
    pytest.mark.needs(Feature.ALARMS),
    pytest.mark.own_localstack("changes times in the file of LocalStack's CloudWatch"),
]

A_DAY = timedelta(days=1)

# Makes it happen once more, while the cause lasts.
Happens = Callable[[], None]
Cause = Callable[[CloudWatch], AbstractContextManager[Happens]]


@pytest.fixture
def cloudwatch(driver: Driver) -> CloudWatch:
    """Return CloudWatch, a day after whatever other tests did."""
    cloudwatch = CloudWatch(driver)
    cloudwatch.let_pass(A_DAY)
    return cloudwatch


def _while(incident: incidents.Incident) -> Cause:
    """Return the cause that logins are sent during an incident."""

    @contextmanager
    def cause(cloudwatch: CloudWatch) -> Iterator[Happens]:
        with incident(cloudwatch.driver):
            yield lambda: _send(cloudwatch.driver, login())

    return cause


@contextmanager
def _sender_who_misspells(cloudwatch: CloudWatch) -> Iterator[Happens]:
    driver = cloudwatch.driver
    yield lambda: _send(driver, login(user_id=..., userId="somebody"))
    # These are no logins, and never will be.
    _settle(driver)
    sqs = driver.system.emulator.client("sqs")
    sqs.purge_queue(QueueUrl=driver.system.stack.dead_letter_queue_url)


@contextmanager
def _mapping_that_is_disabled(cloudwatch: CloudWatch) -> Iterator[Happens]:
    driver = cloudwatch.driver
    queue_url = driver.system.stack.queue_url
    sent = []

    def happens() -> None:
        sent.append(datetime.now(UTC))
        _send(driver, login())
        patient_until = sent[0] + timedelta(seconds=FAST_PARAMETERS["AlarmAgeSeconds"] + 0.5)
        sleep(max(0, (patient_until - datetime.now(UTC)).total_seconds()))
        age = datetime.now(UTC) - sent[0]
        queue = {"QueueName": queue_name(queue_url)}
        _put(cloudwatch, "oldest-message", queue, age.total_seconds())

    with disabled(driver, queue_url):
        yield happens


@contextmanager
def _no_concurrency(cloudwatch: CloudWatch) -> Iterator[Happens]:
    driver = cloudwatch.driver
    functions = driver.system.emulator.client("lambda")
    function = {"FunctionName": driver.system.stack.function}

    def happens() -> None:
        # LocalStack logs the messages that it could not hand over, so there is nothing in these.
        _send(driver, login(ip=None, device_id=None))
        with pytest.raises(ClientError, match="TooManyRequestsException"):
            driver.invoke(record(login()))
        _put(cloudwatch, "throttles", function, 1)

    functions.put_function_concurrency(**function, ReservedConcurrentExecutions=0)
    try:
        yield happens
    finally:
        functions.delete_function_concurrency(**function)


CAUSES: dict[str, Cause] = {
    "dead-letters": _while(
        incidents.changed(
            "ALTER TABLE user_logins ADD CONSTRAINT for_a_while CHECK (locale <> 'RU') NOT VALID",
            "ALTER TABLE user_logins DROP CONSTRAINT for_a_while",
        )
    ),
    "oldest-message": _mapping_that_is_disabled,
    "function-errors": _while(incidents.wrong_setting),
    "throttles": _no_concurrency,
    "failed-messages": _sender_who_misspells,
    "database-errors": _while(incidents.no_server),
    "near-timeout": _while(incidents.locked("0")),
    "salt-changed": _while(incidents.another_salt),
}

# What a row's query finds, among the rest.
FOUND: dict[str, dict[str, Any]] = {
    "dead-letters": {"reason": "RowRefused", "sqlstate": "23514"},
    "function-errors": {"message": "startup failed", "error": "DATABASE_PORT is not a port number"},
    "failed-messages": {"reason": "MissingField", "field": "user_id"},
    "database-errors": {"error_type": "DatabaseUnreachable"},
    "near-timeout": {"message": "batch failed", "used_percent": 100},
    "salt-changed": {"error_type": "SaltChanged"},
}
# The graph and the line of the dashboard, where a row sends somebody there.
DRAWN = {
    "oldest-message": ("In: messages in the queue", "waiting"),
    "throttles": ("Lambda: invocations", "Throttles"),
}
# What goes off too. Dead letters may, in any of these: it depends on how long the test takes.
BESIDE = {
    "database-errors": {"function-errors"},
    "near-timeout": {"function-errors", "database-errors"},
}


def test_every_alarm_has_a_cause() -> None:
    assert set(CAUSES) == set(ALARMS)
    assert set(FOUND) | set(DRAWN) == set(ALARMS)


def test_healthy_run_raises_no_alarm(driver: Driver, cloudwatch: CloudWatch) -> None:
    bodies = (EVENTS / "login-queue.jsonl").read_text().splitlines()
    logins = [body for body in bodies if "user_id" in json.loads(body)]

    driver.send(*logins)
    driver.wait_for(rows=99)
    wait_until(lambda: cloudwatch.drawn("Through: messages", "written") == 99, cloudwatch.states)

    assert set(cloudwatch.states().values()) == {"OK"}


@pytest.mark.parametrize("name", CAUSES)
def test_cause_raises_its_alarm_and_repair_clears_it(
    driver: Driver, cloudwatch: CloudWatch, name: str
) -> None:
    alarm = cloudwatch.alarms()[name]
    bad_periods = alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
    before = cloudwatch.raised()

    with CAUSES[name](cloudwatch) as happens:
        for number in range(bad_periods):
            happens()
            wait_until(lambda: cloudwatch.passes(name), cloudwatch.states)
            cloudwatch.let_pass(timedelta(seconds=alarm["Period"]))
            # Before it is delivered once more, what happened once is no reason to wake anybody.
            if number == 0 and bad_periods > 2:
                assert name not in cloudwatch.raised()
        raised = cloudwatch.raised()
        found = _look(cloudwatch, documented.rows("alarm")[name])
        drawn = cloudwatch.drawn(*DRAWN[name]) if name in DRAWN else 0

    assert before == set()
    assert name in raised
    assert raised - {name, "dead-letters"} == BESIDE.get(name, set())
    if name in FOUND:
        assert any(FOUND[name].items() <= line.items() for line in found), found
    else:
        assert drawn > 0
    _redrive(driver)
    driver.wait_for(rows=0 if name == "failed-messages" else bad_periods)
    cloudwatch.let_pass(A_DAY)
    assert set(cloudwatch.states().values()) == {"OK"}


def _look(cloudwatch: CloudWatch, row: str) -> list[dict[str, Any]]:
    """Run the queries that a row of the runbook names."""
    lines = list(cloudwatch.driver.logged())
    named = documented.queries(row)
    return [line for query in named for line in insights.run(insights.SAVED[query], lines)]


def _send(driver: Driver, body: dict[str, Any]) -> None:
    driver.send(json.dumps(body))


def _put(cloudwatch: CloudWatch, alarm: str, dimensions: dict[str, str], value: float) -> None:
    """Put what was measured as the metric that an alarm is on."""
    of = ALARMS[alarm]
    unit = "Seconds" if alarm == "oldest-message" else "Count"
    now = datetime.now(UTC)
    metric = emf.Metric(of["Namespace"], of["MetricName"], dimensions, unit, [value], now)
    cloudwatch.put(metric)


def _settle(driver: Driver) -> None:
    """Wait until every message is written or dead."""
    emulator, queue_url = driver.system.emulator, driver.system.stack.queue_url
    wait_until(
        lambda: stack.count(emulator, queue_url) == 0, lambda: stack.count(emulator, queue_url)
    )


def _redrive(driver: Driver) -> None:
    """Do what `make redrive` does, if it took so long that messages are dead."""
    _settle(driver)
    emulator, deployed = driver.system.emulator, driver.system.stack
    if stack.count(emulator, deployed.dead_letter_queue_url):
        assert operate.redrive(emulator.client, deployed.name, patience_s=3) == 0
