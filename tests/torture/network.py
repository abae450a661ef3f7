"""A TCP proxy that can refuse and cut connections, and delay and drop bytes."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

CHUNK = 1 << 16


class Direction(Enum):
    """The direction of bytes through a proxy."""

    TO_SERVER = "to the server"
    TO_FUNCTION = "to the function"


@dataclass(eq=False)
class Cut:
    """Cuts the connection that carries the n-th byte from now on, after that byte."""

    direction: Direction
    bytes_left: int
    reset: bool
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class Connection:
    """Both ends of a connection through a proxy, and whether bytes were dropped."""

    ends: tuple[StreamWriter, StreamWriter]
    lost_bytes: bool = False

    def close(self, *, reset: bool) -> None:
        """Close both ends, with a TCP reset if `reset` is set."""
        for end in self.ends:
            if reset and not end.is_closing():
                # A linger time of 0 sends a reset: https://man7.org/linux/man-pages/man7/socket.7.html
                linger = struct.pack("ii", 1, 0)
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.transport.abort()


class Proxy:
    """A proxy to a server, on a fixed port."""

    def __init__(self, target: tuple[str, int], port: int) -> None:
        """Store the target; `open` starts to listen."""
        self.port = port
        self.delay_s = 0.0
        self.black_hole = False
        self.cut: Cut | None = None
        self.canned_response: bytes | None = None
        self._target = target
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def open(self) -> None:
        """Accept connections."""
        self._listener = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, limit=CHUNK
        )

    def refuse(self) -> None:
        """Refuse new connections, and reset open ones."""
        self._listener.close()
        self.close_all(reset=True)

    def close_all(self, *, reset: bool = False) -> None:
        """Close all open connections."""
        for connection in list(self._connections):
            connection.close(reset=reset)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        if response := self.canned_response:
            with suppress(OSError):
                await reader.read(CHUNK)
                writer.write(response)
                await writer.drain()
            writer.close()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection((writer, server_writer))
        self._connections.add(connection)
        try:
            # A cancellation ends here: this coroutine is the whole task.
            with suppress(asyncio.CancelledError):
                async with asyncio.TaskGroup() as both:
                    both.create_task(
                        self._forward(connection, Direction.TO_SERVER, reader, server_writer)
                    )
                    both.create_task(
                        self._forward(connection, Direction.TO_FUNCTION, server_reader, writer)
                    )
        finally:
            self._connections.discard(connection)
            connection.close(reset=False)

    async def _forward(
        self, connection: Connection, direction: Direction, source: StreamReader, sink: StreamWriter
    ) -> None:
        try:
            while data := await source.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                # After one dropped byte, TLS could not decrypt any later byte: drop all of them.
                connection.lost_bytes |= self.black_hole
                if connection.lost_bytes:
                    continue
                cut = self.cut
                if cut is not None and cut.direction is direction:
                    data, cut.bytes_left = data[: cut.bytes_left], cut.bytes_left - len(data)
                    if cut.bytes_left <= 0:
                        self.cut = None
                        await self._cut(connection, sink, data, cut)
                        return
                sink.write(data)
                await sink.drain()
            if not connection.lost_bytes:
                sink.write_eof()
        except OSError:
            connection.close(reset=False)

    async def _cut(self, connection: Connection, sink: StreamWriter, last: bytes, cut: Cut) -> None:
        cut.done.set()
        sink.write(last)
        await sink.drain()
        connection.close(reset=cut.reset)
