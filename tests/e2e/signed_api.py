"""An API that verifies the signatures of its requests, as API Gateway and Lambda do."""

import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION = "eu-central-1"
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 "
    r"Credential=(?P<key>\w+)/\d+/(?P<region>[\w-]+)/(?P<service>[\w-]+)/aws4_request, "
    r"SignedHeaders=(?P<headers>[\w;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Request:
    """A request that was received."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    # None if the signature is wrong.
    service: str | None


@dataclass(frozen=True)
class Answer:
    """What the API answers."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/html; charset=utf-8"),)
    body: bytes = b"<h1>Logins</h1>"
    # Differs from the body's if the connection is to end early.
    length: int | None = None


@dataclass
class SignedApi:
    """What the API received, and what it answers."""

    port: int
    answer: Answer = Answer()
    requests: list[Request] = field(default_factory=list)
    # Each answer waits until as many requests have arrived.
    together: Barrier = field(default_factory=lambda: Barrier(1))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def signed_api() -> Iterator[SignedApi]:
    """Start the API on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            # A proxy gets the whole URL.
            url = self.path if "://" in self.path else f"http://{self.headers['Host']}{self.path}"
            headers = {name.lower(): value for name, value in self.headers.items()}
            service = _verify(self.command, url, headers, body)
            api.requests.append(Request(self.command, url, headers, body, service))
            api.together.wait(timeout=60)
            self._answer(api.answer)

        def _answer(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            length = len(answer.body) if answer.length is None else answer.length
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api = SignedApi(server.server_port)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()


def _verify(method: str, url: str, headers: dict[str, str], body: bytes) -> str | None:
    """Compute the signature with botocore; return the service if it is the request's."""
    found = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None or (found["key"], found["region"]) != (KEY, REGION):
        return None
    signed = {name: headers.get(name, "") for name in found["headers"].split(";")}
    # A header that could change the answer, and anything of AWS's, must be signed.
    if not {"host", "x-amz-date"} <= signed.keys() or signed["host"] != urlsplit(url).netloc:
        return None
    if any(name.startswith("x-amz-") and name not in signed for name in headers):
        return None
    request = AWSRequest(method, url, signed, body)
    request.context["timestamp"] = signed["x-amz-date"]
    signer = SigV4Auth(Credentials(KEY, SECRET), found["service"], REGION)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    matches = hmac.compare_digest(signer.signature(text, request), found["signature"])
    return found["service"] if matches else None
