"""`login-etl status` and `login-etl accept-salt`, compared with docs/operations.md."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dev import ROOT
from dev.logins import failed, login, record
from e2e import program
from e2e.driver import Driver, wait_until
from e2e.program import Run

DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
OTHER_SALT = "another salt, which is long enough"
# What differs from run to run, and what stands for it.
VARYING = {
    r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ": "<time>",
    r"none of \d+ is on": "none of <number> is on",
    r"\b(CREATE|UPDATE)_COMPLETE": "<status>",
    r"the oldest for \d+ s": "the oldest for <number> s",
}
FINGERPRINT = re.compile(r"\b[0-9a-f]{16}\b")


@pytest.fixture(autouse=True)
def _healthy(driver: Driver) -> None:
    """Write a row, and end what other tests left: alarms, and wrong states of mappings.

    MiniStack starts the redrive mapping, and LocalStack calls the other one Disabled.
    """
    for mapping in _mappings(driver):
        _enable(driver, mapping["UUID"], enabled=mapping["EventSourceArn"].endswith("-logins"))
    alarms = driver.system.emulator.client("cloudwatch").describe_alarms()["MetricAlarms"]
    for alarm in alarms:
        _set_alarm(driver, alarm["AlarmName"], "OK")
    assert driver.invoke(record(login())) == failed()


def test_healthy_stack_is_well(driver: Driver) -> None:
    shown, in_json = _status(driver), _status(driver, "--json")

    assert _normalised(driver, shown.output) == _documented("A healthy stack")
    assert (shown.status, in_json.status, in_json.result["state"]) == (0, 0, "well")
    assert in_json.result["stack"] == driver.system.stack.name
    assert in_json.result["queue"].items() >= {"waiting": 0, "in_flight": 0}.items()


def test_dead_letters_are_not_well(driver: Driver) -> None:
    url = driver.system.stack.dead_letter_queue_url
    for _ in range(2):
        driver.system.emulator.client("sqs").send_message(QueueUrl=url, MessageBody="no login")
    _set_alarm(driver, f"{driver.system.stack.name}-dead-letters", "ALARM")

    shown, in_json = _status(driver), _status(driver, "--json")

    assert _normalised(driver, shown.output) == _documented("Two dead letters")
    assert (shown.status, in_json.status, in_json.result["state"]) == (1, 1, "not_well")
    assert in_json.result["dead_letters"]["messages"] == 2


def test_other_salt_is_not_well_until_accepted(driver: Driver) -> None:
    with _other_salt(driver):
        _set_alarm(driver, f"{driver.system.stack.name}-salt-changed", "ALARM")
        shown = _status(driver)
        refused = _accept_salt(driver)
        accepted = _accept_salt(driver, "--yes")
        again = _accept_salt(driver, "--yes", "--json")
        _ends_itself(driver)
        _set_alarm(driver, f"{driver.system.stack.name}-salt-changed", "OK")
        well = _status(driver)

    assert _normalised(driver, shown.output) == _documented("Somebody changed the salt")
    assert (shown.status, well.status) == (1, 0), well
    assert (refused.status, refused.output) == (2, "")
    assert "There is no terminal to ask on, so nothing was done" in refused.progress
    assert accepted.status == 0, accepted
    assert (again.status, again.result["changed"]) == (0, False)


def test_restored_salt_needs_no_restart(driver: Driver) -> None:
    salt = driver.salt
    _put_salt(driver, OTHER_SALT)
    driver.configure()
    wrong = driver.invoke(record(login(user_id="waits")))
    _put_salt(driver, salt)

    restored = driver.invoke(record(login(user_id="waits")))

    assert wrong == {"errorType": "SaltChanged"}
    assert restored == failed()
    assert "waits" in driver.users()


def test_unreadable_part_does_not_hide_others(driver: Driver) -> None:
    driver.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    try:
        shown = _status(driver)
    finally:
        driver.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")

    lines = dict(
        re.findall(r"^  (\w+(?: \w+)?) +(well|NOT WELL|UNKNOWN) ", shown.output, re.MULTILINE)
    )
    assert [name for name, state in lines.items() if state == "UNKNOWN"] == ["schema", "salt"]
    assert [name for name, state in lines.items() if state == "NOT WELL"] == []
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in shown.output
    assert (len(lines), shown.status) == (8, 1)


def test_status_names_the_redrive_mapping_that_is_on(driver: Driver) -> None:
    redrive = driver.system.stack.redrive_mapping
    _enable(driver, redrive, enabled=True)
    try:
        shown = _status(driver)
    finally:
        _enable(driver, redrive, enabled=False)

    assert "the redrive mapping is on" in shown.output
    assert shown.status == 1


def test_throttled_function_is_not_well(driver: Driver) -> None:
    functions, name = driver.system.emulator.client("lambda"), driver.system.stack.function
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        shown = _status(driver)
    finally:
        functions.delete_function_concurrency(FunctionName=name)

    assert "ingest: reserved concurrency 0, somebody clicked Throttle" in shown.output
    assert shown.status == 1


def test_missing_alarm_is_not_well(driver: Driver) -> None:
    alarms = driver.system.emulator.client("cloudwatch")
    name = f"{driver.system.stack.name}-throttles"
    [alarm] = alarms.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    alarms.delete_alarms(AlarmNames=[name])
    try:
        shown = _status(driver)
    finally:
        parameters = alarms.meta.service_model.operation_model("PutMetricAlarm").input_shape.members
        alarms.put_metric_alarm(**{key: value for key, value in alarm.items() if key in parameters})

    assert re.search(r"alarms +UNKNOWN +1 of the stack's \d+ alarms are gone", shown.output)
    assert shown.status == 1


def test_runbook_sections_of_status_exist() -> None:
    sources = (ROOT / "crates" / "cli" / "src" / "status").glob("*.rs")
    named = {
        name for source in sources for name in re.findall(r'"(docs/[^"]+)"', source.read_text())
    }

    for name in named:
        document, _, anchor = name.partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / document).read_text(), re.MULTILINE)
        anchors = [
            re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
        ]
        assert anchor in anchors
    assert len(named) > 5


def _status(driver: Driver, *options: str) -> Run:
    name = driver.system.stack.name
    return program.run(driver.system.emulator, "--stack", name, *options, "status")


def _accept_salt(driver: Driver, *options: str) -> Run:
    name = driver.system.stack.name
    return program.run(driver.system.emulator, "--stack", name, *options, "accept-salt")


def _mappings(driver: Driver) -> list[dict[str, Any]]:
    functions = driver.system.emulator.client("lambda")
    answer = functions.list_event_source_mappings(FunctionName=driver.system.stack.function)
    return answer["EventSourceMappings"]


def _enable(driver: Driver, mapping: str, *, enabled: bool) -> None:
    functions = driver.system.emulator.client("lambda")
    functions.update_event_source_mapping(UUID=mapping, Enabled=enabled)

    def state() -> str:
        return functions.get_event_source_mapping(UUID=mapping)["State"]

    wait_until(lambda: state() == ("Enabled" if enabled else "Disabled"), state)


def _ends_itself(driver: Driver) -> None:
    """Let the process that masks with the old salt fail a batch; the next process writes it."""
    assert driver.invoke(record(login())) == {"errorType": "SaltChanged"}
    assert driver.invoke(record(login())) == failed()


@contextmanager
def _other_salt(driver: Driver) -> Iterator[None]:
    """Replace the salt, and restore and accept it at the end."""
    salt = driver.salt
    _put_salt(driver, OTHER_SALT)
    try:
        yield
    finally:
        _put_salt(driver, salt)
        assert _accept_salt(driver, "--yes").status == 0
        driver.configure()


def _put_salt(driver: Driver, salt: str) -> None:
    secrets = driver.system.emulator.client("secretsmanager")
    secrets.put_secret_value(SecretId=driver.system.stack.salt_id, SecretString=salt)


def _set_alarm(driver: Driver, name: str, state: str) -> None:
    cloudwatch = driver.system.emulator.client("cloudwatch")
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="set by a test")


def _documented(lead: str) -> str:
    """Return the output in the document after the sentence that begins with this text."""
    [text] = re.findall(rf"{lead}.*?^```text\n(.+?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return _without_varying(text.strip())


def _normalised(driver: Driver, output: str) -> str:
    """Return an output with the names of the example."""
    region = driver.system.emulator.environment["AWS_REGION"]
    output = output.strip().replace(driver.system.stack.name, "login-etl-prod")
    return _without_varying(output.replace(f" in {region}:", " in eu-central-1:"))


def _without_varying(text: str) -> str:
    for pattern, replacement in VARYING.items():
        text = re.sub(pattern, replacement, text)
    return FINGERPRINT.sub(_numbering(), text)


def _numbering() -> Callable[[re.Match[str]], str]:
    """Return a function that numbers the fingerprints in the order in which they first occur."""
    numbers: dict[str, int] = {}
    return lambda found: f"<fingerprint {numbers.setdefault(found[0], len(numbers) + 1)}>"
