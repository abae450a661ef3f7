"""The authorities of RDS that are compiled in are those that the head of their file describes."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dev.checks import authorities

TEXT = authorities.FILE.read_text()
OURS = authorities.certificates(TEXT)


def test_certificates_have_the_stated_checksum() -> None:
    assert len(OURS) == len(set(OURS)) == TEXT.count("BEGIN CERTIFICATE")
    assert authorities.checksum(OURS) == authorities.stated_checksum(TEXT)


def test_changed_or_added_certificate_changes_the_checksum() -> None:
    stated = authorities.stated_checksum(TEXT)

    assert authorities.checksum([*OURS[:-1], OURS[-1][:-1] + b"\0"]) != stated
    assert authorities.checksum([*OURS, _authority("Amazon RDS")]) != stated


def test_authority_that_amazon_lacks_is_named() -> None:
    other = _authority("Amazon RDS eu-central-1 Root CA")

    assert authorities.only_in([*OURS, other], OURS) == ["Amazon RDS eu-central-1 Root CA"]
    assert authorities.only_in(OURS, [*OURS, other]) == []


def _authority(name: str) -> bytes:
    """Make an authority of somebody else, as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER)
