"""`login-etl rotate`: an interruption at any place leaves a password that works."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from time import monotonic
from urllib.parse import urlsplit

import psycopg

from dev import stack
from dev.local_system import DATABASE
from dev.logins import failed, login, record
from e2e import program
from e2e.driver import Driver
from e2e.incidents import END_SESSIONS

INTERRUPTIONS = 20
# describe_stacks, invoke, get_secret_value, get_random_password, put_secret_value, invoke
CALLS = 6


def test_rotated_password_works_and_old_does_not(driver: Driver) -> None:
    old = _password(driver)

    rotated = program.run(driver.system.emulator, *_arguments(driver), "--json")

    name = driver.system.stack.name
    assert (rotated.status, rotated.result) == (0, {"stack": name, "roles": ["login_writer"]})
    assert _password(driver) != old
    assert _may_log_in(driver, _password(driver))
    assert not _may_log_in(driver, old)
    for secret in (old, _password(driver)):
        assert secret not in rotated.output + rotated.progress
    assert _new_process_writes(driver)


def test_rotation_without_an_answer_changes_nothing(driver: Driver) -> None:
    old = _password(driver)

    refused = program.run(driver.system.emulator, "--stack", driver.system.stack.name, "rotate")

    assert (refused.status, refused.output, _password(driver)) == (2, "", old)


def test_rotation_killed_at_any_call_leaves_working_password(driver: Driver) -> None:
    for sends_last in (False, True):
        for call in range(1, CALLS + 1):
            with _cut(driver, call, sends_last=sends_last) as process:
                killed = process.wait(timeout=120) == -9

            assert killed
            assert _new_process_writes(driver), f"call {call}, sent: {sends_last}"

    with _cut(driver, CALLS + 1, sends_last=False) as process:
        assert process.wait(timeout=120) == 0


def test_rotation_killed_at_random_leaves_a_working_password(driver: Driver) -> None:
    rng = Random(19)
    started = monotonic()
    assert program.run(driver.system.emulator, *_arguments(driver)).status == 0
    usual_s = monotonic() - started
    killed = 0

    for _ in range(INTERRUPTIONS):
        process = program.start(driver.system.emulator, *_arguments(driver))
        try:
            process.wait(timeout=rng.uniform(0, usual_s))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.communicate()
        assert _new_process_writes(driver)

    assert killed > INTERRUPTIONS / 2


def _arguments(driver: Driver) -> list[str]:
    return ["--stack", driver.system.stack.name, "--yes", "rotate"]


def _password(driver: Driver) -> str:
    return stack.writer_password(driver.system.emulator, driver.system.stack)


def _may_log_in(driver: Driver, password: str) -> bool:
    url = driver.system.postgres.url("login_writer", password, database=DATABASE)
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _new_process_writes(driver: Driver) -> bool:
    """Start a process, which does not know the password that another logged in with."""
    driver.configure()
    driver.query(END_SESSIONS)
    return driver.invoke(record(login())) == failed()


@contextmanager
def _cut(driver: Driver, call: int, *, sends_last: bool) -> Iterator[subprocess.Popen[str]]:
    """Run a rotation that is killed before a call, or before the answer to this call arrives."""
    emulator = urlsplit(driver.system.emulator.endpoint).netloc
    calls = 0
    started = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal calls
            calls += 1
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            started.wait()
            if calls == call and not sends_last:
                process.kill()
                process.wait()
                return
            connection = HTTPConnection(emulator, timeout=60)
            connection.request("POST", self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            if calls == call:
                process.kill()
                process.wait()
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    process = program.start(driver.system.emulator, *_arguments(driver), endpoint=endpoint)
    started.set()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        server.shutdown()
        server.server_close()
