//! Opens what ingest sealed: HPKE ([RFC 9180]) in base mode, with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and
//! AES-256-GCM.
//!
//! The private key never leaves KMS. KMS does the only step of HPKE that needs it, the Diffie-Hellman exchange; the
//! steps after it are in [`login::hpke`].
//!
//! Messages that other implementations sealed are opened in the tests, and the vectors of the RFC.
//!
//! [RFC 9180]: https://www.rfc-editor.org/rfc/rfc9180

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use login::hpke::{BaseNonce, KeySchedule};
use login::pii::sealer::INFO;
use login_etl::point::Point;
use zeroize::Zeroizing;

/// The number of bytes of the x coordinate of a point.
const COORDINATE_LENGTH: usize = 32;

/// The x coordinate of the point that a Diffie-Hellman exchange gives, as `DeriveSharedSecret` of KMS returns it.
pub struct SharedCoordinate(Zeroizing<[u8; COORDINATE_LENGTH]>);

/// Opens the messages of one stream: a receiver's context of HPKE.
pub struct StreamOpener {
    key: LessSafeKey,
    base_nonce: BaseNonce,
}

/// The bytes are not what was sealed with this key, sequence number and associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed value does not open")]
pub struct Unopenable;

impl StreamOpener {
    /// Computes the context of the stream that `encapsulated` (`enc`) begins.
    #[must_use]
    pub fn new(recipient: &Point, encapsulated: &Point, coordinate: &SharedCoordinate) -> Self {
        Self::with_info(recipient, encapsulated, coordinate, INFO)
    }

    /// Opens the message with this sequence number.
    ///
    /// # Errors
    ///
    /// [`Unopenable`].
    pub fn open(
        &self,
        sequence: u16,
        associated: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unopenable> {
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let plaintext = self.key.open_in_place(self.nonce(sequence), Aad::from(associated), &mut buffer);
        let length = plaintext.map_err(|_| Unopenable)?.len();
        buffer.truncate(length);
        Ok(buffer)
    }

    fn with_info(
        recipient: &Point,
        encapsulated: &Point,
        SharedCoordinate(coordinate): &SharedCoordinate,
        info: &[u8],
    ) -> Self {
        let KeySchedule { key, base_nonce } =
            KeySchedule::new(recipient.as_bytes(), encapsulated.as_bytes(), coordinate, info);
        let key = UnboundKey::new(&AES_256_GCM, &*key)
            .unwrap_or_else(|_| unreachable!("a key of AES-256 has 32 bytes"));
        Self { key: LessSafeKey::new(key), base_nonce }
    }

    fn nonce(&self, sequence: u16) -> Nonce {
        Nonce::assume_unique_for_key(self.base_nonce.nonce(sequence))
    }
}

impl TryFrom<Vec<u8>> for SharedCoordinate {
    type Error = Unopenable;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Unopenable> {
        let bytes = Zeroizing::new(bytes);
        let coordinate = bytes.as_slice().try_into().map_err(|_| Unopenable)?;
        Ok(Self(Zeroizing::new(coordinate)))
    }
}

impl fmt::Debug for SharedCoordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedCoordinate")
    }
}

impl fmt::Debug for StreamOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamOpener")
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
    use hpke::aead::AesGcm256;
    use hpke::kdf::HkdfSha256;
    use hpke::kem::DhP256HkdfSha256;
    use hpke::{Deserializable, Kem, OpModeS, Serializable};
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    type Sender = hpke::aead::AeadCtxS<AesGcm256, HkdfSha256, DhP256HkdfSha256>;

    #[derive(Deserialize)]
    struct Vectors {
        info: String,
        #[serde(rename = "skRm")]
        private_key: String,
        #[serde(rename = "pkRm")]
        recipient: String,
        #[serde(rename = "enc")]
        encapsulated: String,
        base_nonce: String,
        encryptions: Vec<Encryption>,
    }

    #[derive(Deserialize)]
    struct Encryption {
        sequence: u16,
        nonce: String,
        aad: String,
        pt: String,
        ct: String,
    }

    #[derive(Deserialize)]
    struct OfPython {
        private_key: String,
        public_key: String,
        streams: Vec<StreamOfPython>,
    }

    #[derive(Deserialize)]
    struct StreamOfPython {
        encapsulated: String,
        messages: Vec<MessageOfPython>,
    }

    #[derive(Deserialize)]
    struct MessageOfPython {
        associated: String,
        plaintext: String,
        ciphertext: String,
    }

    fn bytes(digits: &str) -> Vec<u8> {
        base16ct::lower::decode_vec(digits).unwrap()
    }

    fn point(bytes: &[u8]) -> Point {
        bytes.try_into().unwrap()
    }

    /// Does the step of HPKE that KMS does.
    fn exchange(private_key: &PrivateKey, encapsulated: &Point) -> SharedCoordinate {
        let peer = UnparsedPublicKey::new(&ECDH_P256, encapsulated.as_bytes());
        agree(private_key, peer, Unopenable, |coordinate| coordinate.to_vec().try_into()).unwrap()
    }

    /// Begins a stream with the crate `hpke`, and computes its receiver's context with this module.
    fn stream() -> (Sender, StreamOpener) {
        let private_key = PrivateKey::generate(&ECDH_P256).unwrap();
        let public_key = private_key.compute_public_key().unwrap();
        let recipient = <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(public_key.as_ref()).unwrap();
        let (encapsulated, sender) =
            hpke::setup_sender::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(&OpModeS::Base, &recipient, INFO)
                .unwrap();
        let encapsulated = point(&encapsulated.to_bytes());
        let coordinate = exchange(&private_key, &encapsulated);
        (sender, StreamOpener::new(&point(public_key.as_ref()), &encapsulated, &coordinate))
    }

    #[test]
    fn vectors_of_the_rfc_open() {
        let vectors: Vectors = serde_json::from_str(include_str!("open/rfc9180.json")).unwrap();
        let private_key = PrivateKey::from_private_key(&ECDH_P256, &bytes(&vectors.private_key)).unwrap();
        let encapsulated = point(&bytes(&vectors.encapsulated));
        let coordinate = exchange(&private_key, &encapsulated);
        let recipient = point(&bytes(&vectors.recipient));

        let opener = StreamOpener::with_info(&recipient, &encapsulated, &coordinate, &bytes(&vectors.info));

        assert_eq!(opener.base_nonce.nonce(0), *bytes(&vectors.base_nonce));
        for Encryption { sequence, nonce, aad, pt, ct } in &vectors.encryptions {
            assert_eq!(*opener.nonce(*sequence).as_ref(), *bytes(nonce));
            assert_eq!(*opener.open(*sequence, &bytes(aad), &bytes(ct)).unwrap(), bytes(pt));
        }
        assert_eq!(vectors.encryptions.len(), 6);
    }

    #[test]
    fn stream_of_another_implementation_opens() {
        let (mut sender, opener) = stream();

        for sequence in 0..1000 {
            let plaintext = format!("plaintext {sequence}");
            let associated = format!("ip:{sequence}");
            let ciphertext = sender.seal(plaintext.as_bytes(), associated.as_bytes()).unwrap();

            let open = opener.open(sequence, associated.as_bytes(), &ciphertext);

            assert_eq!(*open.unwrap(), plaintext.as_bytes());
        }
    }

    #[test]
    fn streams_of_python_open() {
        let of_python: OfPython = serde_json::from_str(include_str!("open/python.json")).unwrap();
        let private_key = PrivateKey::from_private_key(&ECDH_P256, &bytes(&of_python.private_key)).unwrap();
        let recipient = point(&bytes(&of_python.public_key));

        for StreamOfPython { encapsulated, messages } in of_python.streams {
            let encapsulated = point(&bytes(&encapsulated));
            let coordinate = exchange(&private_key, &encapsulated);
            let opener = StreamOpener::new(&recipient, &encapsulated, &coordinate);
            for (sequence, message) in (0..).zip(messages) {
                let open = opener.open(sequence, message.associated.as_bytes(), &bytes(&message.ciphertext));
                assert_eq!(*open.unwrap(), bytes(&message.plaintext));
            }
        }
    }

    #[test]
    fn other_streams_do_not_open() {
        let (mut sender, _) = stream();
        let (_, opener) = stream();
        let ciphertext = sender.seal(b"plaintext", b"ip:1").unwrap();

        assert_eq!(opener.open(0, b"ip:1", &ciphertext), Err(Unopenable));
    }

    #[test]
    fn other_info_does_not_open() {
        let private_key = PrivateKey::generate(&ECDH_P256).unwrap();
        let public_key = private_key.compute_public_key().unwrap();
        let recipient = <DhP256HkdfSha256 as Kem>::PublicKey::from_bytes(public_key.as_ref()).unwrap();
        let (encapsulated, mut sender) = hpke::setup_sender::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
            &OpModeS::Base,
            &recipient,
            b"login-etl vault 2",
        )
        .unwrap();
        let encapsulated = point(&encapsulated.to_bytes());
        let coordinate = exchange(&private_key, &encapsulated);
        let ciphertext = sender.seal(b"plaintext", b"ip:1").unwrap();

        let opener = StreamOpener::new(&point(public_key.as_ref()), &encapsulated, &coordinate);

        assert_eq!(opener.open(0, b"ip:1", &ciphertext), Err(Unopenable));
    }

    #[test]
    fn coordinate_has_32_bytes() {
        for length in [0, 31, 33, 64] {
            assert_eq!(SharedCoordinate::try_from(vec![1; length]).err(), Some(Unopenable));
        }
    }

    #[test]
    fn debug_prints_no_secret() {
        let (_, opener) = stream();
        let coordinate = SharedCoordinate::try_from(vec![1; 32]).unwrap();

        assert_eq!(format!("{opener:?} {coordinate:?}"), "StreamOpener SharedCoordinate");
    }

    proptest! {
        #[test]
        fn changed_ciphertexts_never_open(
            plaintext in prop::collection::vec(any::<u8>(), 0..200),
            flipped: prop::sample::Index,
            bit in 0..8_u8,
            cut: prop::sample::Index,
            extra in prop::collection::vec(any::<u8>(), 1..20),
        ) {
            let (mut sender, opener) = stream();
            let ciphertext = sender.seal(&plaintext, b"ip:1").unwrap();

            let mut changed = ciphertext.clone();
            changed[flipped.index(ciphertext.len())] ^= 1_u8 << bit;
            prop_assert_eq!(opener.open(0, b"ip:1", &changed), Err(Unopenable));
            let cut = cut.index(ciphertext.len());
            prop_assert_eq!(opener.open(0, b"ip:1", &ciphertext[..cut]), Err(Unopenable));
            let longer = [&ciphertext[..], &extra].concat();
            prop_assert_eq!(opener.open(0, b"ip:1", &longer), Err(Unopenable));
            prop_assert_eq!(&*opener.open(0, b"ip:1", &ciphertext).unwrap(), &plaintext);
        }

        #[test]
        fn moved_ciphertexts_never_open(one in "[0-9a-f]{64}", other in "[0-9a-f]{64}", sequence in 1_u16..) {
            prop_assume!(one != other);
            let (mut sender, opener) = stream();
            let [of_one, of_other] =
                [&one, &other].map(|token| sender.seal(b"value", format!("ip:{token}").as_bytes()).unwrap());

            for (sequence, associated, ciphertext) in [
                (0, format!("ip:{other}"), &of_one),
                (0, format!("device_id:{one}"), &of_one),
                (0, format!("ip:{other}"), &of_other),
                (0, format!("ip:{one}"), &of_other),
                (sequence, format!("ip:{one}"), &of_one),
            ] {
                prop_assert_eq!(opener.open(sequence, associated.as_bytes(), ciphertext), Err(Unopenable));
            }
            let associated = format!("ip:{other}");
            prop_assert_eq!(&*opener.open(1, associated.as_bytes(), &of_other).unwrap(), b"value");
        }
    }
}
