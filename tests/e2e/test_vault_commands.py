"""`login-etl token`, `reveal` and `erase`, at an API whose requests must be signed.

test_vault.py runs them with the vault itself.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e import vault
from e2e.program import Run
from e2e.signed_api import KEY, REGION, SECRET, Answer, SignedApi, signed_api

TOKEN = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3"
SHARED = "0" * 64
VALUE, USER = "203.0.113.7", "user-4711"
PURPOSE = ("--reason", "data-subject", "--ticket", "DPO-7")
SENT_PURPOSE = {"reason": "data-subject", "ticket": "DPO-7"}
JSON = (("Content-Type", "application/json"),)
PROBLEM = (("Content-Type", "application/problem+json"),)
REVEALED = {"field": "ip", "token": TOKEN, "value": VALUE, "audit_entry": 17}
ERASED = {"audit_entry": 18, "erased": [TOKEN], "shared": [SHARED], "rows": 3}


@pytest.fixture
def api() -> Iterator[SignedApi]:
    with signed_api() as api:
        yield api


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def _run(api: SignedApi, home: Path, *arguments: str, typed: str | bytes = "") -> Run:
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    return vault.run(home, api.url, *arguments, typed=typed, AWS_REGION=REGION, **credentials)


def _answer(body: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, JSON if status == 200 else PROBLEM, json.dumps(body).encode())


def _sent(api: SignedApi) -> list[tuple[str, str | None, dict[str, Any]]]:
    """Return the path, the signature's service and the body of each request."""
    return [
        (request.url.removeprefix(api.url), request.service, json.loads(request.body))
        for request in api.requests
    ]


def test_tokens_are_in_the_order_of_the_lines(api: SignedApi, home: Path) -> None:
    api.answer = _answer({"field": "ip", "token": TOKEN})

    done = _run(api, home, "token", "--field", "ip", typed=f"{VALUE}\r\n \n2001:db8::1")

    assert (done.status, done.progress) == (0, "")
    assert done.output.splitlines()[2:] == [
        f"| 1    | {TOKEN} |",
        f"| 2    | {' ' * 64} |",
        f"| 3    | {TOKEN} |",
    ]
    assert _sent(api) == [
        ("/token", "execute-api", {"field": "ip", "value": value})
        for value in (VALUE, "2001:db8::1")
    ]


def test_programs_get_tokens_as_json(api: SignedApi, home: Path) -> None:
    api.answer = _answer({"field": "device_id", "token": TOKEN})

    done = _run(api, home, "token", "--field", "device_id", "--json", typed="a\n\n")

    assert done.result == {"field": "device_id", "tokens": [TOKEN, None]}


def test_value_is_revealed(api: SignedApi, home: Path) -> None:
    api.answer = _answer(REVEALED)

    shown = _run(api, home, "reveal", TOKEN, *PURPOSE)
    document = _run(api, home, "reveal", TOKEN, *PURPOSE, "--json")

    assert (shown.status, shown.progress) == (0, "")
    assert shown.output.splitlines()[2] == f"| ip    | {VALUE} | 17          |"
    assert document.result == REVEALED
    assert _sent(api) == [("/reveal", "execute-api", {"token": TOKEN, **SENT_PURPOSE})] * 2


@pytest.mark.parametrize(
    ("target", "typed", "expected"),
    [
        ((TOKEN,), "", {"token": TOKEN}),
        (("--field", "ip"), f"{VALUE}\n", {"field": "ip", "value": VALUE}),
        (("--user",), USER, {"user_id": USER}),
    ],
)
def test_one_target_is_erased(
    api: SignedApi, home: Path, target: tuple[str, ...], typed: str, expected: dict[str, str]
) -> None:
    api.answer = _answer(ERASED)

    done = _run(api, home, "erase", *target, *PURPOSE, "--rows", "--yes", typed=typed)

    assert (done.status, done.progress) == (0, "")
    assert done.output.splitlines()[2:] == [
        f"| {TOKEN} | erased                    |",
        f"| {SHARED} | kept: other users have it |",
        "3 rows changed. Audit entry 18.",
    ]
    options = {"never_again": False, "rows": True}
    assert _sent(api) == [("/erase", "execute-api", expected | SENT_PURPOSE | options)]


def test_documented_erasure_waits_for_consent(api: SignedApi, home: Path) -> None:
    done = _run(api, home, "erase", TOKEN, *PURPOSE)

    assert (done.status, done.output) == (2, "")
    assert "The value of this token is erased for ever. There is no terminal" in done.progress
    assert api.requests == []


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "bad-request", 2),
        (403, "unidentified-caller", 3),
        (404, "unknown-token", 4),
        (404, "not-found", 1),
        (410, "erased", 5),
        (500, "unopenable", 1),
        (503, "kms-unavailable", 1),
    ],
)
def test_exit_status_says_what_failed(
    api: SignedApi, home: Path, status: int, kind: str, expected: int
) -> None:
    problem = {"type": f"urn:login-etl:{kind}", "title": "Title", "detail": "detail"}
    api.answer = _answer(problem | {"status": status, "audit_entry": 7}, status)

    done = _run(api, home, "reveal", TOKEN, *PURPOSE)

    assert (done.status, done.output) == (expected, "")
    assert done.progress == "login-etl: Title: detail (audit entry 7)\n"


def test_caller_without_permission_is_denied(api: SignedApi, home: Path) -> None:
    # AWS answers in front of the vault. Its text is not shown.
    api.answer = Answer(403, JSON, f'{{"message":"Forbidden for {VALUE}"}}'.encode())

    done = _run(api, home, "reveal", TOKEN, *PURPOSE)

    assert (done.status, done.output) == (3, "")
    assert "needs the permission execute-api:Invoke on the API behind 127.0.0.1" in done.progress
    assert VALUE not in done.progress


@pytest.mark.parametrize("text", [VALUE, TOKEN.upper(), TOKEN[1:]])
def test_other_texts_than_tokens_are_not_repeated(api: SignedApi, home: Path, text: str) -> None:
    for command in ("reveal", "erase"):
        done = _run(api, home, command, text, *PURPOSE, "--yes")

        expected = "login-etl: TOKEN is not a token, which has 64 lowercase hexadecimal digits\n"
        assert (done.status, done.output, done.progress) == (2, "", expected)
    assert api.requests == []


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", "standard input is empty: type an address there"),
        (" \n", "standard input is empty: type an address there"),
        (f"{VALUE}\n{VALUE}\n", "standard input has more than one line"),
        (b"\xff", "standard input is not UTF-8"),
    ],
)
def test_erasure_takes_one_line(
    api: SignedApi, home: Path, typed: str | bytes, expected: str
) -> None:
    done = _run(api, home, "erase", "--field", "ip", *PURPOSE, "--yes", typed=typed)

    assert (done.status, done.output) == (2, "")
    assert expected in done.progress
    assert VALUE not in done.progress
    assert api.requests == []


def test_failing_line_is_named_and_not_shown(api: SignedApi, home: Path) -> None:
    api.answer = _answer({"type": "urn:login-etl:too-large", "title": "Too large"}, 413)

    done = _run(api, home, "token", "--field", "ip", typed=f"\n{VALUE}\n")

    assert (done.status, done.output) == (2, "")
    assert done.progress == ("Line 2 of standard input has no token:\nlogin-etl: Too large\n")
