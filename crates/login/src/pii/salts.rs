//! The salts of a secret: the first salt masks a value, and each later salt masks the token of the salt before.

use std::fmt;

use hmac::{HmacReset, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// The least length of a salt in bytes: the length of a SHA-256 hash, as [RFC 2104, section 3][rfc] advises.
///
/// [rfc]: https://www.rfc-editor.org/rfc/rfc2104#section-3
pub const MIN_SALT_BYTES: usize = 32;

/// The least number of different bytes in a salt. It refuses a typed or repeated text such as 32 equal characters,
/// whose length promises more than it holds. Of random salts of 32 hexadecimal digits, 1 in 28 million has fewer.
pub const MIN_DIFFERENT_SALT_BYTES: usize = 8;

/// The salts of a secret.
pub struct Salts {
    pub(super) first: SecretString,
    /// The salts after it, in their order.
    pub(super) later: Vec<SecretString>,
}

/// Replaces tokens of one generation by those of the last generation.
pub struct Resalter(Vec<HmacReset<Sha256>>);

/// The salt is too easy to guess to protect what it masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakSalt {
    /// The salt is too short.
    #[error("the salt has fewer than {MIN_SALT_BYTES} bytes")]
    TooShort,
    /// The salt repeats a few bytes.
    #[error("the salt has fewer than {MIN_DIFFERENT_SALT_BYTES} different bytes")]
    TooUniform,
    /// A later salt is too short.
    #[error("a later salt has fewer than {MIN_SALT_BYTES} bytes")]
    LaterTooShort,
    /// A later salt repeats a few bytes.
    #[error("a later salt has fewer than {MIN_DIFFERENT_SALT_BYTES} different bytes")]
    LaterTooUniform,
}

impl Salts {
    /// Takes the first salt and the later salts, in their order.
    #[must_use]
    pub fn new(first: SecretString, later: Vec<SecretString>) -> Self {
        Self { first, later }
    }
}

impl Resalter {
    /// Takes the keyed hashes of the later salts, in their order.
    pub(super) fn new(later: Vec<HmacReset<Sha256>>) -> Self {
        Self(later)
    }

    /// Returns the token of the last generation.
    #[must_use]
    pub fn resalt(&mut self, digits: &[u8; 64]) -> [u8; 64] {
        let mut digits = *digits;
        for hmac in &mut self.0 {
            hmac.update(&digits);
            let Ok(_) = base16ct::lower::encode(&hmac.finalize_reset().into_bytes(), &mut digits) else {
                unreachable!("32 bytes are 64 digits");
            };
        }
        digits
    }
}

/// Keys the hash with the UTF-8 bytes of a salt.
pub(super) fn keyed(salt: &SecretString) -> Result<HmacReset<Sha256>, WeakSalt> {
    let key = salt.expose_secret().as_bytes();
    if key.len() < MIN_SALT_BYTES {
        return Err(WeakSalt::TooShort);
    }
    if (0..=u8::MAX).filter(|byte| key.contains(byte)).count() < MIN_DIFFERENT_SALT_BYTES {
        return Err(WeakSalt::TooUniform);
    }
    HmacReset::new_from_slice(key).map_err(|_| WeakSalt::TooShort)
}

/// As [`keyed`], for a later salt.
pub(super) fn keyed_later(salt: &SecretString) -> Result<HmacReset<Sha256>, WeakSalt> {
    keyed(salt).map_err(|weak| match weak {
        WeakSalt::TooUniform => WeakSalt::LaterTooUniform,
        _ => WeakSalt::LaterTooShort,
    })
}

impl fmt::Debug for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salts")
    }
}

impl fmt::Debug for Resalter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resalter")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pii::{DeviceId, Ip, Masker, Pii};

    const SALTS: [&str; 3] = [
        "0123456789abcdef0123456789abcdef",
        "fedcba9876543210fedcba9876543210",
        "a third salt: 0123456789abcdefghij",
    ];

    fn salts() -> Salts {
        Salts::new(SALTS[0].into(), vec![SALTS[1].into(), SALTS[2].into()])
    }

    fn maskers() -> Vec<Masker> {
        salts().maskers().unwrap()
    }

    fn digits(token: &str) -> [u8; 64] {
        token.as_bytes().try_into().unwrap()
    }

    /// `printf 'ip:192.0.2.1' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`, and then
    /// `printf '<token>' | openssl dgst -sha256 -hmac <later salt>` for each later salt.
    #[test]
    fn generations_equal_those_of_openssl() {
        let tokens = maskers()
            .into_iter()
            .map(|mut masker| masker.mask(&Pii::<Ip>::new("192.0.2.1".into()).unwrap()).as_str().to_owned());

        assert_eq!(
            tokens.collect::<Vec<_>>(),
            [
                "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3",
                "2b90b7e4d555b56059e34d544ef3b16ba307e99d05700c3e6509237b0273dbdb",
                "bf9024e07e1dae395ec13c02161e59ed69fe72387384e27b0cf51f7458ff3460",
            ]
        );
    }

    /// `printf 'salt:fingerprint' | openssl dgst ...` and `printf 'user_id:ann' | openssl dgst ...`, and then as above.
    #[test]
    fn fingerprints_and_user_ids_follow_the_chain() {
        let maskers = maskers();
        let fingerprints: Vec<_> =
            maskers.iter().map(|masker| masker.salt_fingerprint().as_str().to_owned()).collect();
        let user_id = maskers[2].clone().hash_user_id("ann");

        assert_eq!(fingerprints, ["3b0a1a8fbcb7edc1", "b8704512a40f844c", "87a9e091cec6bc84"]);
        assert_eq!(
            base16ct::lower::encode_string(&user_id),
            "f64b9d82400cd94190a14d24d4fc223ea3d560ac62d9a4eab1237b3e26fbc068"
        );
    }

    #[test]
    fn unknown_fingerprint_has_no_resalter() {
        let unknown = "0123456789abcdef".parse().unwrap();

        assert!(salts().resalter(&unknown).unwrap().is_none());
    }

    #[test]
    fn weak_later_salts_are_refused() {
        let error = |later: &str| Salts::new(SALTS[0].into(), vec![later.into()]).maskers().err();

        assert_eq!(error("short"), Some(WeakSalt::LaterTooShort));
        assert_eq!(error(&"ab".repeat(20)), Some(WeakSalt::LaterTooUniform));
    }

    #[test]
    fn debug_prints_no_secret() {
        let resalter = salts().resalter(&maskers()[0].salt_fingerprint()).unwrap();

        assert_eq!(format!("{:?} {resalter:?}", salts()), "Salts Some(Resalter)");
    }

    proptest! {
        #[test]
        fn resalted_token_is_that_of_the_last_salt(value in ".{1,20}") {
            prop_assume!(!value.trim().is_empty());
            let value = Pii::<DeviceId>::new(value.as_str().into()).unwrap();
            let last = maskers()[2].mask(&value);
            for mut masker in maskers() {
                let mut resalter = salts().resalter(&masker.salt_fingerprint()).unwrap().unwrap();
                let token = masker.mask(&value);

                prop_assert_eq!(resalter.resalt(&digits(token.as_str())), digits(last.as_str()));
            }
        }
    }
}
