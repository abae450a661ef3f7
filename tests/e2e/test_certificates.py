"""The programs trust the server certificates that libpq trusts, and no others."""

import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from dev import ROOT, local_system, postgres
from dev.postgres import LOOPBACK, Postgres

pytestmark = pytest.mark.without_emulator

HOST = "localhost"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
SYSTEM_AUTHORITIES = [
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
]
RDS_AUTHORITIES = ROOT / "src/store/rds-global-bundle.pem"
UNKNOWN_ISSUER = "unable to get local issuer certificate"


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate without its key."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Start a Postgres for this module, because its tests replace the certificate."""
    directory = local_system.make_directory()
    started = postgres.create(directory / "postgres", directory / "postgres.log")
    yield started
    started.stop()
    shutil.rmtree(directory)


@pytest.mark.parametrize("names", [[HOST], []], ids=["alternative-name", "common-name"])
def test_self_signed_certificate_in_bundle_is_trusted(
    server: Postgres, tmp_path: Path, names: list[str]
) -> None:
    # As `openssl req -x509` makes it.
    own = _make(HOST, names=names, is_authority=True)
    _use(server, own)
    bundle = _write(tmp_path, own)

    assert _libpq_accepts(server, bundle)
    assert _migrate(server, DATABASE_CA_BUNDLE=bundle).returncode == 0


def test_self_signed_certificate_outside_bundle_is_refused(
    server: Postgres, tmp_path: Path
) -> None:
    _use(server, _make(HOST, names=[HOST]))
    bundle = _write(tmp_path, _make(HOST, names=[HOST]))

    refused = _migrate(server, DATABASE_CA_BUNDLE=bundle)

    assert not _libpq_accepts(server, bundle)
    assert "(self-signed certificate)" in refused.stdout


def test_other_common_name_is_refused(server: Postgres, tmp_path: Path) -> None:
    own = _make("other.example")
    _use(server, own)
    bundle = _write(tmp_path, own)

    refused = _migrate(server, DATABASE_CA_BUNDLE=bundle)

    assert not _libpq_accepts(server, bundle)
    assert "(hostname mismatch)" in refused.stdout


def test_sha512_certificate_binds_the_channel(server: Postgres, tmp_path: Path) -> None:
    own = _make(HOST, names=[HOST], algorithm=hashes.SHA512())
    _use(server, own)
    bundle = _write(tmp_path, own)

    bound = _migrate(server, {"channel_binding": "require"}, DATABASE_CA_BUNDLE=bundle)

    assert bound.returncode == 0


def test_intermediate_authority_needs_its_root(server: Postgres, tmp_path: Path) -> None:
    root = _make("root", is_authority=True)
    intermediate = _make("intermediate", signed_by=root, is_authority=True)
    _use(server, _make(HOST, names=[HOST], signed_by=intermediate), intermediate)
    only_root = _write(tmp_path / "root", root)
    only_intermediate = _write(tmp_path / "intermediate", intermediate)

    refused = _migrate(server, DATABASE_CA_BUNDLE=only_intermediate)

    assert _libpq_accepts(server, only_root)
    assert _migrate(server, DATABASE_CA_BUNDLE=only_root).returncode == 0
    assert not _libpq_accepts(server, only_intermediate)
    assert "(unable to get issuer certificate)" in refused.stdout


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_authority_in_environment_is_trusted(
    server: Postgres, tmp_path: Path, variable: str
) -> None:
    root = _make("root", is_authority=True)
    _use(server, _make(HOST, names=[HOST], signed_by=root))
    authorities = _write(tmp_path, root)
    if variable == "SSL_CERT_DIR":
        authorities = tmp_path
        subprocess.run(["openssl", "rehash", tmp_path], check=True)

    assert _migrate(server).returncode != 0
    assert _migrate(server, **{variable: authorities}).returncode == 0


# OpenSSL notices the forged signature only if it knows the authority. Otherwise, it reports that
# the issuer is missing.
@pytest.mark.parametrize(
    "authorities", [SYSTEM_AUTHORITIES, [RDS_AUTHORITIES]], ids=["system", "rds"]
)
def test_certificate_with_forged_issuer_is_refused(
    server: Postgres, authorities: list[Path]
) -> None:
    _use(server, _forged(authorities))

    refused = _migrate(server)

    assert "(certificate signature failure)" in refused.stdout


def test_authority_beside_the_only_bundle_is_refused(server: Postgres, tmp_path: Path) -> None:
    root, other = _make("root", is_authority=True), _make("other", is_authority=True)
    _use(server, _make(HOST, names=[HOST], signed_by=root))
    (tmp_path / "folder").mkdir()
    system = _write(tmp_path / "folder", root)
    subprocess.run(["openssl", "rehash", system.parent], check=True)
    environments = [{"SSL_CERT_FILE": system}, {"SSL_CERT_DIR": system.parent}]
    in_bundle = {"DATABASE_CA_BUNDLE": _write(tmp_path / "root", root)}
    beside = {"DATABASE_CA_BUNDLE": _write(tmp_path / "other", other)}

    added = [_migrate(server, **beside, **environment) for environment in environments]
    only = [_migrate_only(server, **beside, **environment) for environment in environments]

    assert [migrated.returncode for migrated in added] == [0, 0]
    assert all(f"({UNKNOWN_ISSUER})" in refused.stdout for refused in only)
    assert not _libpq_accepts(server, beside["DATABASE_CA_BUNDLE"])
    assert _migrate_only(server, **in_bundle).returncode == 0


@pytest.mark.parametrize(
    "authorities", [SYSTEM_AUTHORITIES, [RDS_AUTHORITIES]], ids=["system", "rds"]
)
def test_only_bundle_excludes_built_in_authorities(
    server: Postgres, tmp_path: Path, authorities: list[Path]
) -> None:
    _use(server, _forged(authorities))
    bundle = _write(tmp_path, _make("other", is_authority=True))

    refused = _migrate_only(server, DATABASE_CA_BUNDLE=bundle)

    # With the authority, it is the signature that is wrong, as the test above shows.
    assert f"({UNKNOWN_ISSUER})" in refused.stdout


def _forged(authorities: list[Path]) -> Certificate:
    """Make a certificate that names an authority as its issuer, without the authority's key."""
    file = next(path for path in authorities if path.exists())
    issuer = x509.load_pem_x509_certificate(file.read_bytes())
    assert isinstance(issuer.public_key(), rsa.RSAPublicKey)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return _make(HOST, names=[HOST], signed_by=Certificate(issuer, key))


def _make(
    common_name: str,
    *,
    names: list[str] | None = None,
    signed_by: Certificate | None = None,
    is_authority: bool = False,
    algorithm: hashes.HashAlgorithm | None = None,
) -> Certificate:
    """Make a certificate, self-signed unless another one signs it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by.certificate.subject if signed_by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    if is_authority:
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    signing_key = signed_by.key if signed_by else key
    return Certificate(builder.sign(signing_key, algorithm or hashes.SHA256()), key)


def _write(directory: Path, certificate: Certificate) -> Path:
    directory.mkdir(exist_ok=True)
    file = directory / "bundle.pem"
    file.write_bytes(certificate.pem)
    return file


def _use(server: Postgres, own: Certificate, *intermediates: Certificate) -> None:
    """Give the server a certificate, and wait until the server presents it."""
    data = server.directory / "data"
    (data / "server.pem").write_bytes(b"".join(one.pem for one in (own, *intermediates)))
    (data / "server.key").write_bytes(
        own.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    # Not by `server.connect`, which verifies the certificate.
    with psycopg.connect(server.url(sslmode="require"), autocommit=True) as admin:
        admin.execute("SELECT pg_reload_conf()")
    expected = own.certificate.public_bytes(serialization.Encoding.DER)
    deadline = monotonic() + 10
    while _presented(server) != expected:
        assert monotonic() < deadline
        sleep(0.02)


def _presented(server: Postgres) -> bytes | None:
    """Return the certificate that the server presents, in DER."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    with socket.create_connection((LOOPBACK, server.port)) as connection:
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        with unverified.wrap_socket(connection) as encrypted:
            return encrypted.getpeercert(binary_form=True)


def _libpq_accepts(server: Postgres, bundle: Path) -> bool:
    url = server.url(sslmode="verify-full", sslrootcert=str(bundle)).replace(LOOPBACK, HOST)
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


def _migrate(
    server: Postgres, options: dict[str, str] | None = None, **settings: Path | str
) -> subprocess.CompletedProcess[str]:
    """Run `migrate` over TLS, with these options in the URL and these settings alone."""
    url = server.url(sslmode="require", **options or {}).replace(LOOPBACK, HOST)
    environment = {"DATABASE_URL": url} | {name: str(path) for name, path in settings.items()}
    return subprocess.run(
        [local_system.MIGRATE], check=False, env=environment, capture_output=True, text=True
    )


def _migrate_only(server: Postgres, **settings: Path) -> subprocess.CompletedProcess[str]:
    return _migrate(server, DATABASE_CA_BUNDLE_ONLY="true", **settings)
