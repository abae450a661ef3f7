"""An S3 that keeps nothing: `null_s3.py PORT`.

The emulator takes a part of the machine's time to hash and to keep what it receives. S3 does this
on machines of its own.
"""

import socket
import sys
from threading import Thread
from typing import BinaryIO

CHUNK = 1 << 18
BEGUN = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b'<CompleteMultipartUploadResult><ETag>"0"</ETag></CompleteMultipartUploadResult>'


def main() -> None:
    """Accept connections without end."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Thread(target=_serve, args=(client,), daemon=True).start()


def _serve(client: socket.socket) -> None:
    with client, client.makefile("rb", CHUNK) as requests:
        while first := requests.readline():
            method, target, _ = first.split()
            headers = _headers(requests)
            if headers.get(b"expect"):
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            _discard(requests, int(headers.get(b"content-length", 0)))
            client.sendall(_answer(method, target))


def _headers(requests: BinaryIO) -> dict[bytes, bytes]:
    headers = {}
    while line := requests.readline().strip():
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    return headers


def _discard(requests: BinaryIO, length: int) -> None:
    while length:
        length -= len(requests.read(min(length, CHUNK)))


def _answer(method: bytes, target: bytes) -> bytes:
    body = b""
    if method == b"POST":
        body = COMPLETED if b"uploadId=" in target else BEGUN
    head = f'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: {len(body)}\r\n\r\n'
    return head.encode() + body


if __name__ == "__main__":
    main()
