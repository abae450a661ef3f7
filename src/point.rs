//! A point of the curve P-256, as HPKE and KMS write it.

use std::fmt;

/// Number of bytes of an uncompressed point.
pub const LENGTH: usize = 65;

/// The first byte of an uncompressed point ([SEC 1], section 2.3.3).
///
/// [SEC 1]: https://www.secg.org/sec1-v2.pdf
const UNCOMPRESSED: u8 = 4;

/// The bytes before the point in a `SubjectPublicKeyInfo` ([RFC 5480], section 2): the sequence, the algorithm
/// `id-ecPublicKey` with the curve `secp256r1`, and the header of the bit string.
///
/// [RFC 5480]: https://www.rfc-editor.org/rfc/rfc5480#section-2
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// An uncompressed point. The sealer and KMS, which compute with the point, check that it is on the curve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Point([u8; LENGTH]);

/// Bytes that are no point of P-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no uncompressed point of P-256")]
pub struct NotAPoint;

impl Point {
    /// Reads a `SubjectPublicKeyInfo` in DER.
    ///
    /// # Errors
    ///
    /// [`NotAPoint`] for a key of another kind.
    pub fn from_spki(der: &[u8]) -> Result<Self, NotAPoint> {
        der.strip_prefix(&SPKI_PREFIX).ok_or(NotAPoint)?.try_into()
    }

    /// Writes a `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn to_spki(self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// Returns the bytes of the point.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Point {
    type Error = NotAPoint;

    fn try_from(bytes: &[u8]) -> Result<Self, NotAPoint> {
        let point: [u8; LENGTH] = bytes.try_into().map_err(|_| NotAPoint)?;
        if point[0] == UNCOMPRESSED { Ok(Self(point)) } else { Err(NotAPoint) }
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Point")
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Made by `openssl ecparam -name prime256v1 -genkey | openssl ec -pubout`.
    const OF_OPENSSL: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEG0mQEauPGP8yTg7HkIC63mG0JEveEDRn8gtSYQQgto9p2i0W3e38Ol2c1TwyhSY8Z5i/ErKleBVJfByRwzejrg==";

    #[test]
    fn key_of_openssl_is_read_and_written() {
        let der = STANDARD.decode(OF_OPENSSL).unwrap();

        let point = Point::from_spki(&der).unwrap();

        assert_eq!(point.to_spki(), der);
        assert_eq!(point.as_bytes(), &der[26..]);
    }

    #[test]
    fn other_bytes_are_no_point() {
        let der = STANDARD.decode(OF_OPENSSL).unwrap();
        let compressed = [&[2], &der[27..59]].concat();
        let hybrid = [&[6], &der[27..]].concat();

        for bytes in [&der[26..90], &[&der[26..], &[0]].concat(), &compressed, &hybrid, &[]] {
            assert_eq!(Point::try_from(bytes), Err(NotAPoint));
        }
        for bytes in [&der[..90], &[&der[..], &[0]].concat(), &der[1..], &[]] {
            assert_eq!(Point::from_spki(bytes), Err(NotAPoint));
        }
    }
}
