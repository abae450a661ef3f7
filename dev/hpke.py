"""Opens what ingest seals, by ECDH, HKDF and AES-GCM alone, as RFC 9180 composes them.

`cryptography` has an HPKE of its own, which knows no associated data.
"""

from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

INFO = b"login-etl vault 1"
_KEM = b"KEM" + (16).to_bytes(2)
_SUITE = b"HPKE" + (16).to_bytes(2) + (1).to_bytes(2) + (2).to_bytes(2)


class Stream:
    """The values that were sealed with one encapsulated key."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, encapsulated_key: bytes) -> None:
        """Derive the keys of the stream. The shared secret of ECDH is what KMS computes."""
        point = serialization.PublicFormat.UncompressedPoint
        own_key = key.public_key().public_bytes(serialization.Encoding.X962, point)
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encapsulated_key)
        extracted = _extract(_KEM, b"", b"eae_prk", key.exchange(ec.ECDH(), sender))
        shared_secret = _expand(_KEM, extracted, b"shared_secret", encapsulated_key + own_key, 32)
        schedule = b"\0" + _extract(_SUITE, b"", b"psk_id_hash", b"")
        schedule += _extract(_SUITE, b"", b"info_hash", INFO)
        secret = _extract(_SUITE, shared_secret, b"secret", b"")
        self._base_nonce = int.from_bytes(_expand(_SUITE, secret, b"base_nonce", schedule, 12))
        self._aead = AESGCM(_expand(_SUITE, secret, b"key", schedule, 32))

    def open(self, sequence: int, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Open a value; raise InvalidTag if it was not sealed with these associated data."""
        nonce = (self._base_nonce ^ sequence).to_bytes(12)
        return self._aead.decrypt(nonce, ciphertext, associated_data)


def unpad(plaintext: bytes) -> str:
    """Return the value in a plaintext, without its padding."""
    value, mark, zeros = plaintext.rpartition(b"\x80")
    if not mark or zeros.strip(b"\0") or (len(plaintext) != 48 and len(plaintext) % 64):
        raise ValueError("the padding is wrong")
    return value.decode()


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    extract = hmac.HMAC(salt or bytes(32), hashes.SHA256())
    extract.update(b"HPKE-v1" + suite + label + material)
    return extract.finalize()


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    info = length.to_bytes(2) + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)
