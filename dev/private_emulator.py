"""Runs an emulator's module so that only this run can use it: `private_emulator.py MODULE`.

Each local user can connect to a loopback port, and a web page can make its reader's browser do so.
The emulators accept well-known access keys, such as `test`, and grant them everything: the secrets,
and functions, which are programs that run as the user who started the emulator.

Here a request must contain the random access key of this run, or it must contain the access key of
a function's role and come from a process of this user. A connection to a Runtime API, which has no
authentication, must also come from a process of this user. The check of the user needs `/proc`;
systems other than Linux have no such check.

With SERVES_FUNCTIONS=true, the functions of another emulator call the KMS of this one. Their access
keys are not known here, so each request to KMS that comes from a process of this user is accepted,
except those of a browser.
"""

import hmac
import http.server
import os
import re
import runpy
import socketserver
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import hypercorn.asyncio

# The requests that need no key: probes of the emulator's health, and the answer of a custom
# resource, whose path ends in a random token. With another method an emulator ignores the path, and
# finds the service in the headers.
OPEN_REQUESTS = re.compile(
    r"GET /_(ministack|localstack)/health|PUT /_ministack/cfn-response/[^/]+"
)
CREDENTIAL = re.compile(r"(?:^AWS4-HMAC-SHA256 Credential=|X-Amz-Credential=)([\w-]+)(?:/|%2F)")
REFUSAL = (
    b"<ErrorResponse><Error><Code>AccessDenied</Code>"
    b"<Message>the access key is not of this run</Message></Error></ErrorResponse>"
)
SOCKETS = Path("/proc/net/tcp")
SERVES_FUNCTIONS = os.environ.get("SERVES_FUNCTIONS") == "true"
PARSE_REQUEST = http.server.BaseHTTPRequestHandler.parse_request

Address = tuple[str, int]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def gate(application: Application, key: str) -> Application:
    """Refuse requests that contain neither the key of this run nor that of a function's role."""

    async def gated(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and _is_allowed(scope, key)):
            await application(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": REFUSAL})
        else:
            await send({"type": "websocket.close"})

    return gated


def _is_allowed(scope: Message, key: str) -> bool:
    if OPEN_REQUESTS.fullmatch(f"{scope['method']} {scope['path']}"):
        return True
    headers = {name.lower(): value for name, value in scope["headers"]}
    authorization = headers.get(b"authorization", b"") or scope["query_string"]
    found = CREDENTIAL.search(authorization.decode(errors="replace"))
    if found is None:
        return False
    if hmac.compare_digest(found[1], key):
        return True
    of_function = SERVES_FUNCTIONS and _is_to_kms(headers, scope["server"])
    return (of_function or _is_of_role(found[1])) and is_own(scope["client"], scope["server"])


def _is_to_kms(headers: dict[bytes, bytes], server: Address) -> bool:
    """Return whether an SDK sent a request to KMS.

    A browser names the page's host, or where the page is from.
    """
    return (
        headers.get(b"x-amz-target", b"").startswith(b"TrentService.")
        and headers.get(b"host", b"").decode() == f"{server[0]}:{server[1]}"
        and not headers.keys() & {b"origin", b"sec-fetch-site"}
    )


def _is_of_role(key: str) -> bool:
    """Return whether the emulator gave out a temporary access key, as it does to each function."""
    if ministack := sys.modules.get("ministack.services.sts"):
        return key in ministack._sessions
    if localstack := sys.modules.get("localstack.services.sts.models"):
        stores = [store for bundle in localstack.sts_stores.values() for store in bundle.values()]
        return any(key in store.credentials for store in stores)
    return False


def is_own(client: Address, server: Address) -> bool:
    """Return whether the process at the other end of a connection runs as this user."""
    if not SOCKETS.exists():
        return True
    ends = [_as_in_proc(client), _as_in_proc(server)]
    for line in SOCKETS.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            # The kernel shows a socket that its process closed with the inode 0 and the user 0.
            return fields[9] != "0" and int(fields[7]) == os.geteuid()
    return False


def _as_in_proc(address: Address) -> str:
    """Write an address as the kernel does on a little-endian machine: 0100007F:1F90."""
    host, port = address
    octets = bytes(map(int, host.split(".")))
    return f"{int.from_bytes(octets, sys.byteorder):08X}:{port:04X}"


def _verify_request(server: socketserver.BaseServer, _request: object, client: Address) -> bool:
    return is_own(client, server.server_address)


def _parse_request(handler: http.server.BaseHTTPRequestHandler) -> bool:
    """Refuse a request of a browser: it names the page's host, or where the page is from."""
    if not PARSE_REQUEST(handler):
        return False
    named = handler.headers.get("Host", "").rpartition(":")[0]
    if named == handler.server.server_address[0] and "Sec-Fetch-Site" not in handler.headers:
        return True
    handler.send_error(403)
    return False


def main() -> None:
    """Run the module with the key in AWS_ACCESS_KEY_ID."""
    key = os.environ["AWS_ACCESS_KEY_ID"]
    serve = hypercorn.asyncio.serve
    hypercorn.asyncio.serve = lambda application, *arguments, **options: serve(
        gate(application, key), *arguments, **options
    )
    # The Runtime APIs of both emulators are such servers.
    socketserver.BaseServer.verify_request = _verify_request
    http.server.BaseHTTPRequestHandler.parse_request = _parse_request
    module = sys.argv.pop(1)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
