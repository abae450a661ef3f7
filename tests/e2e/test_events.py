"""The sample events, sent by direct invocation."""

import json
from pathlib import Path

import pytest

from dev import EVENTS
from dev.logins import failed
from e2e.driver import Driver

# For each file: the positions of the failing messages, and the number of rows of the others.
EXPECTED = {
    "good.json": ([], 10),
    # One good message occurs twice.
    "mixed.json": ([1, 2, 4, 5, 6, 7, 9, 11], 3),
    "nested.json": ([7], 8),
    "envelopes.json": ([10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20], 10),
    # A bad message holds back the later messages of its group.
    "fifo.json": ([3, 5, 8], 7),
}


def test_every_sample_event_is_tested() -> None:
    assert {file.name for file in EVENTS.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_repeated_sample_event_gives_same_answer_and_rows(driver: Driver, name: str) -> None:
    file = EVENTS / name
    failures, rows = EXPECTED[name]
    records = json.loads(file.read_text())["Records"]
    expected = failed(*(records[place] for place in failures))

    first = driver.invoke_file(file), len(driver.rows())
    second = driver.invoke_file(file), len(driver.rows())

    assert first == (expected, rows)
    assert second == (expected, rows)


def test_failed_fifo_message_holds_back_its_group(driver: Driver) -> None:
    records = _records(EVENTS / "fifo.json")
    failures, _ = EXPECTED["fifo.json"]

    driver.invoke_file(EVENTS / "fifo.json")

    written = {json.loads(record["body"])["user_id"] for record in _without(records, failures)}
    assert set(driver.users()) == written
    assert [driver.reason(records[place]["messageId"]) for place in failures] == [
        "MissingField",
        "HeldBack",
        "HeldBack",
    ]


def test_refused_envelope_is_named_in_the_log(driver: Driver) -> None:
    file = EVENTS / "envelopes.json"
    failures, _ = EXPECTED["envelopes.json"]

    driver.invoke_file(file)

    assert [driver.reason(_records(file)[place]["messageId"]) for place in failures] == [
        "UnsupportedEnvelope",
        "MissingBody",
        "UnsupportedEnvelope",
        "UnsupportedEnvelope",
        "RecordList",
        "RecordList",
        "BodyInS3",
        "S3TestEvent",
        "SnsConfirmation",
        "AmbiguousEnvelope",
        "MisspeltKey",
    ]


def _records(file: Path) -> list[dict]:
    return json.loads(file.read_text())["Records"]


def _without(records: list[dict], positions: list[int]) -> list[dict]:
    return [record for position, record in enumerate(records) if position not in positions]
