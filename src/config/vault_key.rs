//! The public key to which the vault's values are sealed.
//!
//! The setting has a [`Point`] as a `SubjectPublicKeyInfo`, in base64. A sealer that cannot use the point fails at its
//! start.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::point::{self, Point};

/// The public key of the vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultPublicKey(Point);

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
    pub fn spki(&self) -> Vec<u8> {
        self.0.to_spki()
    }

    /// Returns the key as an uncompressed point.
    #[must_use]
    pub fn point(&self) -> &[u8; point::LENGTH] {
        self.0.as_bytes()
    }

    /// Returns the SHA-256 of [`spki`](Self::spki), by which the database recognises the key.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.spki()).into()
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
        Point::from_spki(&bytes).map(Self).map_err(|_| NotAVaultKey::NotP256)
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
            let mut spki = key.spki();
            spki[place] = byte;
            STANDARD.encode(spki)
        };
        let longer = STANDARD.encode([&key.spki()[..], &[0]].concat());
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
