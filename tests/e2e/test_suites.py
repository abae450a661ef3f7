"""The cases of other projects' test suites as bodies; tests/suites/README.md describes them."""

import hashlib
import hmac
import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, NamedTuple

from dev import ROOT, logs
from dev.logins import canonical, failed, login, record
from e2e.driver import Driver, wait_until

SUITES = ROOT / "tests" / "suites"
WRITTEN = "written"
# Shorter strings occur in the log by chance.
UNIQUE_LENGTH = 16


class Case(NamedTuple):
    """A message: its body, and its row or the reason for which it fails."""

    body: str
    # user_id, device_type, masked_ip, masked_device_id, locale, app_version
    row: tuple[Any, ...] | None
    reason: str | None = None


def test_json_suite_has_the_suites_verdicts(driver: Driver) -> None:
    cases = list(_json_cases())

    _check(driver, cases)

    assert len(cases) == 2 * 293


def test_naughty_strings_are_written_or_fail_alone(driver: Driver) -> None:
    cases = list(_string_cases(driver.salt))

    _check(driver, cases)

    assert len(cases) == 4 * 515
    lines = "\n".join(driver.log_lines())
    strings = [b64decode(row[1]).decode() for row in _rows("strings")]
    unique = [string for string in strings if len(string) >= UNIQUE_LENGTH]
    assert [string for string in unique if string in lines] == []


def test_spellings_of_addresses_have_standard_tokens(driver: Driver) -> None:
    rows = list(_rows("addresses"))
    cases = list(_address_cases(driver.salt))

    _check(driver, cases)

    assert len(cases) == 145
    # Python's parser of addresses agrees with the table.
    assert [text for _, text, standard, *_ in rows if canonical(text) != (standard or "")] == []
    # Each difference from the suite's own verdict has an explanation.
    for _, text, standard, verdict, explanation in rows:
        expected = text if verdict == "error" else verdict
        assert bool(explanation) == (verdict is not None and expected != (standard or "")), text


def _check(driver: Driver, cases: list[Case]) -> None:
    """Send all cases and a good login in one batch; compare answer, rows and reasons."""
    records = [record(case.body) for case in cases]
    good = login()
    system = driver.system

    # Not `driver.invoke`: the search for sent values would find strings such as `1` in every log.
    payload = json.dumps({"Records": [*records, record(good)]})
    answer = system.emulator.client("lambda").invoke(
        FunctionName=system.stack.function, Payload=payload
    )

    bad = [sent for sent, case in zip(records, cases, strict=True) if case.reason]
    assert json.load(answer["Payload"]) == failed(*bad)
    rows = [row[:-1] for row in driver.rows() if row[0] != good["user_id"]]
    assert sorted(map(repr, rows)) == sorted(repr(case.row) for case in cases if case.row)
    assert good["user_id"] in driver.users()
    expected = {
        sent["messageId"]: case.reason
        for sent, case in zip(records, cases, strict=True)
        if case.reason
    }

    def logged() -> dict[str, str]:
        reasons = logs.reasons(system.emulator, system.stack)
        return {message_id: reasons[message_id] for message_id in expected if message_id in reasons}

    wait_until(lambda: len(logged()) == len(expected), lambda: len(logged()))
    assert logged() == expected


def _json_cases() -> Iterator[Case]:
    """Make two cases of each JSON text: a whole body, and the value of an unknown key."""
    for name, given, as_body, as_value in _rows("json"):
        if given is None:
            continue
        unit, times, end = given if isinstance(given, list) else (given, 1, "")
        text = unit * times + end
        yield Case(text, None, as_body)
        row = (name, None, None, None, None, None)
        wrapped = f'{{"user_id": {json.dumps(name)}, "unknown": {text}}}'
        yield Case(wrapped, row) if as_value == WRITTEN else Case(wrapped, None, as_value)


def _string_cases(salt: str) -> Iterator[Case]:
    """Make four cases of each string: a user, two short texts, two masked values, and a version."""
    for number, encoded, user, short, address, device, version in _rows("strings"):
        string = b64decode(encoded).decode()
        name = f"string {number}"

        masked_address, masked_device = (
            _token(salt, field, string if value == "=" else value and b64decode(value).decode())
            for field, value in (("ip", address), ("device_id", device))
        )
        yield _case(user, {"user_id": string}, (string, None, None, None, None, None))
        yield _case(
            short,
            {"user_id": name, "device_type": string, "locale": string},
            (name, string, None, None, string, None),
        )
        yield _case(
            WRITTEN,
            {"user_id": name, "ip": string, "device_id": string},
            (name, None, masked_address, masked_device, None, None),
        )
        yield _case(
            WRITTEN if isinstance(version, int) else version,
            {"user_id": name, "app_version": string},
            (name, None, None, None, None, version),
        )


def _address_cases(salt: str) -> Iterator[Case]:
    for number, (_, text, standard, *_) in enumerate(_rows("addresses")):
        name = f"address {number}"
        row = (name, None, _token(salt, "ip", standard), None, None, None)
        yield _case(WRITTEN, {"user_id": name, "ip": text}, row)


def _token(salt: str, field: str, text: str | None) -> str | None:
    """Compute the token of a text that the table has in its standard form."""
    message = f"{field}:{text}".encode()
    return text and hmac.new(salt.encode(), message, hashlib.sha256).hexdigest()


def _case(outcome: str, body: dict[str, str], row: tuple[Any, ...]) -> Case:
    text = json.dumps(body, ensure_ascii=False)
    return Case(text, row) if outcome == WRITTEN else Case(text, None, outcome)


def _rows(suite: str) -> Iterator[list[Any]]:
    """Read a table: each line is a JSON array."""
    yield from map(json.loads, (SUITES / f"{suite}.jsonl").read_text().splitlines())
