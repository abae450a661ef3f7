"""A proxy in front of the emulator's S3 that answers some requests itself, as a busy S3 does."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from time import sleep
from urllib.parse import urlsplit

from dev.emulator import Emulator

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of its answer."""

    status: int = 0  # of the answer; 0 closes the connection
    code: str = ""
    after_work: bool = False  # the emulator does what was requested, and only its answer is lost
    silent_s: float = 0


SLOW_DOWN = Fault(503, "SlowDown")
INTERNAL_ERROR = Fault(500, "InternalError")
DISCONNECT = Fault()
LOST_ANSWER = Fault(after_work=True)


@dataclass
class Proxy:
    """A running proxy; `decide` returns the fault of a request, by its method, path and number."""

    port: int
    decide: Callable[[str, str, int], Fault | None] = lambda *_: None
    requests: list[str] = field(default_factory=list)
    faults: int = 0
    _lock: Lock = field(default_factory=Lock)

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, method: str, path: str) -> Fault | None:
        """Note a request, and return its fault."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            fault = self.decide(method, path, len(self.requests))
            self.faults += fault is not None
            return fault


@contextmanager
def to(emulator: Emulator) -> Iterator[Proxy]:
    """Run a proxy to an emulator."""
    target = urlsplit(emulator.endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault(self.command, self.path)
            if fault is None or fault.after_work:
                answer = self._forward(body)
            if fault is None:
                self._answer(*answer)
            else:
                self._fail(fault)

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
            try:
                # With the headers as they were signed, that of the host among them.
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in HOP_BY_HOP - {"content-length"}:
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    self.send_header(name, value)
            lengths = [value for name, value in headers if name.lower() == "content-length"]
            # The answer to HEAD has the length of an object, and no body.
            self.send_header("Content-Length", lengths[0] if lengths else str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _fail(self, fault: Fault) -> None:
            sleep(fault.silent_s)
            if fault.status == 0:
                self.close_connection = True
                return
            error = f"<Error><Code>{fault.code}</Code><Message>of the test</Message></Error>"
            self._answer(fault.status, [("Content-Type", "application/xml")], error.encode())

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler.handle_request)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            # The client of the test was killed, or has stopped waiting.
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = Proxy(server.server_address[1])
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            with suppress(OSError):
                server.shutdown()
