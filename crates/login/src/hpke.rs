//! The key schedule of HPKE ([RFC 9180]) in base mode, with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
//!
//! The sender and the receiver compute the same keys from the result of a Diffie-Hellman exchange. No crate takes this
//! result: the receiver's exchange is done by KMS. Neither does a crate keep the key of a sender ready from one message
//! to the next.
//!
//! [RFC 9180]: https://www.rfc-editor.org/rfc/rfc9180

use std::fmt;

use hkdf::{Hkdf, HkdfExtract};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

/// The length of an uncompressed point.
pub const POINT_LENGTH: usize = 65;

const VERSION: &[u8] = b"HPKE-v1";
const MODE_BASE: u8 = 0;
/// `"KEM" || I2OSP(kem_id, 2)`
const KEM_SUITE: &[u8] = b"KEM\0\x10";
/// `"HPKE" || I2OSP(kem_id, 2) || I2OSP(kdf_id, 2) || I2OSP(aead_id, 2)`
const HPKE_SUITE: &[u8] = b"HPKE\0\x10\0\x01\0\x02";

/// What the messages of a context are sealed with.
pub struct KeySchedule {
    /// The key of AES-256-GCM.
    pub key: Zeroizing<[u8; 32]>,
    /// The base of the nonces.
    pub base_nonce: BaseNonce,
}

/// The base of the nonces of a context.
pub struct BaseNonce(Zeroizing<[u8; 12]>);

impl KeySchedule {
    /// Computes the keys from the public key of the recipient, the encapsulated key, and the x coordinate of the point
    /// that the exchange between the two gives.
    #[must_use]
    pub fn new(
        recipient: &[u8; POINT_LENGTH],
        encapsulated: &[u8; POINT_LENGTH],
        coordinate: &[u8; 32],
        info: &[u8],
    ) -> Self {
        // DHKEM's Encap or Decap, after its DH.
        let (_, eae) = extract(KEM_SUITE, &[], b"eae_prk", coordinate);
        let kem_context = [&encapsulated[..], recipient].concat();
        let shared_secret = expand::<32>(&eae, KEM_SUITE, b"shared_secret", &kem_context);
        // KeySchedule, without a pre-shared key.
        let (psk_id_hash, _) = extract(HPKE_SUITE, &[], b"psk_id_hash", &[]);
        let (info_hash, _) = extract(HPKE_SUITE, &[], b"info_hash", info);
        let context = [&[MODE_BASE], &psk_id_hash[..], &info_hash[..]].concat();
        let (_, secret) = extract(HPKE_SUITE, &*shared_secret, b"secret", &[]);
        Self {
            key: expand(&secret, HPKE_SUITE, b"key", &context),
            base_nonce: BaseNonce(expand(&secret, HPKE_SUITE, b"base_nonce", &context)),
        }
    }
}

impl BaseNonce {
    /// `ComputeNonce`: the base, whose last bytes are combined with the sequence number.
    #[must_use]
    pub fn nonce(&self, sequence: u16) -> [u8; 12] {
        let mut nonce = *self.0;
        for (byte, sequence) in nonce[10..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        nonce
    }
}

impl fmt::Debug for KeySchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySchedule")
    }
}

impl fmt::Debug for BaseNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BaseNonce")
    }
}

/// `LabeledExtract`. Returns the key as bytes, and ready to expand.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], input: &[u8]) -> (Zeroizing<[u8; 32]>, Hkdf<Sha256>) {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    for part in [VERSION, suite, label, input] {
        extract.input_ikm(part);
    }
    let (key, hkdf) = extract.finalize();
    (Zeroizing::new(key.into()), hkdf)
}

/// `LabeledExpand`.
fn expand<const LENGTH: usize>(
    key: &Hkdf<Sha256>,
    suite: &[u8],
    label: &[u8],
    info: &[u8],
) -> Zeroizing<[u8; LENGTH]> {
    let length = u16::try_from(LENGTH).unwrap_or_else(|_| unreachable!("keys are short")).to_be_bytes();
    let mut output = Zeroizing::new([0; LENGTH]);
    key.expand_multi_info(&[&length, VERSION, suite, label, info], &mut *output)
        .unwrap_or_else(|_| unreachable!("keys are short"));
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_secret() {
        let schedule = KeySchedule::new(&[4; 65], &[4; 65], &[1; 32], b"info");

        assert_eq!(format!("{schedule:?} {:?}", schedule.base_nonce), "KeySchedule BaseNonce");
    }
}
