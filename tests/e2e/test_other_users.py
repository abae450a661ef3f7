"""Other users of this machine, and web pages, cannot use the running system."""

import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import sleep
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from botocore.exceptions import ClientError

from dev import EVENTS, emulator, local_system, postgres, processes
from dev.emulator import Emulator, Kind
from e2e import function
from e2e.driver import Driver

pytestmark = pytest.mark.own_localstack("inspects the processes of an emulator started here")

LOOPBACK = "127.0.0.1"
WELL_KNOWN_KEYS = [
    "test",
    "000000000000",
    "123456789012",
    "__internal_call__",
    "ASIAIOSFODNN7EXAMPLE",
]
UNSIGNED_PATHS = ["/", "/_ministack/sqs/messages", "/_ministack/config", "/_localstack/init"]
POLL = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Impostor(BaseHTTPRequestHandler):
    """Answers like a healthy emulator."""

    def do_GET(self) -> None:
        """Answer every request."""
        self.send_response(HTTPStatus.OK)
        self.end_headers()


def test_servers_listen_on_loopback_only(driver: Driver) -> None:
    driver.invoke_file(EVENTS / "good.json")
    servers = [driver.system.postgres.process, driver.system.emulator.process]

    addresses = {address for server in servers for address, _ in _listeners(server.pid)}

    assert addresses == {LOOPBACK}


@pytest.mark.parametrize("key", WELL_KNOWN_KEYS)
def test_well_known_access_key_is_refused(driver: Driver, key: str) -> None:
    stranger = replace(driver.system.emulator, key=key)

    refusals = [
        _refusal(stranger, "secretsmanager", "list_secrets"),
        _refusal(stranger, "lambda", "list_functions"),
        _refusal(stranger, "s3", "list_buckets"),
        _refusal(stranger, "sqs", "list_queues"),
        _refusal(stranger, "iam", "list_roles"),
    ]

    assert refusals == [403] * 5


@pytest.mark.parametrize("path", UNSIGNED_PATHS)
def test_unsigned_request_is_refused(driver: Driver, path: str) -> None:
    assert _status(driver.system.emulator, path) == 403


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_open_path_of_another_method_is_refused(driver: Driver, method: str) -> None:
    headers = {"X-Amz-Target": "secretsmanager.ListSecrets"}

    status = _status(
        driver.system.emulator, "/_ministack/cfn-response/x", "test", headers, method=method
    )

    assert status == 403


@pytest.mark.as_root
def test_functions_key_of_other_user_is_refused(driver: Driver) -> None:
    driver.invoke_file(EVENTS / "good.json")
    [running, *_] = function.processes(driver.system.stack)
    key = running.environ()["AWS_ACCESS_KEY_ID"]

    own = _status(driver.system.emulator, "/?Action=GetCallerIdentity", key)
    with _as_nobody():
        others = _status(driver.system.emulator, "/?Action=GetCallerIdentity", key)

    assert own != 403
    assert others == 403


@pytest.mark.as_root
def test_runtime_api_gives_other_users_nothing(driver: Driver) -> None:
    gateway = urlsplit(driver.system.emulator.endpoint).port
    driver.invoke_file(EVENTS / "good.json")
    ports = {port for _, port in _listeners(driver.system.emulator.process.pid)} - {gateway}

    with _as_nobody():
        polls = [socket.create_connection((LOOPBACK, port)) for port in ports]
    for poll in polls:
        poll.sendall(POLL)
    answer = driver.invoke_file(EVENTS / "good.json")

    assert answer == {"batchItemFailures": []}
    assert ports
    assert [_received(poll) for poll in polls] == [b""] * len(ports)


@pytest.mark.parametrize(
    ("host", "header"),
    [("rebound.example", ""), (LOOPBACK, "Sec-Fetch-Site: cross-site\r\n")],
)
def test_web_page_gets_no_event(driver: Driver, host: str, header: str) -> None:
    driver.invoke_file(EVENTS / "good.json")
    [running, *_] = function.processes(driver.system.stack)
    port = urlsplit(f"//{running.environ()['AWS_LAMBDA_RUNTIME_API']}").port
    poll = POLL.decode().replace(f"Host: {LOOPBACK}\r\n", f"Host: {host}:{port}\r\n{header}")

    with socket.create_connection((LOOPBACK, port)) as page:
        page.sendall(poll.encode())
        page.settimeout(5)
        refusal = page.recv(1024)

    assert refusal.startswith(b"HTTP/1.1 403 ")
    assert driver.invoke_file(EVENTS / "good.json") == {"batchItemFailures": []}


def test_impostor_on_the_emulators_port_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = local_system.make_directory()
    with ThreadingHTTPServer((LOOPBACK, 0), Impostor) as impostor:
        Thread(target=impostor.serve_forever, daemon=True).start()
        monkeypatch.setattr(processes, "free_port", lambda: impostor.server_port)
        with pytest.raises(RuntimeError, match="did not start"):
            emulator.start(Kind.MINISTACK, directory / "emulator", directory / "log")
        impostor.shutdown()
    shutil.rmtree(directory)


def test_printed_psql_command_hides_its_password(driver: Driver) -> None:
    command = driver.system.psql("analyst")

    assignment, arguments = command.split(" ", maxsplit=1)

    password = driver.system.passwords["analyst"]
    assert assignment == f"PGPASSWORD={password}"
    assert password not in arguments
    assert arguments.startswith("psql 'postgresql://analyst@127.0.0.1:")


def test_password_file_of_initdb_is_private() -> None:
    directory = local_system.make_directory()
    modes: set[int] = set()
    observer = Thread(target=_observe, args=(directory / "postgres" / "password", modes))
    observer.start()

    server = postgres.create(directory / "postgres", directory / "postgres.log")
    server.stop()
    observer.join()
    shutil.rmtree(directory)

    assert modes == {0o600}


def _observe(file: Path, modes: set[int]) -> None:
    """Record the permissions of a file from its creation until its removal."""
    while not modes or file.exists():
        with suppress(FileNotFoundError):
            modes.add(file.stat().st_mode & 0o777)
        sleep(0.001)


def _listeners(pid: int) -> set[tuple[str, int]]:
    """Return the addresses that a server and its child processes listen on."""
    server = psutil.Process(pid)
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in [server, *server.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def _refusal(endpoint: Emulator, service: str, operation: str) -> int:
    with pytest.raises(ClientError) as refused:
        getattr(endpoint.client(service), operation)()
    return refused.value.response["ResponseMetadata"]["HTTPStatusCode"]


def _status(
    endpoint: Emulator,
    path: str,
    key: str | None = None,
    headers: dict[str, str] | None = None,
    method: str = "GET",
) -> int:
    """Send a request, which names an access key but has no signature."""
    credential = f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/sts/aws4_request"
    signed = {"Authorization": credential} if key else {}
    request = Request(f"{endpoint.endpoint}{path}", headers=signed | (headers or {}), method=method)
    try:
        with urlopen(request, timeout=5) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def _received(connection: socket.socket) -> bytes:
    """Return what a connection receives, at most for a second."""
    connection.settimeout(1)
    try:
        return connection.recv(1024)
    except (TimeoutError, ConnectionResetError):
        return b""
    finally:
        connection.close()


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Act as another user: the sockets opened meanwhile are this user's."""
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
