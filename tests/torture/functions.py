"""Several processes of the function, each behind a Runtime API of its own.

The API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.
"""

import asyncio
import json
import random
import shutil
import signal
import time
from asyncio import Future, StreamReader, StreamWriter
from collections import Counter
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil

from dev import processes
from dev.stack import PACKAGE
from torture import RESULTS, cores
from torture.proxied_servers import ProxiedServers
from torture.sqs import ENDED, TIMED_OUT, Answer, Delivery, Queue

BOOTSTRAP = RESULTS / "bootstrap"
LOGS = RESULTS / "functions"
DEADLINES_S = [1.0, 1.5, 2.0, 3.0]
# Without faults, only a busy machine makes an invocation slow.
FAULTLESS_DEADLINE_S = 10.0
COLD_START_TIMEOUT_S = 15
# The longest pause after a failed invocation.
MAX_RETRY_PAUSE_S = 0.1
# How long a function may run on after its deadline. On Lambda none may.
OVERTIME_S = 6
EXIT_POLL_S = 0.02
IDLE_S = 0.05


class RuntimeApi:
    """The Runtime API of one process."""

    def __init__(self, log: Path) -> None:
        """Write all answers to a log; `open` starts the server."""
        self._log = log
        self.polled = asyncio.Event()
        self.port = 0
        self._listener: asyncio.Server | None = None
        self._events: asyncio.Queue[tuple[str, float, bytes]] = asyncio.Queue()
        self._answers: dict[str, Future[bytes]] = {}
        self._served: set[asyncio.Task] = set()

    async def open(self) -> None:
        """Start the server."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Close the listener and all connections."""
        self._listener.close()
        for task in self._served:
            task.cancel()

    def send(self, event: bytes, deadline_s: float) -> Future[bytes]:
        """Send an event; the result is the body of the answer."""
        request_id = str(uuid4())
        self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._events.put_nowait((request_id, time.time() + deadline_s, event))
        return self._answers[request_id]

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._served.add(asyncio.current_task())
        with suppress(OSError, EOFError, asyncio.CancelledError):
            while True:
                path, body = await _read(reader)
                if path.endswith("/next"):
                    self.polled.set()
                    event = await self._events.get()
                    self.polled.clear()
                    writer.write(_event(*event))
                else:
                    with self._log.open("ab") as log:
                        log.write(body + b"\n")
                    *_, request_id, _suffix = path.split("/")
                    self._answers.pop(request_id).set_result(body)
                    writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        writer.close()


def _event(request_id: str, deadline: float, event: bytes) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\n"
        f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {deadline * 1000:.0f}\r\n"
        "Lambda-Runtime-Invoked-Function-Arn: "
        "arn:aws:lambda:us-east-1:123456789012:function:torture\r\n"
        f"Content-Length: {len(event)}\r\n\r\n"
    )
    return head.encode() + event


async def _read(reader: StreamReader) -> tuple[str, bytes]:
    """Read a request, whose body may be chunked; return its path and body."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    path = first.split()[1]
    if "transfer-encoding: chunked" not in lines:
        lengths = [line.split(": ")[1] for line in lines if line.startswith("content-length: ")]
        return path, await reader.readexactly(int(*lengths))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return path, body


class Function:
    """A process of the function, from its cold start to its end."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        """Store the settings; `start` starts the process."""
        self.name = name
        self.started = False
        self.frozen = False
        self.was_frozen = False
        self.runtime = RuntimeApi(LOGS / f"{name}-answers.log")
        self._environment = environment
        self._process: processes.Process | None = None
        self._exit: asyncio.Task | None = None

    async def start(self) -> bool:
        """Start the process; return whether it polled for an event."""
        await self.runtime.open()
        lambda_variables = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.runtime.port}",
            "AWS_LAMBDA_FUNCTION_NAME": "torture",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        }
        self._process = processes.start(
            [BOOTSTRAP],
            log=LOGS / f"{self.name}.log",
            cwd=cores.WORKING,
            env=self._environment | lambda_variables,
        )
        with suppress(psutil.NoSuchProcess):
            cores.allow(self._process.pid)
        self._exit = asyncio.create_task(self._wait_for_exit())
        polled = asyncio.create_task(self.runtime.polled.wait())
        await asyncio.wait(
            [polled, self._exit], timeout=COLD_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        polled.cancel()
        self.started = self.runtime.polled.is_set()
        return self.started

    async def invoke(self, event: bytes, deadline_s: float, *, kill_late: bool) -> Answer:
        """Send an event; return the answer if it arrives before the deadline.

        Lambda kills a late function. Without `kill_late` it runs on while its batch is redelivered.
        """
        self.was_frozen = self.frozen
        answer = self.runtime.send(event, deadline_s)
        await self._wait_for(answer, deadline_s)
        if answer.done():
            return _parse_answer(answer.result())
        if self.ended:
            return Answer(ENDED)
        if kill_late:
            self.kill()
        return Answer(TIMED_OUT)

    async def wait_for_late_poll(self) -> bool:
        """Let a late function run on; return whether it polls for its next event."""
        polled = asyncio.create_task(self.runtime.polled.wait())
        await self._wait_for(polled, OVERTIME_S)
        polled.cancel()
        return self.runtime.polled.is_set() and not self.ended

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._exit.done()

    def kill(self) -> None:
        """Kill the process."""
        self._signal(signal.SIGKILL)

    def abort(self) -> None:
        """Let the process abort, as a failed assertion in a C library does."""
        self._signal(signal.SIGABRT)

    def freeze(self) -> None:
        """Freeze the process, as Lambda does between invocations."""
        self.frozen = self.was_frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process continue."""
        self.frozen = False
        self._signal(signal.SIGCONT)

    async def end(self) -> None:
        """Stop the process and its Runtime API."""
        self.runtime.close()
        if self._process is not None:
            self.kill()
            await self._exit

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and processes.alive(self._process):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(self._process.pid).send_signal(number)

    async def _wait_for_exit(self) -> None:
        while processes.alive(self._process):
            await asyncio.sleep(EXIT_POLL_S)
        processes.stop(self._process)

    async def _wait_for(self, future: Future, timeout_s: float) -> None:
        await asyncio.wait(
            [future, self._exit], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )


def _parse_answer(answer: bytes) -> Answer:
    parsed = json.loads(answer)
    if "errorType" in parsed:
        return Answer(parsed["errorType"])
    failures = parsed["batchItemFailures"]
    return Answer(failed_ids=tuple(failure["itemIdentifier"] for failure in failures))


class Fleet:
    """Several functions at the same time: each is invoked with one batch after the other."""

    def __init__(self, servers: ProxiedServers, queues: list[Queue], seed: str) -> None:
        """Copy the program; `run` starts the functions."""
        self.functions: dict[str, Function] = {}
        self.cold_starts: Counter[str] = Counter()
        self.late: list[Delivery] = []
        self._servers = servers
        self._queues = queues
        self._seed = seed
        shutil.rmtree(LOGS, ignore_errors=True)
        # A build during the run would replace the original.
        shutil.copy(PACKAGE / "bootstrap", BOOTSTRAP)

    async def run(self, size: int) -> None:
        """Run this many functions until the queues are closed and empty."""
        async with asyncio.TaskGroup() as fleet:
            for number in range(size):
                fleet.create_task(self._keep_running(f"function-{number}"))

    @property
    def done(self) -> bool:
        """Whether all queues are closed and empty."""
        return all(queue.closed and queue.empty for queue in self._queues)

    async def _keep_running(self, name: str) -> None:
        """Start a function, and start it again whenever it ends."""
        rng = random.Random(f"{self._seed} {name}")
        while not self.done:
            function = self.functions[name] = Function(name, self._servers.environment)
            try:
                started = await function.start()
                self.cold_starts["started" if started else "failed"] += 1
                if started:
                    await self._invoke_repeatedly(function, rng)
            finally:
                await function.end()

    async def _invoke_repeatedly(self, function: Function, rng: random.Random) -> None:
        """Invoke a function until it ends, or until all queues are empty."""
        while not self.done and not function.ended:
            queue = rng.choices(self._queues, [85, 15])[0]
            deadline_s = FAULTLESS_DEADLINE_S if queue.closed else rng.choice(DEADLINES_S)
            kill_late = rng.random() >= 0.5
            delivery = queue.receive(function.name, deadline_s, tuple(self._servers.active_faults))
            if delivery is None:
                await asyncio.sleep(IDLE_S)
                continue
            event = json.dumps(delivery.event()).encode()
            answer = await function.invoke(event, deadline_s, kill_late=kill_late)
            queue.settle(delivery, answer)
            if answer.error_type is not None:
                await asyncio.sleep(rng.uniform(0, MAX_RETRY_PAUSE_S))
            if answer.error_type == TIMED_OUT:
                if not function.was_frozen:
                    self.late.append(delivery)
                if kill_late or not await function.wait_for_late_poll():
                    return
