"""`login-etl token`, `reveal`, `erase` and `vault`, at an API whose requests must be signed.

test_vault.py runs them with the vault itself.
"""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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
VAULT_KEY = f"arn:aws:kms:{REGION}:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
VERIFIED = {
    "sampled": 10,
    "opened": 10,
    "unopenable": 0,
    "audit_entries": [*range(20, 30)],
    "keys": [
        {
            "sha256": "0123456789abcdef",
            "kms_key": VAULT_KEY,
            "accepted_at": "2026-11-27T00:00:00Z",
            "is_current": True,
            "sealed": 99,
            "kms": "works",
        }
    ],
    "settings_have_current_key": True,
}


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


def _yesterday(seconds: int = 0) -> str:
    time = datetime.now(UTC) - timedelta(days=1) + timedelta(seconds=seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _entry(number: int, request_id: str) -> dict[str, Any]:
    return {
        "id": number,
        "at": _yesterday(),
        "caller": "arn:aws:sts::111122223333:assumed-role/fraud/ann",
        "verb": "reveal",
        "field": None,
        "reason": "test",
        "ticket": "SEC-1",
        "outcome": "done",
        "kms_request_id": request_id,
        "taken": True,
    }


def _audit(*entries: dict[str, Any], **others: Any) -> Answer:  # noqa: ANN401 - of all JSON types
    page = {"audit_entry": 99, "keys": [VAULT_KEY], "entries": entries, "next": None}
    return _answer(page | others)


def _event(request_id: str) -> dict[str, Any]:
    """Return a record as AWS shows that of `Decapsulate`."""
    return {
        "eventVersion": "1.11",
        "userIdentity": {"arn": "arn:aws:sts::111122223333:assumed-role/thief/bob"},
        "eventTime": _yesterday(1),
        "eventSource": "kms.amazonaws.com",
        "eventName": "DeriveSharedSecret",
        "requestParameters": {"keyId": VAULT_KEY, "keyAgreementAlgorithm": "ECDH"},
        "requestID": request_id,
        "resources": [{"type": "AWS::KMS::Key", "ARN": VAULT_KEY}],
    }


def _trail(home: Path, *request_ids: str) -> str:
    """Write a log file as a trail delivers it."""
    others = [{"eventSource": "s3.amazonaws.com", "eventName": "PutObject"}]
    records = others + [_event(one) for one in request_ids]
    file = home / "trail.json.gz"
    file.write_bytes(gzip.compress(json.dumps({"Records": records}).encode()))
    return str(file)


def test_audit_agrees_with_delivered_files(api: SignedApi, home: Path) -> None:
    api.answer = _audit(_entry(17, "a"), _entry(18, "b"))
    trail = _trail(home, "a", "b")

    done = _run(api, home, "vault", "agree", "--days", "2", "--cloudtrail", trail)

    assert (done.status, done.progress) == (0, "")
    assert done.output.startswith("The audit and CloudTrail agree, from ")
    assert done.output.endswith("2 entries with a value, 2 uses of the key, 0 refused uses.\n")
    [(path, service, sent)] = _sent(api)
    assert (path, service, sent["after"]) == ("/audit", "execute-api", 0)
    assert [*sent] == ["from", "to", "after"]


def test_differences_have_a_status_of_their_own(api: SignedApi, home: Path) -> None:
    api.answer = _audit(_entry(17, "a"))
    trail = _trail(home, "b")

    shown = _run(api, home, "vault", "agree", "--cloudtrail", trail)
    document = _run(api, home, "vault", "agree", "--cloudtrail", trail, "--json")

    assert (shown.status, shown.progress) == (6, "")
    assert "the key was used without an entry" in shown.output
    assert "CloudTrail does not have the request" in shown.output
    assert not document.result["agrees"]
    differences = [
        (one["kind"], one["audit_entry"], one["kms_request_id"], one["caller"].split("/")[-1])
        for one in document.result["differences"]
    ]
    assert differences == [
        ("event-without-entry", None, "b", "bob"),
        ("entry-without-event", 17, "a", "ann"),
    ]


def test_event_history_is_looked_up(api: SignedApi, home: Path) -> None:
    # One document answers both: it is a page of the audit, and an answer of LookupEvents.
    events = [{"EventName": "DeriveSharedSecret", "CloudTrailEvent": json.dumps(_event("a"))}]
    api.answer = _audit(_entry(17, "a"), Events=events)
    credentials = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    variables = credentials | {"AWS_REGION": REGION, "AWS_ENDPOINT_URL_CLOUDTRAIL": api.url}

    done = vault.run(home, api.url, "vault", "agree", **variables)

    assert (done.status, done.progress) == (0, "")
    [(_, _, audit), (_, service, lookup)] = _sent(api)
    assert service == "cloudtrail"
    target = "CloudTrail_20131101.LookupEvents"
    assert api.requests[1].headers["x-amz-target"] == target
    name = {"AttributeKey": "EventName", "AttributeValue": "DeriveSharedSecret"}
    assert lookup["LookupAttributes"] == [name]
    start = datetime.fromtimestamp(lookup["StartTime"], UTC)
    assert start.strftime("%Y-%m-%dT%H:%M:%SZ") == audit["from"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\x1f\x8b\x00", VALUE.encode()])
def test_other_files_are_wrong_use(api: SignedApi, home: Path, content: bytes) -> None:
    api.answer = _audit()
    file = home / "other"
    file.write_bytes(content)

    done = _run(api, home, "vault", "agree", "--cloudtrail", str(file))

    assert (done.status, done.output) == (2, "")
    assert str(file) in done.progress
    assert VALUE not in done.progress


def test_old_days_need_files(api: SignedApi, home: Path) -> None:
    done = _run(api, home, "vault", "agree", "--since", "2025-01-01")

    assert (done.status, done.output) == (2, "")
    assert "add --cloudtrail" in done.progress
    assert api.requests == []


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({}, 0),
        ({"opened": 9, "unopenable": 1}, 6),
        ({"settings_have_current_key": False}, 6),
        ({"sampled": 0, "opened": 0}, 1),
    ],
)
def test_status_says_whether_vault_works(
    api: SignedApi, home: Path, found: dict[str, Any], status: int
) -> None:
    api.answer = _answer(VERIFIED | found)

    shown = _run(api, home, "vault", "verify")
    document = _run(api, home, "vault", "verify", "--sample", "10", "--json")

    assert (shown.status, document.status, shown.progress) == (status, status, "")
    assert document.result == VERIFIED | found
    assert _sent(api) == [("/verify", "execute-api", {"sample": 10})] * 2


def test_honey_tokens_are_printed(api: SignedApi, home: Path) -> None:
    honey = {"audit_entry": 30, "tokens": [TOKEN, SHARED]}
    api.answer = _answer(honey)

    shown = _run(api, home, "vault", "honey", "2", *PURPOSE)
    document = _run(api, home, "vault", "honey", "2", *PURPOSE, "--json")

    assert shown.output.splitlines()[2:] == [f"| {TOKEN} |", f"| {SHARED} |", "Audit entry 30."]
    assert document.result == honey
    assert _sent(api) == [("/honey", "execute-api", {"count": 2, **SENT_PURPOSE})] * 2
