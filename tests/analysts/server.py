"""The programs under test: a Postgres that is rolled up, and the API as a plain server."""

import http.client
import json
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from analysts import sample
from dev import demo, local_system, postgres, processes
from dev.local_system import DATABASE
from dev.postgres import LOOPBACK, Postgres
from dev.processes import Process

# A slow machine needs seconds for an answer; a test that waits for this long has failed.
TIMEOUT_S = 30


@dataclass(frozen=True)
class Answer:
    """An answer of the API."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 (the shape depends on the request)
        """The JSON document that is the body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Database:
    """A Postgres with the sample logins, rolled up, and the password of the API's role."""

    postgres: Postgres
    password: str
    logs: Path

    def connect(self) -> psycopg.Connection:
        """Connect as the owner."""
        return self.postgres.connect(DATABASE)


@dataclass(frozen=True)
class Api:
    """A running API."""

    database: Database
    process: Process
    port: int
    log: Path

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.port}"

    def send(
        self,
        method: str,
        target: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request whose target is not encoded any further; return the answer."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=TIMEOUT_S)
        try:
            # The server may answer, and close the connection, before it has read a large body.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        """Send a GET request; an underscore in a header's name stands for a hyphen."""
        return self.send("GET", target, headers=_named(headers))

    def post(self, target: str, body: object, **headers: str) -> Answer:
        """Send a JSON document."""
        headers = {"Content-Type": "application/json", **_named(headers)}
        return self.send("POST", target, json.dumps(body), headers)

    def open(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection((LOOPBACK, self.port), timeout=TIMEOUT_S)

    def send_bytes(self, request: bytes) -> bytes:
        """Send bytes, and return what the server sends until it closes the connection."""
        received = b""
        with self.open() as connection, suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
            with suppress(OSError):  # the server has ended the connection already
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                received += part
        return received


@contextmanager
def database(logs: Path, settings: Mapping[str, str] | None = None) -> Iterator[Database]:
    """Start a Postgres with the sample logins, rolled up."""
    directory = local_system.make_directory()
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(mode=0o700, parents=True)
    server = None
    try:
        server = postgres.create(
            directory / "postgres", logs / "postgres.log", dict(settings or {})
        )
        local_system.create_database(server)
        with server.connect(DATABASE) as owner:
            sample.fill(owner)
        demo.roll_up(server)
        demo.let_api_log_in(server, DATABASE)
        yield Database(server, server.password, logs)
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running(database: Database, name: str = "api", **variables: str) -> Iterator[Api]:
    """Start the API, and stop it at the end; variables change its environment."""
    port, log = processes.free_port(), database.logs / f"{name}.log"
    process = local_system.start_api(database.postgres, database.password, port, log, **variables)
    try:
        yield Api(database, process, port, log)
    finally:
        processes.stop(process)


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
