"""Runs `login-etl page`, and acts as the browser."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from e2e.program import PROGRAM


@dataclass(frozen=True)
class Page:
    """A running `login-etl page`."""

    process: subprocess.Popen[str]
    url: str

    @property
    def host(self) -> str:
        """Name and port."""
        return urlsplit(self.url).netloc

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.host.removeprefix("127.0.0.1:"))

    @property
    def root(self) -> str:
        """The random path."""
        return urlsplit(self.url).path

    def send(
        self,
        method: str = "GET",
        path: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[HTTPResponse, bytes]:
        """Send a request below the random path, or to an absolute path."""
        path = path if path.startswith("/") else self.root + path
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read()

    def post(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Post a form, with the page's origin unless the headers have another."""
        sent = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": f"http://{self.host}",
        }
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        response, answer = self.send("POST", "search", sent, body)
        return response.status, answer

    def end(self, sent: signal.Signals = signal.SIGINT) -> tuple[int, list[str]]:
        """End the program; return its status and the lines of standard error."""
        self.process.send_signal(sent)
        output, progress = self.process.communicate(timeout=60)
        assert output == ""
        return self.process.returncode, progress.splitlines()


@contextmanager
def serving(home: Path, *arguments: str, **variables: str) -> Iterator[Page]:
    """Start the program in an empty folder, and with no more variables than it needs."""
    process = subprocess.Popen(
        [PROGRAM, "page", *arguments],
        cwd=home,
        env={
            "HOME": str(home),
            "AWS_EC2_METADATA_DISABLED": "true",
            **variables,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Page(process, process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()
