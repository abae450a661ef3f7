//! Seals raw values to the public key of the vault. Only the holder of the private key can open the values.
//!
//! # Bytes
//!
//! HPKE ([RFC 9180]) in base mode, with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
//!
//! | part | bytes |
//! |---|---|
//! | `info` | `login-etl vault 1` |
//! | associated data | the field's name, a colon, and the token in 64 lowercase hexadecimal digits |
//! | plaintext | the canonical value, the byte 80, and zero bytes up to the padded length |
//! | padded length | 48; for a value of more than 47 bytes the next multiple of 64 |
//! | entry | sequence number (2 bytes, big-endian), field (`i` or `d`), token (32 bytes), ciphertext and tag |
//!
//! A stream is one context of HPKE: an encapsulated key, and at most 1,000 values with the sequence numbers from 0. A
//! [`Body`] is entries of one stream and one length, one after the other. An ordinary entry has 99 bytes, and a body of
//! such entries has at most 80 of them.
//!
//! The associated data bind a value to its token: a ciphertext that is moved to another token does not open. The padding
//! hides the length of ordinary values, which an AEAD shows: `192.0.2.1` is shorter than `198.51.100.200`.
//!
//! [RFC 9180]: https://www.rfc-editor.org/rfc/rfc9180

use std::fmt;
use std::time::{Duration, SystemTime};

use super::sealed_tokens::SealedTokens;
pub use super::sealing_stream::NotSealed;
use super::sealing_stream::{SealingStream, TAG_LENGTH};
use crate::hpke::POINT_LENGTH;

/// The `info` of each stream.
pub const INFO: &[u8] = b"login-etl vault 1";
/// The most values of a stream. Whoever opens one value could open all of its stream.
const VALUES_PER_STREAM: u16 = 1_000;
/// How long a stream is used.
const STREAM_LIFETIME: Duration = Duration::from_mins(5);
/// The length of an ordinary plaintext: an address in IPv6 has at most 45 bytes.
const PADDED_LENGTH: usize = 48;
/// A longer plaintext has a multiple of this length.
const LONG_BLOCK: usize = 64;
/// Marks the end of the value in a plaintext.
pub const END_OF_VALUE: u8 = 0x80;
/// The length of what stands before the ciphertext in an entry.
const HEADER_LENGTH: usize = 35;
/// The most bytes of a body, unless one entry has more. A row with such a body fits into a page of Postgres.
const BODY_LENGTH: usize = 8_000;

/// Seals values to a public key, each token once.
pub struct Sealer {
    public_key: [u8; POINT_LENGTH],
    stream: SealingStream,
    stream_started: SystemTime,
    /// The tokens whose values the vault has.
    tokens: SealedTokens,
    associated_data: Vec<u8>,
}

/// The sealed values of some rows.
#[derive(Default)]
pub struct SealedValues {
    bodies: Vec<Body>,
}

/// Some sealed values of one stream and one length.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    /// The encapsulated key of the stream: an uncompressed point.
    pub encapsulated_key: [u8; POINT_LENGTH],
    /// The length of an entry.
    pub entry_length: usize,
    /// The entries, one after the other.
    pub entries: Vec<u8>,
}

/// A value to seal, and its token.
pub(super) struct Value<'v> {
    pub(super) field: &'static str,
    pub(super) token: &'v [u8; 32],
    pub(super) token_digits: &'v [u8; 64],
    pub(super) canonical: &'v str,
}

impl Sealer {
    /// Takes the public key: an uncompressed point of P-256.
    ///
    /// # Errors
    ///
    /// [`NotSealed`] if the bytes are not a point of the curve.
    pub fn new(point: &[u8]) -> Result<Self, NotSealed> {
        let public_key = point.try_into().map_err(|_| NotSealed)?;
        Ok(Self {
            stream: SealingStream::start(&public_key, INFO)?,
            stream_started: SystemTime::now(),
            public_key,
            tokens: SealedTokens::default(),
            associated_data: Vec::new(),
        })
    }

    /// Prepares for a batch at `now`: ends a stream that was used for five minutes, and forgets which tokens were sealed
    /// an hour ago or earlier, because their values may have been erased since. The wall clock goes on while Lambda
    /// freezes the process.
    ///
    /// # Errors
    ///
    /// [`NotSealed`].
    pub fn begin(&mut self, now: SystemTime) -> Result<(), NotSealed> {
        let is_old = now.duration_since(self.stream_started).is_ok_and(|age| age > STREAM_LIFETIME);
        if is_old {
            self.start_stream()?;
        }
        self.tokens.expire(now);
        Ok(())
    }

    /// Seals a value, unless the value of its token is sealed already.
    pub(super) fn seal(&mut self, value: &Value<'_>, sealed: &mut SealedValues) -> Result<(), NotSealed> {
        if !self.tokens.insert(value.token) {
            return Ok(());
        }
        if self.stream.next() == VALUES_PER_STREAM {
            self.start_stream()?;
        }
        self.associated_data.clear();
        self.associated_data.extend_from_slice(value.field.as_bytes());
        self.associated_data.push(b':');
        self.associated_data.extend_from_slice(value.token_digits);

        let padded_length = padded_length(value.canonical.len());
        let entry_length = HEADER_LENGTH + padded_length + TAG_LENGTH;
        let entries = sealed.entries(self.stream.encapsulated_key(), entry_length);
        // Before the plaintext: a buffer that grows leaves a copy behind, which nobody wipes.
        entries.reserve(entry_length);
        entries.extend_from_slice(&self.stream.next().to_be_bytes());
        entries.extend_from_slice(&value.field.as_bytes()[..1]);
        entries.extend_from_slice(value.token);
        let start = entries.len();
        entries.extend_from_slice(value.canonical.as_bytes());
        entries.push(END_OF_VALUE);
        entries.resize(start + padded_length, 0);
        self.stream.seal(&self.associated_data, entries, start)
    }

    fn start_stream(&mut self) -> Result<(), NotSealed> {
        self.stream = SealingStream::start(&self.public_key, INFO)?;
        self.stream_started = SystemTime::now();
        Ok(())
    }

    /// Notes that the transaction with the sealed values was committed.
    pub fn committed(&mut self) {
        self.tokens.keep();
    }

    /// Notes that the transaction with the sealed values was not committed, or that some of them were left out. They are
    /// sealed again.
    pub fn not_committed(&mut self) {
        self.tokens.forget();
    }
}

impl SealedValues {
    /// Returns the bodies.
    #[must_use]
    pub fn bodies(&self) -> &[Body] {
        &self.bodies
    }

    /// Returns the number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bodies.iter().map(|body| (body.entries.len() / body.entry_length) as u64).sum()
    }

    /// Returns the entries of a body that has room for one more.
    fn entries(&mut self, encapsulated_key: &[u8; POINT_LENGTH], entry_length: usize) -> &mut Vec<u8> {
        let has_room = |body: &Body| {
            body.entry_length == entry_length
                && body.entries.len() + entry_length <= BODY_LENGTH
                && body.encapsulated_key == *encapsulated_key
        };
        // From the end, where the newest body is. Mostly it has room.
        let index = self.bodies.iter().rposition(has_room).unwrap_or_else(|| {
            let encapsulated_key = *encapsulated_key;
            self.bodies.push(Body { encapsulated_key, entry_length, entries: Vec::new() });
            self.bodies.len() - 1
        });
        &mut self.bodies[index].entries
    }
}

/// Returns the length of the plaintext of a value that has this length in bytes.
#[must_use]
pub fn padded_length(value: usize) -> usize {
    let length = value + 1;
    if length <= PADDED_LENGTH { PADDED_LENGTH } else { length.next_multiple_of(LONG_BLOCK) }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl fmt::Debug for SealedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedValues").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("entry_length", &self.entry_length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use hpke::aead::AesGcm256;
    use hpke::kdf::HkdfSha256;
    use hpke::kem::DhP256HkdfSha256;
    use hpke::{Deserializable, Kem, OpModeR, Serializable, setup_receiver};
    use proptest::prelude::*;

    use super::super::{DeviceId, Field, Ip, Masked, Masker, Pii};
    use super::*;

    type PrivateKey = <DhP256HkdfSha256 as Kem>::PrivateKey;

    /// An entry that another implementation has read.
    #[derive(Debug, PartialEq)]
    struct Entry {
        sequence: u16,
        field: u8,
        token: [u8; 32],
        value: String,
        ciphertext: usize,
    }

    fn key_pair() -> (PrivateKey, Vec<u8>) {
        let (private, public) =
            DhP256HkdfSha256::derive_keypair(b"a key pair that only tests use, of 32+ bytes");
        (private, public.to_bytes().to_vec())
    }

    fn masker(point: &[u8]) -> Masker {
        let masker = Masker::new(&"0123456789abcdef0123456789abcdef".into()).unwrap();
        masker.sealing(Sealer::new(point).unwrap())
    }

    fn mask<F: Field>(masker: &mut Masker, raw: &str) -> Masked<F> {
        masker.mask(&Pii::<F>::new(raw.to_owned().into()).unwrap())
    }

    /// Opens all entries with the crate `hpke`, which is another implementation.
    fn open(private_key: &PrivateKey, sealed: &SealedValues) -> Vec<Entry> {
        let mut streams = HashMap::<_, Vec<_>>::new();
        for body in sealed.bodies() {
            assert_eq!(body.entries.len() % body.entry_length, 0);
            let entries = body.entries.chunks(body.entry_length);
            streams.entry(body.encapsulated_key).or_default().extend(entries);
        }
        let mut opened = Vec::new();
        for (encapsulated_key, mut entries) in streams {
            let encapsulated_key = Deserializable::from_bytes(&encapsulated_key).unwrap();
            let mut context = setup_receiver::<AesGcm256, HkdfSha256, DhP256HkdfSha256>(
                &OpModeR::Base,
                private_key,
                &encapsulated_key,
                b"login-etl vault 1",
            )
            .unwrap();
            entries.sort_unstable();
            for (number, entry) in (0..).zip(entries) {
                let (sequence, rest) = entry.split_first_chunk().unwrap();
                assert_eq!(u16::from_be_bytes(*sequence), number, "each number once");
                let (&field, rest) = rest.split_first().unwrap();
                let (token, ciphertext) = rest.split_first_chunk::<32>().unwrap();
                let name = if field == b'i' { "ip" } else { "device_id" };
                let digits = base16ct::lower::encode_string(token);
                let plaintext = context.open(ciphertext, format!("{name}:{digits}").as_bytes()).unwrap();
                let end = plaintext.iter().rposition(|byte| *byte != 0).unwrap();
                assert_eq!(plaintext[end], 0x80);
                let value = String::from_utf8(plaintext[..end].to_vec()).unwrap();
                let ciphertext = ciphertext.len();
                opened.push(Entry { sequence: number, field, token: *token, value, ciphertext });
            }
        }
        opened
    }

    #[test]
    fn another_implementation_opens_canonical_values() {
        let (private_key, point) = key_pair();
        let mut masker = masker(&point);
        let ip = mask::<Ip>(&mut masker, " ::ffff:192.0.2.1 ");
        let device_id = mask::<DeviceId>(&mut masker, "593-47-5928");

        let entries = open(&private_key, &masker.take_sealed().unwrap());

        let read = entries.iter().map(|entry| {
            (
                entry.sequence,
                entry.field,
                base16ct::lower::encode_string(&entry.token),
                &*entry.value,
                entry.ciphertext,
            )
        });
        let expected = [
            (0, b'i', ip.as_str().to_owned(), "192.0.2.1", 64),
            (1, b'd', device_id.as_str().to_owned(), "593-47-5928", 64),
        ];
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_token_is_sealed_once() {
        let (_, point) = key_pair();
        let mut masker = masker(&point);
        let mut seal = |raw| {
            _ = mask::<Ip>(&mut masker, raw);
            masker.take_sealed().unwrap().count()
        };

        assert_eq!(
            [seal("192.0.2.1"), seal("192.0.2.1"), seal("::ffff:192.0.2.1"), seal("192.0.2.2")],
            [1, 0, 0, 1]
        );

        let mut sealer = masker.into_sealer().unwrap();
        sealer.not_committed();
        let mut masker = super::tests::masker(&point).sealing(sealer);
        let mut seal = |raw| {
            _ = mask::<Ip>(&mut masker, raw);
            masker.take_sealed().unwrap().count()
        };
        assert_eq!([seal("192.0.2.1"), seal("192.0.2.1")], [1, 0]);
    }

    #[test]
    fn a_stream_has_at_most_a_thousand_values() {
        let (private_key, point) = key_pair();
        let mut masker = masker(&point);
        for number in 0..2_500 {
            _ = mask::<DeviceId>(&mut masker, &format!("device {number}"));
        }

        let sealed = masker.take_sealed().unwrap();

        let mut counts = HashMap::new();
        for body in sealed.bodies() {
            assert!(body.entries.len() <= 8_000);
            *counts.entry(body.encapsulated_key).or_insert(0) += body.entries.len() / body.entry_length;
        }
        let mut counts: Vec<_> = counts.into_values().collect();
        counts.sort_unstable();
        assert_eq!(counts, [500, 1_000, 1_000]);
        assert_eq!(sealed.bodies().len(), 13 + 13 + 7, "with at most 80 values each");
        assert_eq!(sealed.count(), 2_500);
        assert_eq!(open(&private_key, &sealed).len(), 2_500);
    }

    #[test]
    fn ordinary_values_have_one_length() {
        let (private_key, point) = key_pair();
        let mut masker = masker(&point);
        let longest_address = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255";
        assert_eq!(longest_address.len(), 45);
        _ = mask::<Ip>(&mut masker, "::1");
        _ = mask::<Ip>(&mut masker, longest_address);
        for length in [1, 47, 48, 63, 64, 127, 128, 100_000] {
            _ = mask::<DeviceId>(&mut masker, &"x".repeat(length));
        }

        let sealed = masker.take_sealed().unwrap();

        let mut entries = open(&private_key, &sealed);
        entries.sort_by_key(|entry| entry.sequence);
        let lengths: Vec<_> =
            entries.iter().map(|entry| (entry.value.len(), entry.ciphertext - 16)).collect();
        let expected =
            [(3, 48), (39, 48), (1, 48), (47, 48), (48, 64), (63, 64), (64, 128), (127, 128), (128, 192)];
        assert_eq!(lengths[..9], expected);
        assert_eq!(lengths[9..], [(100_000, 100_032)]);
        assert_eq!(sealed.bodies().len(), 5, "one for each length");
    }

    #[test]
    fn other_points_are_refused() {
        let (_, point) = key_pair();
        let mut off_the_curve = point.clone();
        off_the_curve[64] ^= 1;

        for point in [&off_the_curve[..], &point[..64], &[], &[4; 65], &[0; 65]] {
            assert_eq!(Sealer::new(point).err(), Some(NotSealed));
        }
    }

    #[test]
    fn debug_prints_no_value() {
        let (_, point) = key_pair();
        let mut masker = masker(&point);
        let token = mask::<Ip>(&mut masker, "192.0.2.1");
        let sealed = masker.take_sealed().unwrap();

        let texts = format!("{sealed:?} {:?} {masker:?} {:?}", sealed.bodies(), Sealer::new(&point).unwrap());

        assert_eq!(
            texts,
            "SealedValues { count: 1, .. } [Body { entry_length: 99, .. }] Masker { .. } Sealer { .. }"
        );
        assert!(!texts.contains(token.as_str()));
    }

    proptest! {
        #[test]
        fn all_values_are_opened_as_they_were_masked(values in proptest::collection::vec(".{0,200}", 0..20)) {
            let (private_key, point) = key_pair();
            let mut masker = masker(&point);
            let mut expected = std::collections::BTreeSet::new();
            for raw in &values {
                if let Some(pii) = Pii::<DeviceId>::new(raw.as_str().into()) {
                    expected.insert((masker.mask(&pii).as_str().to_owned(), raw.trim().to_owned()));
                }
            }

            let entries = open(&private_key, &masker.take_sealed().unwrap());

            let opened = entries.into_iter().map(|entry| (base16ct::lower::encode_string(&entry.token), entry.value));
            prop_assert_eq!(opened.collect::<std::collections::BTreeSet<_>>(), expected);
        }
    }
}
