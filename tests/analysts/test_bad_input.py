"""Requests that attack the API: each gets a problem document that repeats no value."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest

from analysts import sample
from analysts.server import Answer, Api

TOKEN = sample.HOSTILE_DEVICE
DAY = sample.THROUGH.isoformat()
MEBIBYTE = 1 << 20
VALID = {"token": TOKEN, "ring": TOKEN, "field": "device_id"}

# Each is wrong for most parameters of a URL.
WRONG_VALUES = [
    "",
    "' OR 1=1 --",
    "1; SELECT pg_sleep(60); --",
    "1)) UNION SELECT usename, passwd FROM pg_shadow --",
    "\\'; DROP TABLE user_logins; --",
    "$1",
    "%s",
    "{analytics}",
    "null",
    sample.RAW_ADDRESS,
    "2001:db8::1",
    sample.RAW_DEVICE,
    f"{TOKEN}\n",
    f" {TOKEN}",
    TOKEN.upper(),
    TOKEN[:-1],
    f"{TOKEN}0",
    f"-1,{TOKEN}",
    f"1.5,{TOKEN}",
    f"3,{TOKEN},",
    f"3,{TOKEN.upper()}",
    f"9999999999999999999,{TOKEN}",
    ",",
    "0",
    "-1",
    "+5",
    "1e3",
    "0x10",
    "5 ",
    "\uff15",
    "201",
    "367",
    "4294967298",
    "18446744073709551621",
    "NaN",
    "10000-01-01",
    "0000-01-01",
    "-0001-01-01",
    "+02026-03-17",
    "2026-02-30",
    "2026-3-17",
    "20260317",
    f"{DAY}T00:00:00Z",
    f"{DAY} BC",
    "infinity",
    "today",
    "<script>alert(1)</script>",
    "\0",
    "ip\0",
    "\u202eip",
    "IP",
]
# A lone surrogate, an overlong U+0000, and other bytes that are not UTF-8.
NOT_UTF_8 = ["%ED%A0%80", "%C0%80", "%FF", "ip%80", "%E2%82"]


def test_wrong_value_of_any_parameter_is_refused(api: Api) -> None:
    details: dict[tuple[str, str], set[str]] = {}
    for path, parameter, required in _parameters(api):
        name = parameter["name"]
        wrong = [quote(value, safe="") for value in WRONG_VALUES if not _accepts(parameter, value)]
        # An empty part of a path is another path.
        for value in (
            filter(None, [*wrong, *NOT_UTF_8])
            if parameter["in"] == "path"
            else [*wrong, *NOT_UTF_8]
        ):
            answer = api.get(_target(path, required, name, value))

            details.setdefault((path, name), set()).add(_detail_of_bad_request(answer))

    assert len(details) > 20
    for (path, name), texts in details.items():
        # One text for all values of a parameter repeats none of them.
        rules = texts - {"a parameter begins with +"}
        place = "the token in the path" if f"{{{name}}}" in path else f"the parameter {name}"
        assert len(rules) == 1, rules
        assert rules.pop().startswith(f"{place} must be ")


def _parameters(api: Api) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Yield each parameter of a URL, with its path and the parameters that the path requires."""
    for path, operations in api.get("/openapi.json").json["paths"].items():
        declared = operations.get("get", {}).get("parameters", [])
        required = {each["name"]: VALID[each["name"]] for each in declared if each["required"]}
        for parameter in declared:
            yield path, parameter, required


def _accepts(parameter: dict[str, Any], value: str) -> bool:
    """Return whether the document says that a value is valid."""
    schema = parameter["schema"]
    number = schema["type"] == "integer" and re.fullmatch(r"[0-9]+", value, re.ASCII)
    return jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).is_valid(int(value) if number else value)


def _target(path: str, required: dict[str, str], name: str, encoded: str) -> str:
    """Return a target in which one parameter has an encoded value."""
    values = {**required, name: encoded}
    in_path = {each: value for each, value in values.items() if f"{{{each}}}" in path}
    query = "&".join(f"{each}={value}" for each, value in values.items() if each not in in_path)
    return f"{path.format(**in_path)}?{query}"


def _detail_of_bad_request(answer: Answer) -> str:
    """Check all of an answer except its detail, which is returned."""
    detail = answer.json.pop("detail")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert answer.json == {
        "type": "urn:login-etl:bad-request",
        "title": "The request breaks a rule",
        "status": 400,
        "detail": detail,
    }
    return detail


SEARCHES = ["/v1/logins/search"]

# Each body is sent as it stands, with the right Content-Type.
WRONG_BODIES = {
    "nothing": b"",
    "no JSON": b"user_id=anna",
    "JSON that ends too early": b'{"user_id": "anna"',
    "two documents": b'{"user_id": "anna"} {"user_id": "ben"}',
    "null": b"null",
    "an array": b'["anna"]',
    "a text": b'"anna"',
    "no user id": b"{}",
    "a user id of null": b'{"user_id": null}',
    "a number as user id": b'{"user_id": 7}',
    "an array as user id": b'{"user_id": ["anna"]}',
    "an object as user id": b'{"user_id": {"$ne": ""}}',
    "an empty user id": b'{"user_id": ""}',
    "a user id that is too long": json.dumps({"user_id": "x" * 129}).encode(),
    "U+0000": b'{"user_id": "an\\u0000na"}',
    "half a surrogate pair": b'{"user_id": "\\ud800"}',
    "bytes that are no UTF-8": b'{"user_id": "\xff"}',
    "UTF-16": '{"user_id": "anna"}'.encode("utf-16"),
    "an unknown key": b'{"user_id": "anna", "userid": "ben"}',
    "a key twice": b'{"user_id": "anna", "user_id": "ben"}',
    "a day of null": b'{"user_id": "anna", "day": null}',
    "a day in the year 10000": b'{"user_id": "anna", "day": "10000-01-01"}',
    "no days": b'{"user_id": "anna", "days": 0}',
    "too many days": b'{"user_id": "anna", "days": 32}',
    "half a day": b'{"user_id": "anna", "days": 0.5}',
    "a number beyond floats": b'{"user_id": "anna", "days": 1e999}',
    "days as text": b'{"user_id": "anna", "days": "one"}',
    "a limit that is too large": b'{"user_id": "anna", "limit": 201}',
    "a cursor of another kind": b'{"user_id": "anna", "after": "3"}',
    "arrays nested 2,000 deep": b"[" * 2000 + b"]" * 2000,
    "objects nested 500 deep": b'{"a":' * 500 + b"1" + b"}" * 500,
}


@pytest.mark.parametrize("path", SEARCHES)
@pytest.mark.parametrize("name", WRONG_BODIES)
def test_wrong_body_is_refused(api: Api, path: str, name: str) -> None:
    answer = api.send("POST", path, WRONG_BODIES[name], {"Content-Type": "application/json"})

    detail = _detail_of_bad_request(answer)
    assert "anna" not in detail
    assert "ben" not in detail


@pytest.mark.parametrize("user", sample.HOSTILE_USERS)
def test_hostile_user_id_is_data(api: Api, user: str) -> None:
    answer = api.post("/v1/logins/search", {"user_id": user, "day": DAY, "days": 2, "limit": 200})

    rows = answer.json["rows"]
    assert answer.status == 200
    assert {row["user_id"] for row in rows} == {user}
    assert sum(row["logins"] for row in rows) == 5


def test_values_that_are_not_masked_are_hidden(api: Api) -> None:
    answers = [
        api.post("/v1/logins/search", {"user_id": "older", "day": DAY}),
        api.post("/v1/users/search", {"user_id": "older"}),
        api.get(f"/v1/tokens/{sample.device('older')}/logins"),
        api.get(f"/v1/tokens/{sample.device('older')}/neighbours?depth=3"),
    ]

    assert [answer.status for answer in answers] == [200] * 4
    assert [row["masked_ip"] for row in answers[0].json["rows"]] == [None, None]
    for answer in answers:
        assert sample.RAW_ADDRESS not in answer.body.decode()
        assert sample.RAW_DEVICE not in answer.body.decode()


TEXT_TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json, text/plain",
    ";",
]


@pytest.mark.parametrize("content_type", TEXT_TYPES)
def test_other_content_type_is_refused(api: Api, content_type: str) -> None:
    answer = api.send("POST", SEARCHES[0], b'{"user_id": "anna"}', {"Content-Type": content_type})

    assert (answer.status, answer.headers["Content-Type"]) == (415, "application/problem+json")
    assert answer.json == {
        "type": "urn:login-etl:unsupported-media-type",
        "title": "The body is not JSON",
        "status": 415,
        "detail": "send JSON, with Content-Type: application/json",
    }


TOO_LARGE = {
    "type": "urn:login-etl:too-large",
    "title": "The body is too large",
    "status": 413,
    "detail": "a body has at most 4,096 bytes",
}


@pytest.mark.parametrize("size", [4097, MEBIBYTE])
@pytest.mark.parametrize("chunked", [False, True])
def test_large_body_is_refused(api: Api, size: int, *, chunked: bool) -> None:
    body = b'{"user_id": "anna", "after": "' + b"0" * size
    parts = iter([body[:2000], body[2000:]]) if chunked else body

    answer = api.send("POST", SEARCHES[0], parts, {"Content-Type": "application/json"})

    assert (answer.status, answer.headers["Content-Type"]) == (413, "application/problem+json")
    assert answer.json == TOO_LARGE


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "POST", "BREW"])
def test_other_method_is_not_allowed(api: Api, method: str) -> None:
    answer = api.send(method, "/v1/duplicates?field=ip")

    assert (answer.status, answer.headers["Content-Type"]) == (405, "application/problem+json")
    assert answer.headers["Allow"] == "GET,HEAD"
    assert answer.json == {
        "type": "urn:login-etl:method-not-allowed",
        "title": "Method not allowed",
        "status": 405,
        "detail": "the header Allow lists the methods of this path",
    }


def test_foreign_cursor_is_a_position(api: Api) -> None:
    # The cursor of another question is a place in this order, too.
    [ring, *_] = api.get("/v1/rings?limit=1").json["rows"]
    cursor = f"{ring['users']},{ring['ring']}"

    answer = api.get(f"/v1/duplicates?field=ip&period=all&limit=200&after={cursor}")

    rows = answer.json["rows"]
    expected = [
        row
        for row in api.get("/v1/duplicates?field=ip&period=all&limit=200").json["rows"]
        if (-row["users"], row["token"]) > (-ring["users"], ring["ring"])
    ]
    assert rows == expected
    assert rows


@pytest.mark.parametrize(
    "accept", ["text/html", "application/xml;q=1", "application/json;q=0, */*;q=0"]
)
def test_other_format_is_not_acceptable(api: Api, accept: str) -> None:
    answer = api.get("/v1/duplicates?field=ip", Accept=accept)

    assert (answer.status, answer.headers["Content-Type"]) == (406, "application/problem+json")
    assert answer.json == {
        "type": "urn:login-etl:not-acceptable",
        "title": "No acceptable format",
        "status": 406,
        "detail": "the answer has the formats that /openapi.json lists, "
        "and the header Accept excludes them",
    }


RAW_REQUESTS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a request line without a version": b"GET /v1/freshness\r\n\r\n",
    "a space in the target": b"GET /v1/fresh ness HTTP/1.1\r\nHost: a\r\n\r\n",
    "U+0000 in a header": b"GET /v1/freshness HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    "a bare LF in a header": b"GET /v1/freshness HTTP/1.1\r\nHost: a\r\nX: a\nb\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "headers of a mebibyte": b"GET /v1/freshness HTTP/1.1\r\nHost: a\r\nX: "
    + b"x" * MEBIBYTE
    + b"\r\n\r\n",
    "a path of a mebibyte": b"GET /" + b"x" * MEBIBYTE + b" HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW_REQUESTS)
def test_malformed_request_ends_its_connection(api: Api, name: str) -> None:
    answer = api.send_bytes(RAW_REQUESTS[name])

    status = answer.split(b" ", 2)[1] if answer else b"none"
    assert status in {b"400", b"414", b"431", b"none"}
    assert api.get("/v1/freshness").status == 200


ODD_TARGETS = {
    "//v1/freshness": 404,
    "/v1//freshness": 404,
    "/v1/freshness/": 404,
    "/v1/./freshness": 404,
    "/v1/../v1/freshness": 404,
    "/v1/%66reshness": 404,
    "/v1%2Ffreshness": 404,
    "/V1/freshness": 404,
    "*": 404,
    "http://203.0.113.1/v1/freshness": 200,
}


@pytest.mark.parametrize("target", ODD_TARGETS)
def test_odd_target_leads_to_no_other_route(api: Api, target: str) -> None:
    assert api.get(target).status == ODD_TARGETS[target]
