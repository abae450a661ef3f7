"""A TCP proxy that delays every byte, as a longer network path would.

It uses threads, because asyncio's timers have a resolution of 1 ms.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue

CHUNK = 1 << 18


@dataclass
class Proxy:
    """A proxy to a server; `delay_s` can be changed while it runs."""

    target: tuple[str, int]
    delay_s: float = 0.0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.getsockname()[1]

    def serve(self) -> None:
        """Accept connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            # The kernel has accepted the client without a delay. Over a longer path, the client
            # would have sent its first bytes one round trip later.
            opened = time.monotonic() + 2 * self.delay_s
            self._pump(client, server, opened)
            self._pump(server, client, opened)

    def close(self) -> None:
        """Accept no more connections. Open ones are closed when either end closes."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pump(self, source: socket.socket, sink: socket.socket, opened: float) -> None:
        in_transit: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _in_background(self._receive, source, in_transit, opened)
        _in_background(_deliver, in_transit, sink)

    def _receive(
        self, source: socket.socket, in_transit: SimpleQueue[tuple[float, bytes]], opened: float
    ) -> None:
        data = b"."
        while data:
            try:
                data = source.recv(CHUNK)
            except ConnectionError:
                data = b""
            in_transit.put((max(time.monotonic(), opened) + self.delay_s, data))


def _deliver(in_transit: SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
    """Send each chunk when it is due; an empty chunk closes the connection."""
    try:
        while True:
            due, data = in_transit.get()
            time.sleep(max(0, due - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
    except OSError:
        return  # the other side has closed, and its empty chunk is in transit


def _in_background(target: object, *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


@contextmanager
def to(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy to a server."""
    proxy = Proxy((host, port))
    _in_background(proxy.serve)
    try:
        yield proxy
    finally:
        proxy.close()
