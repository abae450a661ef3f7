"""The Runtime API of one process: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html."""

from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from threading import Thread

ROOT = "/2018-06-01/runtime"


@dataclass(frozen=True)
class Event:
    """An event for the function, with its headers."""

    request_id: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Polled:
    """The function has requested an event."""


@dataclass(frozen=True)
class Answer:
    """The function has answered an event."""

    request_id: str
    body: bytes
    is_error: bool


@dataclass(frozen=True)
class NotStarted:
    """The function has reported that it cannot start."""

    body: bytes


@dataclass(frozen=True)
class Exited:
    """The process has ended."""

    cause: str


class RuntimeApi:
    """A server on loopback, with the events to fetch and the requests received."""

    def __init__(self) -> None:
        """Start the server."""
        self.received: SimpleQueue[Polled | Answer | NotStarted | Exited] = SimpleQueue()
        self.events: SimpleQueue[Event | None] = SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
        self._server.daemon_threads = True
        self._server.api = self
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """The address that it listens on."""
        return f"127.0.0.1:{self._server.server_port}"

    def send(self, event: Event) -> None:
        """Put an event in the queue for the function."""
        self.events.put(event)

    def close(self) -> None:
        """Close the server, and end a poll that waits for an event."""
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for a delayed acknowledgement

    @property
    def _api(self) -> RuntimeApi:
        return self.server.api

    def do_GET(self) -> None:
        if self.path != f"{ROOT}/invocation/next":
            self._reply(HTTPStatus.NOT_FOUND)
            return
        self._api.received.put(Polled())
        event = self._api.events.get()
        if event is None:
            self.close_connection = True
            return
        headers = {"Lambda-Runtime-Aws-Request-Id": event.request_id, **event.headers}
        self._reply(HTTPStatus.OK, event.body, headers)

    def do_POST(self) -> None:
        body = self._body()
        match self.path.removeprefix(f"{ROOT}/").split("/"):
            case ["init", "error"]:
                self._api.received.put(NotStarted(body))
            case ["invocation", request_id, "response" | "error" as what]:
                self._api.received.put(Answer(request_id, body, is_error=what == "error"))
            case _:
                self._reply(HTTPStatus.NOT_FOUND)
                return
        self._reply(HTTPStatus.ACCEPTED)

    def log_message(self, *_: object) -> None:
        """Log nothing: LocalStack logs the invocation."""

    def _reply(
        self, status: HTTPStatus, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        """Read a body, which may be chunked."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body
