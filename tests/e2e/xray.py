"""Simulates X-Ray's daemon, which receives traces as datagrams."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

LARGEST = 65_535


@contextmanager
def daemon(traces: list[str]) -> Iterator[str]:
    """Yield an address; collect the datagrams that are sent to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        host, port = receiver.getsockname()
        collecting = Thread(target=_collect, args=(receiver, traces))
        collecting.start()
        try:
            yield f"{host}:{port}"
        finally:
            receiver.sendto(b"", (host, port))
            collecting.join()


def _collect(receiver: socket.socket, traces: list[str]) -> None:
    # An empty datagram ends the loop.
    while datagram := receiver.recv(LARGEST):
        traces.append(datagram.decode())
