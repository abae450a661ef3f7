//! The salts of a secret: the first salt masks a value, and each later salt masks the token of the salt before.

use std::fmt;

use hmac::{HmacReset, Mac};
use secrecy::SecretString;
use sha2::Sha256;

use super::{Masker, SaltFingerprint, WeakSalt, keyed};

/// The salts of a secret, the first salt first.
pub struct Salts(Vec<SecretString>);

/// Replaces tokens of one generation by those of the last generation.
pub struct Resalter(Vec<HmacReset<Sha256>>);

impl Salts {
    /// Takes the first salt and the later salts, in their order.
    #[must_use]
    pub fn new(first: SecretString, later: Vec<SecretString>) -> Self {
        Self([vec![first], later].concat())
    }

    /// Returns a masker for each generation, the oldest first.
    ///
    /// # Errors
    ///
    /// [`WeakSalt`].
    pub fn maskers(&self) -> Result<Vec<Masker>, WeakSalt> {
        let keys = self.0.iter().map(keyed).collect::<Result<Vec<_>, _>>()?;
        Ok((1..=keys.len())
            .map(|generation| Masker {
                hmac: keys[0].clone(),
                later: keys[1..generation].to_vec(),
                unparsed_ips: 0,
                sealing: None,
            })
            .collect())
    }

    /// Returns what replaces tokens of the generation with this fingerprint by those of the last generation; `None` if no
    /// generation has it.
    ///
    /// # Errors
    ///
    /// [`WeakSalt`].
    pub fn resalter(&self, from: &SaltFingerprint) -> Result<Option<Resalter>, WeakSalt> {
        let maskers = self.maskers()?;
        let generation = maskers.iter().position(|masker| masker.salt_fingerprint() == *from);
        let later = maskers.last().map(|last| &last.later);
        Ok(generation.zip(later).map(|(generation, later)| Resalter(later[generation..].to_vec())))
    }
}

impl Resalter {
    /// Returns the token of the last generation.
    #[must_use]
    pub fn resalt(&mut self, digits: &[u8; 64]) -> [u8; 64] {
        let mut digits = *digits;
        for hmac in &mut self.0 {
            digits = next(hmac, &digits);
        }
        digits
    }
}

fn next(hmac: &mut HmacReset<Sha256>, digits: &[u8; 64]) -> [u8; 64] {
    hmac.update(digits);
    let mut next = [0; 64];
    let Ok(_) = base16ct::lower::encode(&hmac.finalize_reset().into_bytes(), &mut next) else {
        unreachable!("32 bytes are 64 digits");
    };
    next
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
