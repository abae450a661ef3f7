"""Compares the authorities of RDS that are compiled in with those that Amazon publishes.

`make authorities` needs a network; the workflow `weekly` runs it.
"""

import hashlib
import re
import ssl
import sys
from urllib.request import urlopen

from cryptography import x509
from cryptography.x509.oid import NameOID

from dev import ROOT

FILE = ROOT / "src" / "store" / "rds-global-bundle.pem"
AMAZON = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
TIMEOUT_S = 30


def certificates(text: str) -> list[bytes]:
    """Return the certificates of a PEM file, as DER."""
    return [ssl.PEM_cert_to_DER_cert(pem) for pem in CERTIFICATE.findall(text)]


def stated_checksum(text: str) -> str:
    """Return the checksum in the head of the file."""
    [checksum] = re.findall(r"\b[0-9a-f]{64}\b", text)
    return checksum


def checksum(ders: list[bytes]) -> str:
    """Return the SHA-256 of all certificates, in their order."""
    return hashlib.sha256(b"".join(ders)).hexdigest()


def only_in(some: list[bytes], others: list[bytes]) -> list[str]:
    """Name the certificates that are not among the others."""
    return sorted(_name(der) for der in set(some) - set(others))


def main() -> int:
    """Print the differences; fail if a certificate is not Amazon's."""
    ours = certificates(FILE.read_text())
    with urlopen(AMAZON, timeout=TIMEOUT_S) as answer:
        amazons = certificates(answer.read().decode())
    for name in only_in(amazons, ours):
        print(f"not compiled in: {name}")
    foreign = only_in(ours, amazons)
    for name in foreign:
        print(f"{FILE.relative_to(ROOT)}: Amazon does not publish {name}")
    print(f"{len(ours) - len(foreign)} of {len(ours)} authorities are Amazon's")
    return 1 if foreign else 0


def _name(der: bytes) -> str:
    certificate = x509.load_der_x509_certificate(der)
    [name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


if __name__ == "__main__":
    sys.exit(main())
