//! The public key to which the vault's values are sealed.
//!
//! It is a point of the curve P-256 in a `SubjectPublicKeyInfo` ([RFC 5480, section 2][rfc]), written in base64. The
//! encoding is always the same but for the point, so it is compared and not parsed. Whether the point is on the curve
//! is not checked here: a sealer that cannot use it fails at its start.
//!
//! [rfc]: https://www.rfc-editor.org/rfc/rfc5480#section-2

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// What stands before the point: the outer sequence, `id-ecPublicKey` with the named curve `secp256r1`, and the head of
/// the bit string.
const PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The length of an uncompressed point.
const POINT_LEN: usize = 65;
/// The first byte of an uncompressed point.
const UNCOMPRESSED: u8 = 4;

const SPKI_LEN: usize = PREFIX.len() + POINT_LEN;

/// The public key of the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultPublicKey([u8; SPKI_LEN]);

/// Why a text is not the public key of a vault. The text continues a sentence that begins with the name of the setting.
/// It holds no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAVaultKey {
    /// The text has the first line of a PEM file.
    #[error("is a PEM file; set only the base64 between its first and last line, without line breaks")]
    Pem,
    /// The text is not base64.
    #[error("is not base64")]
    NotBase64,
    /// The bytes are not the encoding of such a key.
    #[error(
        "is not a public key of the curve P-256; set the PublicKey that aws kms get-public-key returns for a key with \
         the usage KEY_AGREEMENT and the spec ECC_NIST_P256"
    )]
    NotP256,
}

impl VaultPublicKey {
    /// Returns the key as a `SubjectPublicKeyInfo`, in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key as an uncompressed point of 65 bytes.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.0[PREFIX.len()..]
    }

    /// Returns the SHA-256 of [`spki`](Self::spki), by which the database recognises the key.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl FromStr for VaultPublicKey {
    type Err = NotAVaultKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.starts_with("-----BEGIN") {
            return Err(NotAVaultKey::Pem);
        }
        let bytes = STANDARD.decode(text).map_err(|_| NotAVaultKey::NotBase64)?;
        let spki: [u8; SPKI_LEN] = bytes.try_into().map_err(|_| NotAVaultKey::NotP256)?;
        if spki.starts_with(&PREFIX) && spki[PREFIX.len()] == UNCOMPRESSED {
            Ok(Self(spki))
        } else {
            Err(NotAVaultKey::NotP256)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEgtR7oTpydduPtSzJvz9DGrx/BK/KYul+8ZgYDD2x8wGApUmDNbEd3iJ5RujVQX/gFCCn7v+7sCiqYATMbM05iw==";

    #[test]
    fn key_of_openssl_is_read() {
        let key: VaultPublicKey = format!(" {KEY}\n").parse().unwrap();

        assert_eq!(STANDARD.encode(key.spki()), KEY);
        assert_eq!((key.point().len(), key.point()[0]), (65, 4));
        // printf %s KEY | base64 -d | openssl sha256 -binary | base64
        assert_eq!(STANDARD.encode(key.sha256()), "OlSkRZogAX+xJ5PijO+8QgHH6Q0ce3g5ACYDheHBlu8=");
    }

    #[test]
    fn other_texts_are_refused() {
        let key: VaultPublicKey = KEY.parse().unwrap();
        let changed = |place: usize, byte: u8| {
            let mut spki = key.spki().to_vec();
            spki[place] = byte;
            STANDARD.encode(spki)
        };
        let longer = STANDARD.encode([key.spki(), &[0]].concat());
        let point = STANDARD.encode(key.point());

        for (text, problem) in [
            ("-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----", NotAVaultKey::Pem),
            ("hunter2", NotAVaultKey::NotBase64),
            (&KEY[..KEY.len() - 1], NotAVaultKey::NotBase64),
            ("", NotAVaultKey::NotP256),
            (&KEY[..60], NotAVaultKey::NotP256),
            (&longer, NotAVaultKey::NotP256),
            (&point, NotAVaultKey::NotP256),
            // Another curve, and a point that is compressed.
            (&changed(22, 0x08), NotAVaultKey::NotP256),
            (&changed(26, 0x02), NotAVaultKey::NotP256),
        ] {
            assert_eq!(text.parse::<VaultPublicKey>(), Err(problem), "{text}");
        }
    }
}
