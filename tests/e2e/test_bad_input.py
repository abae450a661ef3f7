"""Bad messages, each between two good messages, which must be written."""

import json

import pytest

from dev.logins import failed, login, record
from e2e.driver import Driver

MEBIBYTE = 1 << 20
IP = "203.0.113.77"

BAD = {
    "not JSON": (record(f"ip={IP}"), "NotJson"),
    "JSON that ends too early": (record(json.dumps(login())[:-1]), "NotJson"),
    "nothing": (record(""), "NotJson"),
    "no body": (record("", body=...), "MissingBody"),
    "a body that is null": (record("", body=None), "MissingBody"),
    "an array": (record([login()]), "NotAnObject"),
    "a message of another type": (record({"foo": "oops_wrong_msg_type"}), "MissingField"),
    "a user id of a wrong type": (record(login(user_id=7)), "WrongType"),
    "an address of a wrong type": (record(login(ip=[IP])), "WrongType"),
    "a number beyond i64": (record(login(app_version=1 << 64)), "WrongType"),
    "a number beyond floats": (record('{"user_id": 1e999}'), "NotJson"),
    "an empty user id": (record(login(user_id="")), "EmptyText"),
    "a user id that is too long": (record(login(user_id="ü" * 129)), "TooLong"),
    "a user id of a mebibyte": (record(login(user_id="x" * MEBIBYTE)), "TooLong"),
    "a version of four numbers": (record(login(app_version="1.2.3.4")), "BadVersion"),
    "U+0000": (record(login(locale="R\0U")), "NulCharacter"),
    "U+0000 in an address": (record(login(ip=f"{IP}\0")), "NulCharacter"),
    "half a surrogate pair": (record(r'{"user_id": "\ud800"}'), "NotJson"),
    "an address nested 10,000 deep": (
        record('{"user_id": "deep", "ip": ' + "[" * 10_000 + "]" * 10_000 + "}"),
        "WrongType",
    ),
    "the same key twice": (
        record(f'{{"user_id": "twice", "ip": "{IP}", "ip": "203.0.113.78"}}'),
        "Ambiguous",
    ),
    "two spellings of one column": (record(login(device={"id": "593-47-5928"})), "Ambiguous"),
    "an unknown envelope": (record({"kind": "login", "payload": login()}), "MissingField"),
    "an envelope without a message": (record({"Type": "Notification"}), "MissingField"),
    "a time that is not a number": (
        record(login(), attributes={"SentTimestamp": "yesterday"}),
        "BadSentTimestamp",
    ),
}

ODD = {
    "an unknown key with a number beyond i64": login(score=1 << 64),
    "an unknown key of a mebibyte": login(note="x" * MEBIBYTE),
    "no address and no device id": login(ip=None, device_id=" "),
    "only a user id": {"user_id": "minimal"},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_message_fails_on_its_own(driver: Driver, name: str) -> None:
    bad, reason = BAD[name]
    before, after = login(), login()

    answer = driver.invoke(record(before), bad, record(after))

    assert answer == failed(bad)
    assert driver.users() == sorted([before["user_id"], after["user_id"]])
    assert driver.reason(bad["messageId"]) == reason


@pytest.mark.parametrize("name", ODD)
def test_odd_but_valid_message_is_stored(driver: Driver, name: str) -> None:
    answer = driver.invoke(record(ODD[name]))

    assert answer == failed()
    assert driver.users() == [ODD[name]["user_id"]]


def test_unknown_key_nested_10_000_deep_is_skipped(driver: Driver) -> None:
    deep = '{"user_id": "deep", "extra": ' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}"

    answer = driver.invoke(record(deep))

    assert answer == failed()
    assert driver.users() == ["deep"]


@pytest.mark.parametrize("missing", [..., None, ""])
def test_missing_message_id_fails_the_batch(driver: Driver, missing: object) -> None:
    answer = driver.invoke(record(login()), record(login(), messageId=missing), record(login()))

    assert answer == {"errorType": "MissingMessageId"}
    assert driver.rows() == []


@pytest.mark.parametrize("event", [{}, {"Records": None}, {"Records": "none"}, {"Records": [1]}])
def test_malformed_event_fails_the_batch(driver: Driver, event: dict) -> None:
    answer = driver.invoke_event(event)

    assert answer == {"errorType": "MalformedEvent"}
    assert driver.rows() == []
