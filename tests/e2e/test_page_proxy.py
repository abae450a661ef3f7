"""`login-etl page`, between a browser and an API whose requests must be signed."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from urllib.parse import parse_qsl, urlsplit

import pytest

from dev.processes import free_port
from e2e.page import Page, serving
from e2e.signed_api import KEY, REGION, SECRET, Answer, SignedApi, signed_api

HTML = {"Accept": "text/html"}
REFUSED = Answer(
    403, (("Content-Type", "application/json"),), b'{"message":"Forbidden for 203.0.113.7"}'
)
EXPIRED = Answer(
    403,
    (("Content-Type", "application/json"),),
    b'{"message":"The security token included in the request is expired"}',
)


@pytest.fixture
def api() -> Iterator[SignedApi]:
    with signed_api() as api:
        yield api


@pytest.fixture
def page(api: SignedApi, tmp_path: Path) -> Iterator[Page]:
    with _page(api.url, tmp_path) as page:
        yield page


@contextmanager
def _page(url: str, home: Path, *arguments: str, **variables: str) -> Iterator[Page]:
    """Serve the page of an API, by default with credentials that it accepts."""
    variables = variables or {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with serving(home, "--url", url, *arguments, AWS_REGION=REGION, **variables) as page:
        yield page


@pytest.mark.parametrize("service", ["execute-api", "lambda"])
def test_each_service_accepts_the_signature(api: SignedApi, tmp_path: Path, service: str) -> None:
    host = f"a1b2c3.{'lambda-url' if service == 'lambda' else service}.{REGION}.localhost"
    values = [("after", "37,9f"), ("q", "a b+c&d=é~*'()!@:/?"), ("empty", ""), ("q", "%2F")]
    query = "after=37,9f&q=a+b%2bc%26d=%c3%A9~*'()!@:/?&empty&q=%252F"
    form = b"user_id=%C3%A9+%26&limit=2"
    # The proxy of the network: no name server has the host.
    variables = {"HTTP_PROXY": api.url, "AWS_SESSION_TOKEN": "token/+=="}
    variables |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    with _page(f"http://{host}/stage", tmp_path, **variables) as page:
        statuses = [page.send(path=f"v1/a%20b/%C3%A9?{query}")[0].status]
        statuses += [page.send("HEAD")[0].status, page.post(form)[0], page.post(b"")[0]]

    get, head, post, empty = api.requests
    assert statuses == [200] * 4
    assert [request.service for request in api.requests] == [service] * 4
    assert get.url.startswith(f"http://{host}/stage/v1/a%20b/%C3%A9?")
    assert parse_qsl(urlsplit(get.url).query, keep_blank_values=True) == values
    assert (head.method, head.url) == ("HEAD", f"http://{host}/stage/")
    assert (post.url, post.body, empty.body) == (f"http://{host}/stage/search", form, b"")
    assert get.headers["x-amz-security-token"] == "token/+=="


def test_only_listed_headers_are_forwarded(api: SignedApi, page: Page) -> None:
    listed = {"accept": "text/csv", "content-type": "text/plain", "if-none-match": 'W/"7-1"'}
    others = {
        "Cookie": "session=secret",
        "Authorization": "Basic secret",
        "Referer": page.url,
        "User-Agent": "Browser",
        "Accept-Encoding": "gzip",
        "X-Forwarded-For": "203.0.113.7",
        "X-Amzn-Oidc-Data": "forged",
        "X-Amz-Date": "20200101T000000Z",
        "TE": "trailers",
        "Connection": "keep-alive, X-Other",
        "X-Other": "1",
    }

    page.send(headers=listed | others)

    [request] = api.requests
    signature = {"host", "authorization", "x-amz-date"}
    assert {name: request.headers[name] for name in request.headers.keys() - signature} == listed
    assert request.service == "execute-api"
    assert "2020" not in request.headers["x-amz-date"]


def test_only_listed_headers_are_passed_back(api: SignedApi, page: Page) -> None:
    listed = [
        ("content-type", "text/csv"),
        ("cache-control", "private, no-cache"),
        ("content-security-policy", "default-src 'none'"),
        ("etag", 'W/"7-1"'),
        ("link", '<?after=2>; rel="next"'),
        ("link", '<openapi.json>; rel="service-desc"'),
        ("retry-after", "1"),
        ("vary", "Accept"),
    ]
    others = [
        ("Set-Cookie", "a=b"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Access-Control-Allow-Origin", "*"),
        ("Keep-Alive", "timeout=5"),
        ("Connection", "X-Other"),
        ("X-Other", "1"),
        ("apigw-requestid", "id"),
    ]
    api.answer = Answer(headers=(*listed, *others))

    response, _ = page.send()

    headers = [(name.lower(), value) for name, value in response.getheaders()]
    own = {"content-length", "date"}
    assert sorted(header for header in headers if header[0] not in own) == sorted(listed)


def test_foreign_hosts_are_refused(api: SignedApi, page: Page) -> None:
    port = page.port
    foreign = ["evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}"]
    foreign += [f"127.0.0.1.evil.example:{port}", f"0.0.0.0:{port}", f"[::1]:{port}", ""]

    refused = [page.send(headers={"Host": host})[0].status for host in foreign]
    accepted = page.send(headers={"Host": f"localhost:{port}"})[0].status

    assert (refused, accepted) == ([403] * len(foreign), 200)
    assert len(api.requests) == 1


def test_other_paths_are_not_found(api: SignedApi, page: Page) -> None:
    secret = page.root.strip("/")
    assert re.fullmatch("[0-9a-f]{32}", secret)
    others = [
        "/",
        "/v1/freshness",
        f"/{secret}",
        f"/{secret}0/",
        f"/{secret[:-1]}/",
        f"//{secret}/",
    ]
    others += [f"/{secret.upper()}/" if secret != secret.upper() else "/x/", f"/x/..{page.root}"]

    answers = [page.send(path=path, headers=HTML) for path in others]

    assert [response.status for response, _ in answers] == [404] * len(others)
    assert {secret.encode() in body for _, body in answers} == {False}
    assert api.requests == []


def test_each_run_has_another_path(page: Page, api: SignedApi, tmp_path: Path) -> None:
    with _page(api.url, tmp_path) as other:
        assert other.root != page.root
        assert other.send(path=page.root)[0].status == 404


def test_forms_of_other_pages_are_refused(api: SignedApi, page: Page) -> None:
    foreign = [
        {"Origin": "https://evil.example"},
        {"Origin": f"https://{page.host}"},
        {"Origin": f"http://localhost:{page.port}"},
        {"Origin": f"http://127.0.0.1:{page.port + 1}"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "null"},
        {"Origin": "null", "Sec_Fetch_Site": "cross-site"},
        {"Origin": ""},
        {"Origin": "", "Sec_Fetch_Site": "same-site"},
        {"Origin": "", "Sec_Fetch_Site": "none"},
    ]
    own = [
        {},
        {"Host": f"localhost:{page.port}", "Origin": f"http://localhost:{page.port}"},
        {"Origin": "null", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "", "Sec_Fetch_Site": "same-origin"},
    ]

    refused = [page.post(b"user_id=1", **headers)[0] for headers in foreign]
    accepted = [page.post(b"user_id=1", **headers)[0] for headers in own]

    assert (refused, accepted) == ([403] * len(foreign), [200] * len(own))
    assert len(api.requests) == len(own)


def test_other_methods_are_refused(api: SignedApi, page: Page) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECTED"):
        response, _ = page.send(method)

        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert api.requests == []


def test_large_body_is_refused(api: SignedApi, page: Page) -> None:
    assert page.post(b"x" * 4096)[0] == 200
    assert page.post(b"x" * 4097)[0] == 413
    assert [len(request.body) for request in api.requests] == [4096]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, body=b'{"message":"Internal Server Error"}'),
        Answer(403, (("Content-Type", "application/problem+json"),), b"{}"),
        Answer(404, (("Content-Type", "application/problem+json"),), b"{}"),
        Answer(303, (("Location", "./tokens/9f"),), b""),
        Answer(body=b"x" * 1024 * 1024),
    ],
    ids=["500", "403", "404", "redirect", "large"],
)
def test_answers_of_the_api_are_passed_on(api: SignedApi, page: Page, answer: Answer) -> None:
    api.answer = answer

    response, body = page.send()

    assert (response.status, body) == (answer.status, answer.body)
    assert set(answer.headers) <= {(name.title(), value) for name, value in response.getheaders()}


def test_error_of_aws_runs_no_script(api: SignedApi, page: Page) -> None:
    api.answer = Answer(502, body=b"<script>alert(1)</script>")

    response, _ = page.send(headers=HTML)

    policy = "default-src 'none'; frame-ancestors 'none'"
    assert (response.status, response.headers["Content-Security-Policy"]) == (502, policy)
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_unchanged_answer_has_no_body(api: SignedApi, page: Page) -> None:
    api.answer = Answer(304, (("ETag", 'W/"7-1"'),), b"")

    response, body = page.send(headers={"If-None-Match": 'W/"7-1"'})

    assert (response.status, response.headers["ETag"], body) == (304, 'W/"7-1"', b"")
    assert api.requests[0].headers["if-none-match"] == 'W/"7-1"'


@pytest.mark.parametrize(
    "answer",
    [
        Answer(302, (("Location", "https://evil.example/"),), b""),
        Answer(302, (("Location", "//evil.example/"),), b""),
        Answer(302, (("Location", "/v1/freshness"),), b""),
        Answer(body=b"x", length=2),
        Answer(body=b"x" * (6 * 1024 * 1024 + 1)),
    ],
    ids=["redirect", "without_scheme", "absolute", "cut", "too_large"],
)
def test_unusable_answer_is_a_problem(api: SignedApi, page: Page, answer: Answer) -> None:
    api.answer = answer

    response, body = page.send()

    assert (response.status, json.loads(body)["status"]) == (502, 502)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Location"] is None


def test_unreachable_api_is_a_problem(tmp_path: Path) -> None:
    with socket.socket() as silent:
        # Nobody else gets this port, and nobody listens on it.
        silent.bind(("127.0.0.1", 0))
        with _page(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path) as page:
            response, body = page.send(path="tokens/9f?secret", headers=HTML)
            _, lines = page.end()

    assert (response.status, response.headers["Content-Type"]) == (502, "text/plain; charset=utf-8")
    assert body.startswith(b"The analysts' API cannot be reached.")
    [reason] = [line for line in lines if "no answer" in line]
    assert reason.startswith("login-etl: no answer from the analysts' API: ")
    assert "refused" in reason
    assert "secret" not in reason


def test_refusal_names_the_permission(api: SignedApi, page: Page) -> None:
    api.answer = REFUSED

    response, text = page.send(headers=HTML)
    _, problem = page.send()

    detail = (
        "AWS refused the request. Your AWS identity needs the permission execute-api:Invoke on the "
        "API behind 127.0.0.1. If it has this permission, verify that the clock of this machine is "
        "right."
    )
    assert (response.status, text.decode()) == (403, detail)
    assert response.headers["Cache-Control"] == "no-store"
    assert json.loads(problem) == {"title": "Forbidden", "status": 403, "detail": detail}


def test_expired_login_is_a_problem_until_renewed(api: SignedApi, tmp_path: Path) -> None:
    login = Login(tmp_path)

    with _page(api.url, tmp_path, **login.variables) as page:
        response, body = page.send(headers=HTML)
        login.succeeds()
        renewed = page.send()[0].status
        _, lines = page.end()

    assert (response.status, renewed) == (503, 200)
    assert b"Log in again (aws sso login)" in body
    assert any("login-etl: no AWS credentials that can be used" in line for line in lines)
    assert SECRET not in "".join(lines)


def test_valid_credentials_are_fetched_once(api: SignedApi, tmp_path: Path) -> None:
    login = Login(tmp_path)
    login.succeeds(timedelta(hours=1))

    with _page(api.url, tmp_path, **login.variables) as page:
        statuses = [page.send()[0].status for _ in range(3)]

    assert (statuses, login.calls) == ([200] * 3, 1)


def test_expiring_credentials_are_replaced(api: SignedApi, tmp_path: Path) -> None:
    login = Login(tmp_path)
    login.succeeds(timedelta(seconds=30))

    with _page(api.url, tmp_path, **login.variables) as page:
        statuses = [page.send()[0].status for _ in range(3)]

    assert (statuses, login.calls) == ([200] * 3, 3)


def test_refused_credentials_are_replaced(api: SignedApi, tmp_path: Path) -> None:
    login = Login(tmp_path)
    login.succeeds()
    api.answer = EXPIRED

    with _page(api.url, tmp_path, **login.variables) as page:
        response, body = page.send(headers=HTML)
        api.answer = Answer()
        again = page.send()[0].status

    assert (response.status, again, login.calls) == (503, 200, 2)
    assert b"Log in again" in body


def test_two_clients_are_served_at_once(api: SignedApi, page: Page) -> None:
    api.together = Barrier(2)

    with ThreadPoolExecutor() as clients:
        statuses = list(clients.map(lambda _: page.send()[0].status, range(2)))

    assert statuses == [200, 200]


@pytest.mark.parametrize(
    ("sent", "status"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_signals_end_the_page(
    api: SignedApi, page: Page, tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    page.send()

    ended, lines = page.end(sent)

    assert (ended, lines[-1]) == (status, f"login-etl: ended by {sent.name}")
    # Nothing was written, not even by the SDK.
    assert list(tmp_path.iterdir()) == []
    assert len(api.requests) == 1


def test_signal_ends_an_open_request(api: SignedApi, page: Page) -> None:
    api.together = Barrier(2)

    with ThreadPoolExecutor() as clients:
        open_request = clients.submit(page.send)
        while not api.requests:
            assert not open_request.done()
        status, _ = page.end()
        api.together.abort()
        assert open_request.exception() is not None

    assert status == 130


def test_log_has_no_path(api: SignedApi, page: Page) -> None:
    page.send(path="tokens/9f?after=37,9f")
    page.post(b"user_id=anna")
    page.send(path="/elsewhere")

    _, lines = page.end()

    notice, *requests, end = lines
    assert notice == "Whoever has this address can use the page as you. Ctrl-C ends it."
    assert [re.sub(r" \d+ ms$", "", line) for line in requests] == [
        "GET 200",
        "POST 200",
        "GET 404",
    ]
    assert end == "login-etl: ended by SIGINT"
    assert len(api.requests) == 2


def test_json_names_the_url(api: SignedApi, tmp_path: Path) -> None:
    port = free_port()
    with _page(api.url, tmp_path, "--json", "--port", str(port)) as page:
        assert page.process.stdout is not None
        document = json.loads(
            page.url + page.process.stdout.readline() + page.process.stdout.readline()
        )

        _, lines = page.end()

    assert document.keys() == {"url"}
    assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/[0-9a-f]{{32}}/", document["url"])
    assert len(lines) == 2


def test_used_port_is_a_failure(page: Page, api: SignedApi, tmp_path: Path) -> None:
    with _page(api.url, tmp_path, "--port", str(page.port)) as other:
        _, progress = other.process.communicate(timeout=60)

    assert (other.process.returncode, other.url) == (1, "")
    assert progress.startswith(f"login-etl: port {page.port} of 127.0.0.1 cannot be used: ")


@dataclass(frozen=True)
class Login:
    """A program that prints credentials, for `credential_process`. At first it fails."""

    home: Path

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which the SDK runs the program."""
        program, config = self.home / "login.sh", self.home / "config"
        program.write_text(f"#!/bin/sh\necho >> {self.home}/calls\nexec cat {self.home}/document\n")
        program.chmod(0o700)
        config.write_text(f"[default]\ncredential_process = {program}\n")
        return {"AWS_CONFIG_FILE": str(config), "PATH": "/usr/bin:/bin"}

    def succeeds(self, valid_for: timedelta | None = None) -> None:
        """Let the program print credentials from now on."""
        document = {"Version": 1, "AccessKeyId": KEY, "SecretAccessKey": SECRET}
        if valid_for is not None:
            document["Expiration"] = (datetime.now(UTC) + valid_for).isoformat()
        (self.home / "document").write_text(json.dumps(document))

    @property
    def calls(self) -> int:
        """How often the program ran."""
        return len((self.home / "calls").read_text().splitlines())
