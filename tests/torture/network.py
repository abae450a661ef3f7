"""A TCP proxy whose weather can be changed: it refuses, cuts, delays, or swallows what comes."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

CHUNK = 1 << 16


class Way(Enum):
    """A direction."""

    UP = "to the server"
    DOWN = "to the function"


@dataclass(eq=False)
class Cut:
    """An order to cut the connection that carries the n-th byte from now on, after that byte."""

    way: Way
    bytes_left: int
    reset: bool
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class Connection:
    """A connection: both of its ends, and whether bytes of it were lost."""

    ends: tuple[StreamWriter, StreamWriter]
    lost: bool = False

    def close(self, *, reset: bool) -> None:
        """Close both ends, in good order or not."""
        for end in self.ends:
            if reset and not end.is_closing():
                # To linger for no time is to reset: https://man7.org/linux/man-pages/man7/socket.7.html
                linger = struct.pack("ii", 1, 0)
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.transport.abort()


class Proxy:
    """A way to a server, with a port that stays the same."""

    def __init__(self, target: tuple[str, int], port: int) -> None:
        """Prepare; nothing listens yet."""
        self.port = port
        self.delay_s = 0.0
        self.silent = False
        self.cut: Cut | None = None
        self.instead: bytes | None = None
        self._target = target
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def open(self) -> None:
        """Take connections."""
        self._listener = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, limit=CHUNK
        )

    def refuse(self) -> None:
        """Let the kernel refuse connections, and reset those that there are."""
        self._listener.close()
        self.close_all(reset=True)

    def close_all(self, *, reset: bool = False) -> None:
        """Close the connections that there are."""
        for connection in list(self._connections):
            connection.close(reset=reset)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        if instead := self.instead:
            with suppress(OSError):
                await reader.read(CHUNK)
                writer.write(instead)
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
            # Who is cancelled here is at the top of its task: there is nobody above to be told.
            with suppress(asyncio.CancelledError):
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(connection, Way.UP, reader, server_writer))
                    both.create_task(self._pump(connection, Way.DOWN, server_reader, writer))
        finally:
            self._connections.discard(connection)
            connection.close(reset=False)

    async def _pump(
        self, connection: Connection, way: Way, source: StreamReader, sink: StreamWriter
    ) -> None:
        try:
            while data := await source.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                # Who has missed a byte is never spoken to again: it would be no use to TLS.
                connection.lost |= self.silent
                if connection.lost:
                    continue
                cut = self.cut
                if cut is not None and cut.way is way:
                    data, cut.bytes_left = data[: cut.bytes_left], cut.bytes_left - len(data)
                    if cut.bytes_left <= 0:
                        self.cut = None
                        await self._cut(connection, sink, data, cut)
                        return
                sink.write(data)
                await sink.drain()
            if not connection.lost:
                sink.write_eof()
        except OSError:
            connection.close(reset=False)

    async def _cut(self, connection: Connection, sink: StreamWriter, last: bytes, cut: Cut) -> None:
        cut.done.set()
        sink.write(last)
        await sink.drain()
        connection.close(reset=cut.reset)
