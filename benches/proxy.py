"""A TCP proxy that holds back every byte for a while, as a longer way would.

Threads, because asyncio waits in whole milliseconds.
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
    """A way to a server, as long as `delay_s` says at the moment."""

    target: tuple[str, int]
    delay_s: float = 0.0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.getsockname()[1]

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            # The kernel has answered the client at once: what the client says first, it would have
            # said a round trip later.
            opened = time.monotonic() + 2 * self.delay_s
            self._pump(client, server, opened)
            self._pump(server, client, opened)

    def close(self) -> None:
        """Take no more connections; those that are open end with their ends."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _pump(self, source: socket.socket, sink: socket.socket, opened: float) -> None:
        underway: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _in_background(self._receive, source, underway, opened)
        _in_background(_deliver, underway, sink)

    def _receive(
        self, source: socket.socket, underway: SimpleQueue[tuple[float, bytes]], opened: float
    ) -> None:
        data = b"."
        while data:
            try:
                data = source.recv(CHUNK)
            except ConnectionError:
                data = b""
            underway.put((max(time.monotonic(), opened) + self.delay_s, data))


def _deliver(underway: SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
    """Deliver what is underway when it is due; the end of it, too."""
    try:
        while True:
            due, data = underway.get()
            time.sleep(max(0, due - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
    except OSError:
        return  # the other side has gone, and its own end is underway


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
