//! A stream of sealed values: a sender's context of HPKE ([RFC 9180]).
//!
//! The key of AES-256-GCM is made once for a stream. The HPKE of rustls makes it for each message, which took a third of
//! the time of a short one. A [`SealingKey`] cannot decrypt.
//!
//! [RFC 9180]: https://www.rfc-editor.org/rfc/rfc9180

use aws_lc_rs::aead::{AES_256_GCM, Aad, BoundKey, Nonce, NonceSequence, SealingKey, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use secrecy::zeroize::Zeroize;

use crate::hpke::{BaseNonce, KeySchedule, POINT_LENGTH};

/// The length of the tag of a ciphertext.
pub(super) const TAG_LENGTH: usize = 16;

/// A value could not be sealed: the public key is not a point of the curve, or there is no source of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value could not be sealed to the public key of the vault")]
pub struct NotSealed;

pub(super) struct SealingStream {
    encapsulated_key: [u8; POINT_LENGTH],
    key: SealingKey<Nonces>,
    /// The sequence number of the next value.
    next: u16,
}

/// The nonces of a stream, each once.
struct Nonces {
    base: BaseNonce,
    next: Option<u16>,
}

impl SealingStream {
    /// Makes an encapsulated key for the public key.
    pub(super) fn start(recipient: &[u8; POINT_LENGTH], info: &[u8]) -> Result<Self, NotSealed> {
        let private_key = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())?;
        let public_key = private_key.compute_public_key()?;
        let encapsulated_key = public_key.as_ref().try_into().map_err(|_| NotSealed)?;
        let peer = UnparsedPublicKey::new(&ECDH_P256, recipient);
        let schedule = agree_ephemeral(private_key, peer, NotSealed, |coordinate| {
            let coordinate = coordinate.try_into().map_err(|_| NotSealed)?;
            Ok(KeySchedule::new(recipient, &encapsulated_key, coordinate, info))
        })?;
        Self::new(encapsulated_key, schedule)
    }

    fn new(encapsulated_key: [u8; POINT_LENGTH], schedule: KeySchedule) -> Result<Self, NotSealed> {
        let key = UnboundKey::new(&AES_256_GCM, &*schedule.key)?;
        let nonces = Nonces { base: schedule.base_nonce, next: Some(0) };
        Ok(Self { encapsulated_key, key: SealingKey::new(key, nonces), next: 0 })
    }

    pub(super) fn encapsulated_key(&self) -> &[u8; POINT_LENGTH] {
        &self.encapsulated_key
    }

    /// Returns the sequence number of the next value.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    /// Encrypts the bytes from `start` on, and appends the tag. After an error these bytes are gone.
    pub(super) fn seal(
        &mut self,
        associated_data: &[u8],
        buffer: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), NotSealed> {
        // Also after an error, because the nonce is used up.
        self.next = self.next.saturating_add(1);
        let tag = self.key.seal_in_place_separate_tag(Aad::from(associated_data), &mut buffer[start..]);
        if let Ok(tag) = tag {
            buffer.extend_from_slice(tag.as_ref());
            Ok(())
        } else {
            buffer[start..].zeroize();
            buffer.truncate(start);
            Err(NotSealed)
        }
    }
}

impl NonceSequence for Nonces {
    fn advance(&mut self) -> Result<Nonce, Unspecified> {
        let sequence = self.next.ok_or(Unspecified)?;
        self.next = sequence.checked_add(1);
        Ok(Nonce::assume_unique_for_key(self.base.nonce(sequence)))
    }
}

impl From<Unspecified> for NotSealed {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{PrivateKey, agree};
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        info: String,
        #[serde(rename = "skRm")]
        private_key: String,
        #[serde(rename = "pkRm")]
        recipient: String,
        #[serde(rename = "enc")]
        encapsulated: String,
        encryptions: Vec<Encryption>,
    }

    #[derive(Deserialize)]
    struct Encryption {
        sequence: u16,
        aad: String,
        pt: String,
        ct: String,
    }

    fn bytes(digits: &str) -> Vec<u8> {
        base16ct::lower::decode_vec(digits).unwrap()
    }

    /// Begins the stream of the RFC's vectors. The exchange gives the sender and the receiver the same point, so the
    /// private key of either will do.
    fn stream(vectors: &Vectors) -> SealingStream {
        let encapsulated = bytes(&vectors.encapsulated).try_into().unwrap();
        let recipient = bytes(&vectors.recipient).try_into().unwrap();
        let private_key = PrivateKey::from_private_key(&ECDH_P256, &bytes(&vectors.private_key)).unwrap();
        let peer = UnparsedPublicKey::new(&ECDH_P256, encapsulated);
        let schedule = agree(&private_key, peer, NotSealed, |coordinate| {
            let coordinate = coordinate.try_into().unwrap();
            Ok(KeySchedule::new(&recipient, &encapsulated, coordinate, &bytes(&vectors.info)))
        });
        SealingStream::new(encapsulated, schedule.unwrap()).unwrap()
    }

    #[test]
    fn vectors_of_the_rfc_are_sealed() {
        let vectors = include_str!("../../../vault/src/open/rfc9180.json");
        let vectors: Vectors = serde_json::from_str(vectors).unwrap();
        let mut stream = stream(&vectors);

        for Encryption { sequence, aad, pt, ct } in &vectors.encryptions {
            while stream.next() < *sequence {
                stream.seal(b"", &mut Vec::new(), 0).unwrap();
            }
            let mut buffer = [b"before ", &bytes(pt)[..]].concat();
            stream.seal(&bytes(aad), &mut buffer, 7).unwrap();
            assert_eq!(buffer, [b"before ", &bytes(ct)[..]].concat());
        }
        assert_eq!(vectors.encryptions.len(), 6);
    }

    #[test]
    fn no_nonce_is_used_twice() {
        let vectors = include_str!("../../../vault/src/open/rfc9180.json");
        let mut stream = stream(&serde_json::from_str(vectors).unwrap());
        for _ in 0..=u16::MAX {
            stream.seal(b"", &mut Vec::new(), 0).unwrap();
        }

        let mut buffer = b"before value".to_vec();
        for _ in 0..2 {
            assert_eq!(stream.seal(b"", &mut buffer, 7), Err(NotSealed));
            assert_eq!(buffer, b"before ");
        }
    }
}
