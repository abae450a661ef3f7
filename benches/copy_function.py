"""The COPY function, a floor: receives each event, ignores it, and copies ready rows.

A function behind the Runtime API cannot do less and still write rows. What the function under test
takes longer is its own work: decoding, masking and the ledger.
"""

import os
import socket
import sys
from pathlib import Path

import psycopg

API = "/2018-06-01/runtime/invocation"
COPY = "COPY copied_logins FROM STDIN (FORMAT binary)"
ANSWER = b'{"batchItemFailures":[]}'


def main() -> None:
    """Poll for events and answer each, until the Runtime API closes the connection."""
    ready_rows = Path(os.environ["READY_ROWS"]).read_bytes()
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
    runtime = socket.create_connection((host, int(port)))
    runtime.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(1 << 24)
    while True:
        runtime.sendall(f"GET {API}/next HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        request_id = receive_response(runtime, buffer)
        with connection.cursor() as cursor, cursor.copy(COPY) as copy:
            copy.write(ready_rows)
        head = f"POST {API}/{request_id}/response HTTP/1.1\r\nHost: {host}\r\n"
        runtime.sendall(f"{head}Content-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER)
        receive_response(runtime, buffer)


def receive_response(runtime: socket.socket, buffer: bytearray) -> str | None:
    """Receive a response into the buffer; return its header with the request id, if any."""
    received = 0
    while (end := buffer.find(b"\r\n\r\n", 0, received)) < 0:
        received += receive(runtime, memoryview(buffer)[received:])
    lines = buffer[:end].decode().splitlines()[1:]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    length = end + 4 + int(headers["content-length"])
    while received < length:
        received += receive(runtime, memoryview(buffer)[received:length])
    return headers.get("lambda-runtime-aws-request-id")


def receive(runtime: socket.socket, free: memoryview) -> int:
    """Receive bytes into the free part of the buffer; exit if the connection is closed."""
    return runtime.recv_into(free) or sys.exit()


if __name__ == "__main__":
    main()
