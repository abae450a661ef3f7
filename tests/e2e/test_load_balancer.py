"""The API behind a load balancer that logs users in. Python's `cryptography` makes the tokens."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from dev import TARGET
from e2e.key_server import KeyServer, key_server
from e2e.runtime_api import RunningFunction, running_function

pytestmark = pytest.mark.without_emulator

PROGRAM = TARGET / "lambda" / "api" / "bootstrap"
HOST = "public-keys.auth.elb.eu-central-1.amazonaws.com"
ARN = (
    "arn:aws:elasticloadbalancing:eu-central-1:123456789012:"
    "loadbalancer/app/analysts/50dc6c495c0c9188"
)
KID, UNKNOWN_KID = "c2f80c8b-c05c-4068-af14-17299f7896b1", "00000000-c05c-4068-af14-17299f7896b1"
KEY, OTHER_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
HEADER = {
    "typ": "JWT",
    "kid": KID,
    "alg": "ES256",
    "iss": "https://idp.example.com",
    "client": "analysts",
    "signer": ARN,
    "exp": int(time.time()) + 3600,
}
VARIABLES = {
    # Nothing listens there: the document needs no database.
    "DATABASE_URL": "postgresql://login_api:secret@127.0.0.1:9/logins?sslmode=disable",
    "ALB_ARN": ARN,
    "OIDC_ISSUER": "https://idp.example.com",
    "OIDC_CLIENT_ID": "analysts",
}


def _token(
    header: dict[str, Any], claims: dict[str, Any], key: ec.EllipticCurvePrivateKey = KEY
) -> str:
    """Make a token as a load balancer does, whose signature is over the padded parts."""
    signed = _signed(header, claims)
    return f"{signed}.{_encode(_signature(signed, key))}"


def _signed(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return ".".join(_encode(json.dumps(part).encode()) for part in (header, claims))


def _signature(signed: str, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def _encode(part: bytes) -> str:
    return urlsafe_b64encode(part).decode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyServer]:
    with key_server(HOST, tmp_path_factory.mktemp("keys")) as server:
        server.keys[KID] = PEM
        yield server


@pytest.fixture(scope="module")
def function(
    keys: KeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFunction]:
    log = tmp_path_factory.mktemp("api") / "log"
    with running_function(PROGRAM, VARIABLES | keys.variables, log) as function:
        yield function


def test_logged_in_user_is_the_caller(function: RunningFunction, keys: KeyServer) -> None:
    # Of each length, so that the claims have no, one and two characters of padding.
    for user in ("user-1", "user-12", "user-123"):
        token = _token(HEADER, {"sub": user, "email": "anna@example.com"})

        answer = function.invoke(_event(token))

        assert answer["statusCode"] == 200, answer
        assert json.loads(answer["body"])["openapi"].startswith("3.1")
        assert function.lines()[-1]["caller"] == user
    assert keys.fetched.count(f"https://{HOST}:443/{KID}") == 1


def test_unpadded_token_is_accepted(function: RunningFunction) -> None:
    signed = _signed(HEADER, {"sub": "user-1"}).replace("=", "")

    answer = function.invoke(_event(f"{signed}.{_encode(_signature(signed)).rstrip('=')}"))

    assert answer["statusCode"] == 200


def _refused_tokens() -> dict[str, list[str]]:
    """Return the headers of requests that must be refused."""
    good = _token(HEADER, {"sub": "user-1"})
    signed, _, signature = good.rpartition(".")
    head, _, _ = signed.partition(".")
    admin = _encode(json.dumps({"sub": "admin"}).encode())
    with_hmac = _signed(HEADER | {"alg": "HS256"}, {"sub": "user-1"})
    mac = _encode(hmac.digest(PEM, with_hmac.encode(), hashlib.sha256))
    return {
        "absent": [],
        "twice": [good, good],
        "expired": [_token(HEADER | {"exp": int(time.time())}, {"sub": "user-1"})],
        "other_signer": [_token(HEADER | {"signer": ARN + "0"}, {"sub": "user-1"})],
        "other_issuer": [_token(HEADER | {"iss": "https://idp.example"}, {"sub": "user-1"})],
        "other_client": [_token(HEADER | {"client": "others"}, {"sub": "user-1"})],
        "other_key": [_token(HEADER, {"sub": "user-1"}, OTHER_KEY)],
        "unknown_key": [_token(HEADER | {"kid": UNKNOWN_KID}, {"sub": "user-1"})],
        "key_is_a_path": [_token(HEADER | {"kid": f"../{KID}"}, {"sub": "user-1"})],
        "without_algorithm": [_signed(HEADER | {"alg": "none"}, {"sub": "user-1"}) + "."],
        "hmac": [f"{with_hmac}.{mac}"],
        "other_claims": [f"{head}.{admin}.{signature}"],
        "other_padding": [f"{signed.replace('=', '')}.{signature}"],
        "cut": [good[:-8]],
        "without_signature": [signed],
        "no_user": [_token(HEADER, {"email": "anna@example.com"})],
        "no_token": ["user-1"],
    }


@pytest.mark.parametrize("case", _refused_tokens())
def test_unproven_user_is_refused(function: RunningFunction, case: str) -> None:
    tokens = _refused_tokens()[case]

    answer = function.invoke(_event(*tokens))

    assert answer["statusCode"] == 401, answer
    assert json.loads(answer["body"]) == {
        "type": "urn:login-etl:unauthenticated",
        "title": "The caller is not known",
        "status": 401,
        "detail": "AWS has not verified who sent the request",
    }
    reason, request = function.lines()[-2:]
    assert reason["message"] == "the caller was refused"
    assert "caller" not in request
    assert not any(token in function.log.read_text() for token in tokens if "." in token)


def test_only_aws_provides_the_key(tmp_path: Path) -> None:
    with (
        key_server("public-keys.example.com", tmp_path) as foreign,
        running_function(PROGRAM, VARIABLES | foreign.variables, tmp_path / "log") as function,
    ):
        foreign.keys[KID] = PEM

        answer = function.invoke(_event(_token(HEADER, {"sub": "user-1"})))

    assert (answer["statusCode"], foreign.fetched) == (503, [])
    assert json.loads(answer["body"])["type"] == "urn:login-etl:key-unavailable"


def test_iam_caller_is_refused_behind_load_balancer(function: RunningFunction) -> None:
    answer = function.invoke(_http_api_event())

    assert answer["statusCode"] == 401


def test_iam_caller_is_the_caller(tmp_path: Path) -> None:
    variables = {"DATABASE_URL": VARIABLES["DATABASE_URL"]}
    with running_function(PROGRAM, variables, tmp_path / "log") as function:
        accepted = function.invoke(_http_api_event())
        line = function.lines()[-1]
        refused = function.invoke(_event(_token(HEADER, {"sub": "user-1"})))

    assert (accepted["statusCode"], refused["statusCode"]) == (200, 401)
    assert line["caller"] == "arn:aws:sts::123456789012:assumed-role/analyst/anna"


def _event(*tokens: str) -> dict[str, Any]:
    """Make the event of a load balancer."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:…"}},
        "httpMethod": "GET",
        "path": "/openapi.json",
        "multiValueQueryStringParameters": {},
        "multiValueHeaders": {
            "host": ["analysts.example.com"],
            "x-amzn-oidc-data": list(tokens),
            "x-amzn-oidc-identity": ["user-1"],
        },
        "body": "",
        "isBase64Encoded": False,
    }


def _http_api_event() -> dict[str, Any]:
    """Make the event of an HTTP API with IAM."""
    arn = "arn:aws:sts::123456789012:assumed-role/analyst/anna"
    http = {"method": "GET", "path": "/openapi.json", "protocol": "HTTP/1.1"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/openapi.json",
        "rawQueryString": "",
        "headers": {"host": "a1b2c3.execute-api.eu-central-1.amazonaws.com"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "a1b2c3",
            "authorizer": {"iam": {"accountId": "123456789012", "userArn": arn}},
            "http": http | {"sourceIp": "192.0.2.1", "userAgent": "python"},
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "timeEpoch": 1795391181000,
        },
        "isBase64Encoded": False,
    }
