"""A proxy before the emulator that turns mappings on and off as slowly as AWS does.

AWS accepts the change of a mapping, and carries it out in the background. Meanwhile the state is
`Enabling` or `Disabling`, and AWS refuses other changes with ResourceInUseException:
https://docs.aws.amazon.com/lambda/latest/api/API_UpdateEventSourceMapping.html
The emulators change a mapping at once.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_MAPPING = re.compile(r"/2015-03-31/event-source-mappings/([^/?]+)/?$")
# The headers of a connection, not of a request.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class SlowMappings:
    """The proxy: its address, and the changes that it has not carried out yet."""

    emulator: str
    delay_s: float
    # Whether a mapping that was turned on never reads its queue.
    broken: bool
    # Whether the caller may not change a mapping.
    denied: bool
    endpoint: str = ""
    refused: int = 0
    changing: dict[str, str] = field(default_factory=dict)
    on: set[str] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)
    timers: list[threading.Timer] = field(default_factory=list)

    def wait(self) -> None:
        """Wait until all changes are carried out."""
        for timer in self.timers:
            timer.join()

    def forward(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request to the emulator."""
        connection = HTTPConnection(urlsplit(self.emulator).netloc, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            kept = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in _HOP_BY_HOP
            }
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer a request as AWS does."""
        mapping = _MAPPING.match(path)
        if not mapping or method not in ("GET", "PUT"):
            return self.forward(method, path, headers, body)
        with self.lock:
            if method == "PUT":
                return self._change(mapping[1], path, headers, body)
            status, kept, described = self.forward(method, path, headers, body)
            if state := self.changing.get(mapping[1]):
                described = json.dumps(json.loads(described) | {"State": state}).encode()
            elif self.broken and mapping[1] in self.on:
                described = json.dumps(json.loads(described) | {"State": "Enabled"}).encode()
            return status, kept, described

    def _change(
        self, mapping: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if self.denied:
            error = {"Message": "not authorized to perform: lambda:UpdateEventSourceMapping"}
            return 403, {"x-amzn-errortype": "AccessDeniedException"}, json.dumps(error).encode()
        if mapping in self.changing:
            self.refused += 1
            error = {"Type": "User", "Message": f"The mapping is {self.changing[mapping]}."}
            kept = {"x-amzn-errortype": "ResourceInUseException"}
            return 400, kept, json.dumps(error).encode()
        enabled = json.loads(body)["Enabled"]
        state = "Enabling" if enabled else "Disabling"
        self.changing[mapping] = state

        def carry_out() -> None:
            with self.lock:
                if not (self.broken and enabled):
                    self.forward("PUT", path, headers, body)
                (self.on.add if enabled else self.on.discard)(mapping)
                del self.changing[mapping]

        timer = threading.Timer(self.delay_s, carry_out)
        self.timers.append(timer)
        timer.start()
        headers = {
            name: value for name, value in headers.items() if name.lower() != "content-length"
        }
        status, kept, described = self.forward("GET", path, headers, b"")
        return status, kept, json.dumps(json.loads(described) | {"State": state}).encode()


@contextmanager
def slow_mappings(
    emulator: str, *, delay_s: float = 1, broken: bool = False, denied: bool = False
) -> Iterator[SlowMappings]:
    """Start the proxy, and stop it at the end, after the last change."""
    proxy = SlowMappings(emulator, delay_s, broken, denied)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = proxy.answer(self.command, self.path, dict(self.headers.items()), body)
            status, headers, content = answer
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST = do_GET  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.wait()
        server.shutdown()
        server.server_close()
