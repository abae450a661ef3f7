"""Clients that each send the next request as soon as they have the last answer.

They are raw sockets in one thread, and a request takes them 17 µs of processor time. With an HTTP
library, the clients would take more of the cores than the server that they measure.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

CHUNK = 1 << 16
ANSWERS = (b"HTTP/1.1 200 ", b"HTTP/1.1 304 ")


@dataclass
class Client:
    """A connection that is kept, and the answer that it waits for."""

    connection: socket.socket
    sent_at: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def send(self, request: bytes) -> None:
        """Send a request, whose answer the caller then receives."""
        self.received.clear()
        self.sent_at = time.perf_counter()
        self.connection.sendall(request)

    def receive(self) -> bool:
        """Read the bytes that have arrived; return whether the answer is complete."""
        arrived = self.connection.recv(CHUNK)
        self.received += arrived
        if not arrived or not self.received.startswith(ANSWERS):
            raise RuntimeError(f"the server answered: {bytes(self.received[:300])!r}")
        head_end = self.received.find(b"\r\n\r\n") + 4
        return head_end > 3 and len(self.received) >= head_end + _length(self.received[:head_end])


@dataclass(frozen=True)
class Load:
    """The time of each request, and how many seconds all took together."""

    latencies_s: list[float]
    elapsed_s: float
    # Of the clients. Near the elapsed time, they and not the server are measured.
    cpu_s: float
    # In bytes.
    largest_answer: int

    def percentile_ms(self, percent: int) -> float:
        """Return the latency that this share of the requests does not exceed."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1e3

    @property
    def requests_s(self) -> float:
        """The number of answers a second."""
        return len(self.latencies_s) / self.elapsed_s


def request(path: str, body: str | None = None, **headers: str) -> bytes:
    """Write a GET request, or a POST request with a JSON body."""
    method = "GET" if body is None else "POST"
    if body is not None:
        headers |= {"content_type": "application/json", "content_length": str(len(body))}
    headers = {"host": "localhost", "accept": "application/json", **headers}
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body or ""]).encode()


def run(port: int, requests: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Send the requests in turn, over and over, for some seconds."""
    latencies_s: list[float] = []
    number = largest_answer = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            client = Client(socket.create_connection(("127.0.0.1", port)))
            client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(client.connection, selectors.EVENT_READ, client)
        cpu, started = time.process_time(), time.perf_counter()
        for key in list(selector.get_map().values()):
            key.data.send(requests[number % len(requests)])
            number += 1
        waiting = clients
        while waiting:
            for key, _ in selector.select():
                if not key.data.receive():
                    continue
                now = time.perf_counter()
                latencies_s.append(now - key.data.sent_at)
                largest_answer = max(largest_answer, len(key.data.received))
                if now - started < seconds:
                    key.data.send(requests[number % len(requests)])
                    number += 1
                else:
                    selector.unregister(key.fileobj)
                    key.data.connection.close()
                    waiting -= 1
        elapsed_s = time.perf_counter() - started
        return Load(latencies_s, elapsed_s, time.process_time() - cpu, largest_answer)


def _length(head: bytes) -> int:
    """Return the length of the body; a 304 has none."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0
