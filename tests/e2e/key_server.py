"""Stands in for AWS's server of public keys: an HTTPS proxy that answers itself."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass
class KeyServer:
    """The keys, and what was fetched."""

    port: int
    # The authority that a program must trust.
    authority: Path
    keys: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which a program finds the server under AWS's name."""
        proxy = f"http://127.0.0.1:{self.port}"
        return {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(self.authority)}


@contextmanager
def key_server(host: str, folder: Path) -> Iterator[KeyServer]:
    """Start a server that proves to be `host`, with a certificate of its own authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority, chain = _certificates(host, folder)
    context.load_cert_chain(chain)

    class Handler(BaseHTTPRequestHandler):
        target = ""

        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                self.connection = context.wrap_socket(self.connection, server_side=True)
            except OSError:
                # The program does not trust the certificate.
                self.close_connection = True
                return
            self.target = self.path
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", buffering=0)
            # The request inside the tunnel comes next.
            self.close_connection = False

        def do_GET(self) -> None:
            server.fetched.append(f"https://{self.target}{self.path}")
            key = server.keys.get(self.path.removeprefix("/"))
            answer = key or b"no such key"
            self.send_response(200 if key else 404)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = KeyServer(http.server_port, authority)
        thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _certificates(host: str, folder: Path) -> tuple[Path, Path]:
    """Write an authority, and a key with a certificate for the host."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("Test authority", authority_key, authority_key, None)
    certificate = _certificate(host, key, authority_key, authority)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    authority_file, chain = folder / "authority.pem", folder / "chain.pem"
    authority_file.write_bytes(authority.public_bytes(Encoding.PEM))
    chain.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return authority_file, chain


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer.subject if issuer else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - timedelta(days=1),
        not_valid_after=now + timedelta(days=1),
    )
    is_authority = issuer is None
    builder = builder.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    if not is_authority:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())
