//! The privacy boundary: the only code that can read a raw personal value.
//!
//! A raw value enters with [`Pii::new`] and leaves only as the token that [`Masker::mask`] returns and, where there is
//! a vault, as a ciphertext of the [`sealer`], which nobody but the vault can open.
//! [`Pii`] has no accessor, `Clone`, `Display` or `Serialize`, and its `Debug` prints only the field's
//! name. A `Pii` that owns a copy of the value wipes this copy when it is dropped. Only [`Masker::mask`]
//! makes a [`Masked`]:
//!
//! ```compile_fail,E0423
//! # use login::pii::{Ip, Masked};
//! let forged: Masked<Ip> = Masked([b'0'; 64], std::marker::PhantomData);
//! ```
//!
//! A token carries its field in its type, so a token of an address cannot reach the column of device ids:
//!
//! ```compile_fail,E0308
//! # use login::pii::{DeviceId, Ip, Masked};
//! fn swap(ip: Masked<Ip>) -> Masked<DeviceId> {
//!     ip
//! }
//! ```

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::net::IpAddr;
use std::str::FromStr;

use hmac::{HmacReset, Mac};
use secrecy::SecretString;
use secrecy::zeroize::Zeroize;
use sha2::Sha256;

use self::sealer::{NotSealed, SealedValues, Sealer, Value};

mod salts;
mod sealed_tokens;
pub mod sealer;
mod sealing_stream;

pub use self::salts::{MIN_DIFFERENT_SALT_BYTES, MIN_SALT_BYTES, Resalter, Salts, WeakSalt};
use self::salts::{keyed, keyed_later};

/// A field that is masked.
pub trait Field: sealed::Field {}

/// The IP address that a user logged in from.
#[derive(Debug)]
pub enum Ip {}

/// The id of the device that a user logged in with.
#[derive(Debug)]
pub enum DeviceId {}

/// A raw personal value, borrowed from the event or, where it was escaped there, owned.
pub struct Pii<'a, F: Field>(Cow<'a, str>, PhantomData<F>);

/// The token of a value: 64 lowercase hexadecimal digits. Equal values have equal tokens.
pub struct Masked<F: Field>([u8; 64], PhantomData<F>);

/// Masks values with a secret salt, and seals them where there is a vault. A clone seals nothing.
pub struct Masker {
    /// HMAC keyed with the first salt.
    hmac: HmacReset<Sha256>,
    /// HMAC keyed with each later salt.
    later: Vec<HmacReset<Sha256>>,
    unparsed_ips: u64,
    sealing: Option<Sealing>,
}

/// The sealer of a batch, and the values that it sealed.
struct Sealing {
    sealer: Sealer,
    /// The values that were sealed since the last call of [`Masker::take_sealed`].
    sealed: Result<SealedValues, NotSealed>,
}

/// Identifies a salt without revealing it.
///
/// The database keeps it. It makes guessing the salt no easier: a guess can be tested just as well with
/// the token of a known address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaltFingerprint(String);

/// A text is not the fingerprint of a salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fingerprint is not 16 lowercase hexadecimal digits")]
pub struct NotAFingerprint;

impl<'a, F: Field> Pii<'a, F> {
    /// Takes a raw value; `None` if the value is blank: a blank value is stored as NULL, not as a token.
    #[must_use]
    pub fn new(raw: Cow<'a, str>) -> Option<Self> {
        let pii = Self(raw, PhantomData);
        (!pii.0.trim().is_empty()).then_some(pii)
    }

    /// Copies a value that is borrowed, so that it outlives its source.
    pub(crate) fn into_owned(mut self) -> Pii<'static, F> {
        Pii(Cow::Owned(mem::take(&mut self.0).into_owned()), PhantomData)
    }
}

impl<F: Field> Masked<F> {
    /// Returns the token as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_else(|_| unreachable!("hexadecimal digits are ASCII"))
    }
}

impl SaltFingerprint {
    /// Returns the fingerprint as 16 lowercase hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SaltFingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_fingerprint = text.len() == 16 && text.bytes().all(is_digit);
        if is_fingerprint { Ok(Self(text.to_owned())) } else { Err(NotAFingerprint) }
    }
}

impl Salts {
    /// Returns a masker for each generation, the oldest first: the second masks with the first salt and then with the
    /// second, and so on.
    ///
    /// # Errors
    ///
    /// [`WeakSalt`].
    pub fn maskers(&self) -> Result<Vec<Masker>, WeakSalt> {
        let first = Masker::new(&self.first)?;
        let later: Vec<_> = self.later.iter().map(keyed_later).collect::<Result<_, _>>()?;
        let masker = |count| Masker { later: later[..count].to_vec(), ..first.clone() };
        Ok((0..=later.len()).map(masker).collect())
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
        Ok(generation.zip(later).map(|(generation, later)| Resalter::new(later[generation..].to_vec())))
    }
}

impl Masker {
    /// Keys the hash with the UTF-8 bytes of the salt.
    ///
    /// # Errors
    ///
    /// [`WeakSalt`] for fewer than [`MIN_SALT_BYTES`], or fewer than [`MIN_DIFFERENT_SALT_BYTES`] different bytes.
    pub fn new(salt: &SecretString) -> Result<Self, WeakSalt> {
        Ok(Self { hmac: keyed(salt)?, later: Vec::new(), unparsed_ips: 0, sealing: None })
    }

    /// Returns the masker with a sealer: from now on each value that is masked is sealed too.
    #[must_use]
    pub fn sealing(self, sealer: Sealer) -> Self {
        Self { sealing: Some(Sealing { sealer, sealed: Ok(SealedValues::default()) }), ..self }
    }

    /// Returns the values that were sealed since the last call; none without a sealer.
    ///
    /// # Errors
    ///
    /// [`NotSealed`] if a value was masked and not sealed.
    pub fn take_sealed(&mut self) -> Result<SealedValues, NotSealed> {
        let Some(sealing) = &mut self.sealing else { return Ok(SealedValues::default()) };
        mem::replace(&mut sealing.sealed, Ok(SealedValues::default()))
    }

    /// Returns the sealer.
    #[must_use]
    pub fn into_sealer(self) -> Option<Sealer> {
        self.sealing.map(|sealing| sealing.sealer)
    }

    /// Returns the token of a value: the lowercase hex of HMAC-SHA-256 over the field's name, a colon
    /// and the canonical value.
    ///
    /// With later salts, each of them masks the 64 digits of the token before it.
    ///
    /// The canonical value is trimmed. An `ip` that parses as an address is written in its standard
    /// text: IPv4-mapped IPv6 as IPv4, IPv6 as [RFC 5952] says.
    ///
    /// ```
    /// # use login::pii::{Ip, Masker, Pii};
    /// let mut masker = Masker::new(&"0123456789abcdef0123456789abcdef".into())?;
    /// let mut mask = |ip: &'static str| masker.mask(&Pii::<Ip>::new(ip.into()).unwrap());
    ///
    /// // printf 'ip:192.0.2.1' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    /// let token = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3";
    /// assert_eq!(mask("192.0.2.1").as_str(), token);
    /// assert_eq!(mask(" ::ffff:192.0.2.1 ").as_str(), token);
    /// # Ok::<(), login::pii::WeakSalt>(())
    /// ```
    ///
    /// [RFC 5952]: https://www.rfc-editor.org/rfc/rfc5952
    #[must_use]
    pub fn mask<F: Field>(&mut self, value: &Pii<'_, F>) -> Masked<F> {
        let trimmed = value.0.trim();
        let canonical = F::canonical(trimmed).unwrap_or_else(|| {
            self.unparsed_ips += 1;
            Cow::Borrowed(trimmed)
        });
        let hash = self.hash(F::NAME, &canonical);
        let mut digits = [0; 64];
        let Ok(_) = base16ct::lower::encode(&hash, &mut digits) else {
            unreachable!("32 bytes are 64 digits");
        };
        if let Some(sealing) = &mut self.sealing {
            sealing.seal(&Value {
                field: F::NAME,
                token: &hash,
                token_digits: &digits,
                canonical: &canonical,
            });
        }
        Masked(digits, PhantomData)
    }

    /// Returns the number of masked values of `ip` that were not an IP address, such as `192.0.2.1:443`. Each
    /// spelling of such a value has its own token.
    #[must_use]
    pub fn unparsed_ips(&self) -> u64 {
        self.unparsed_ips
    }

    /// Returns the fingerprint of the salt.
    #[must_use]
    pub fn salt_fingerprint(&self) -> SaltFingerprint {
        // No field is called `salt`, so the fingerprint is never the start of a token.
        SaltFingerprint(base16ct::lower::encode_string(&self.clone().hash("salt", "fingerprint")[..8]))
    }

    /// Returns HMAC-SHA-256 over `user_id:` and the id. The audit entries of the vault name a user by it.
    #[must_use]
    pub fn hash_user_id(&mut self, user_id: &str) -> [u8; 32] {
        self.hash("user_id", user_id)
    }

    fn hash(&mut self, name: &str, value: &str) -> [u8; 32] {
        self.hmac.update(name.as_bytes());
        self.hmac.update(b":");
        self.hmac.update(value.as_bytes());
        // Reset, not cloned: wiping a clone took 20 % of the time of a hash.
        let mut hash = self.hmac.finalize_reset().into_bytes();
        for later in &mut self.later {
            let mut digits = [0; 64];
            let Ok(_) = base16ct::lower::encode(&hash, &mut digits) else {
                unreachable!("32 bytes are 64 digits");
            };
            later.update(&digits);
            hash = later.finalize_reset().into_bytes();
        }
        hash.into()
    }
}

impl Sealing {
    /// Seals a value. After an error, the values before it must not be written without it.
    fn seal(&mut self, value: &Value<'_>) {
        if let Ok(sealed) = &mut self.sealed
            && let Err(error) = self.sealer.seal(value, sealed)
        {
            self.sealed = Err(error);
        }
    }
}

impl Clone for Masker {
    fn clone(&self) -> Self {
        Self {
            hmac: self.hmac.clone(),
            later: self.later.clone(),
            unparsed_ips: self.unparsed_ips,
            sealing: None,
        }
    }
}

impl Field for Ip {}

impl sealed::Field for Ip {
    const NAME: &'static str = "ip";

    fn canonical(trimmed: &str) -> Option<Cow<'_, str>> {
        Some(match trimmed.parse::<IpAddr>().ok()? {
            IpAddr::V6(address) => Cow::Owned(address.to_canonical().to_string()),
            // The parser accepts an IPv4 address only in its standard text.
            IpAddr::V4(_) => Cow::Borrowed(trimmed),
        })
    }
}

impl Field for DeviceId {}

impl sealed::Field for DeviceId {
    const NAME: &'static str = "device_id";

    fn canonical(trimmed: &str) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(trimmed))
    }
}

impl<F: Field> Drop for Pii<'_, F> {
    fn drop(&mut self) {
        if let Cow::Owned(copy) = &mut self.0 {
            copy.zeroize();
        }
    }
}

impl<F: Field> fmt::Debug for Pii<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pii<{}>", F::NAME)
    }
}

impl<F: Field> fmt::Debug for Masked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masked<{}>", F::NAME)
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").finish_non_exhaustive()
    }
}

mod sealed {
    use std::borrow::Cow;

    pub trait Field {
        /// The field's name, a part of the hashed text.
        const NAME: &'static str;

        /// Writes all spellings of a value in one way; `None` if the value is not of the field's kind.
        fn canonical(trimmed: &str) -> Option<Cow<'_, str>>;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masker() -> Masker {
        Masker::new(&"0123456789abcdef0123456789abcdef".into()).unwrap()
    }

    fn mask<F: Field>(raw: &str) -> Option<String> {
        Pii::<F>::new(raw.into()).map(|pii| masker().mask(&pii).as_str().to_owned())
    }

    /// These tokens are in users' tables, so they must never change.
    #[test]
    fn tokens_equal_those_of_openssl() {
        let ip = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3";
        let device_id = "02bf14ce51f48ed08e5a575ef1ddf777477cc7ff86a0e6b50721ca8efbb959a4";

        assert_eq!(mask::<Ip>("192.0.2.1").as_deref(), Some(ip));
        assert_eq!(mask::<DeviceId>("593-47-5928").as_deref(), Some(device_id));
    }

    #[test]
    fn spellings_of_one_address_have_one_token() {
        for spellings in [
            ["192.0.2.1", " 192.0.2.1\t", "::ffff:192.0.2.1", "::FFFF:c000:201", "0:0:0:0:0:ffff:192.0.2.1"],
            [
                "2001:db8::1",
                "2001:DB8:0:0:0:0:0:1",
                "2001:0db8::0001",
                "2001:db8:0::1",
                "\u{a0}2001:db8::1\n",
            ],
        ] {
            for spelling in spellings {
                assert_eq!(mask::<Ip>(spelling), mask::<Ip>(spellings[0]), "{spelling:?}");
            }
        }
    }

    #[test]
    fn other_texts_are_not_normalised() {
        let texts =
            ["192.0.2.01", "192.0.2.1:80", "[2001:db8::1]", "fe80::1%eth0", "unknown", "192.0.2", "UNKNOWN"];

        for (one, other) in texts.iter().zip(&texts[1..]) {
            assert_ne!(mask::<Ip>(one), mask::<Ip>(other));
        }
        assert_ne!(mask::<Ip>("192.0.2.01"), mask::<Ip>("192.0.2.1"));
    }

    #[test]
    fn only_texts_that_are_no_address_are_counted() {
        let mut masker = masker();
        let mut count = |raw: &'static str| {
            let before = masker.unparsed_ips();
            _ = masker.mask(&Pii::<Ip>::new(raw.into()).unwrap());
            masker.unparsed_ips() - before
        };

        for address in ["192.0.2.1", " 192.0.2.1\t", "::ffff:192.0.2.1", "2001:DB8::1", "10.0.0.1"] {
            assert_eq!(count(address), 0, "{address}");
        }
        for other in [
            "192.0.2.1:80",
            "[2001:db8::1]",
            "192.0.2.1, 198.51.100.7",
            "fe80::1%eth0",
            "192.0.2.1\u{200b}",
            "\u{feff}192.0.2.1",
            "192.0.2.01",
            "192.0.2.1/32",
            "unknown",
        ] {
            assert_eq!(count(other), 1, "{other}");
        }
        _ = masker.mask(&Pii::<DeviceId>::new("593-47-5928".into()).unwrap());
        assert_eq!(masker.unparsed_ips(), 9);
    }

    #[test]
    fn blank_values_are_no_values() {
        for blank in ["", " ", "\t\r\n", "\u{3000}"] {
            assert_eq!(mask::<Ip>(blank), None, "{blank:?}");
            assert_eq!(mask::<DeviceId>(blank), None, "{blank:?}");
        }
    }

    #[test]
    fn salt_length_is_counted_in_bytes() {
        assert_eq!(Masker::new(&"x".repeat(31).into()).err(), Some(WeakSalt::TooShort));
        assert!(Masker::new(&"éàèùâêîôûëïüçñßø".into()).is_ok());
    }

    #[test]
    fn repeated_bytes_are_no_salt() {
        for weak in ["x".repeat(32), "é".repeat(16), "0123456".repeat(5), "ab".repeat(1000)] {
            assert_eq!(Masker::new(&weak.into()).err(), Some(WeakSalt::TooUniform));
        }
        assert!(Masker::new(&"01234567".repeat(4).into()).is_ok());
    }

    /// `printf 'user_id:ann' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`
    #[test]
    fn user_id_has_a_hash_of_its_own() {
        let digits = "ebd5d1e8bb5f81ec08b41d04d12e03a46405f835b12df531301e06297ca7ec19";

        assert_eq!(base16ct::lower::encode_string(&masker().hash_user_id("ann")), digits);
    }

    #[test]
    fn debug_prints_no_value() {
        let pii = Pii::<Ip>::new("192.0.2.1".into()).unwrap();

        assert_eq!(
            format!("{pii:?} {:?} {:?}", masker().mask(&pii), masker()),
            "Pii<ip> Masked<ip> Masker { .. }"
        );
    }

    proptest! {
        #[test]
        fn tokens_are_equal_exactly_when_values_are(one in ".{0,20}", other in ".{0,20}") {
            prop_assert_eq!(mask::<DeviceId>(&one) == mask::<DeviceId>(&other), one.trim() == other.trim());
        }

        #[test]
        fn two_fields_never_share_a_token(value in ".{1,20}") {
            prop_assume!(!value.trim().is_empty());
            prop_assert_ne!(mask::<DeviceId>(&value), mask::<Ip>(&value));
        }

        #[test]
        fn every_spelling_of_an_address_is_equal(address: std::net::Ipv6Addr, v4: std::net::Ipv4Addr) {
            let full = address.segments().map(|segment| format!("{segment:04X}")).join(":");
            prop_assert_eq!(mask::<Ip>(&full), mask::<Ip>(&address.to_canonical().to_string()));
            prop_assert_eq!(mask::<Ip>(&format!("::ffff:{v4}")), mask::<Ip>(&v4.to_string()));
        }

        #[test]
        fn ipv4_addresses_have_one_spelling(text in r"[0-9]{1,3}(\.[0-9]{1,3}){3}") {
            if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
