"""The least that a function can be: takes each event off the wire, unread, and copies ready rows.

The rest of any invocation is this much: what is measured beside it is what a function adds.
"""

import os
import socket
import sys
from pathlib import Path

import psycopg

API = "/2018-06-01/runtime/invocation"
COPY = "COPY floor FROM STDIN (FORMAT binary)"
ANSWER = b'{"batchItemFailures":[]}'


def main() -> None:
    """Poll for events and answer them, for ever."""
    ready = Path(os.environ["READY_ROWS"]).read_bytes()
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
    runtime = socket.create_connection((host, int(port)))
    runtime.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(1 << 24)
    while True:
        runtime.sendall(f"GET {API}/next HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        request_id = receive(runtime, buffer)
        with connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.write(ready)
        head = f"POST {API}/{request_id}/response HTTP/1.1\r\nHost: {host}\r\n"
        runtime.sendall(f"{head}Content-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER)
        receive(runtime, buffer)


def receive(runtime: socket.socket, buffer: bytearray) -> str | None:
    """Receive a response into the buffer, and return the id of the request that it names."""
    received = 0
    while (end := buffer.find(b"\r\n\r\n", 0, received)) < 0:
        received += take(runtime, memoryview(buffer)[received:])
    lines = buffer[:end].decode().splitlines()[1:]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    whole = end + 4 + int(headers["content-length"])
    while received < whole:
        received += take(runtime, memoryview(buffer)[received:whole])
    return headers.get("lambda-runtime-aws-request-id")


def take(runtime: socket.socket, room: memoryview) -> int:
    """Take what has come, or end with the Runtime API."""
    return runtime.recv_into(room) or sys.exit()


if __name__ == "__main__":
    main()
