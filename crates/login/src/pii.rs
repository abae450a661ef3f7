//! The privacy boundary: the only code that can read a raw value.
//!
//! A raw value goes in with [`Pii::new`] and can do nothing but come out of [`Masker::mask`]:
//! [`Pii`] has no accessor, no `Clone`, no `Display`, no `Serialize`, a `Debug` that is silent, and
//! a copy of its own is wiped from memory when it is dropped. [`Masked`] cannot be made in any other way:
//!
//! ```compile_fail,E0423
//! # use login_etl::pii::{Ip, Masked};
//! let forged: Masked<Ip> = Masked([b'0'; 64], std::marker::PhantomData);
//! ```
//!
//! Both tokens carry their field in their type, so that neither lands in the other's column:
//!
//! ```compile_fail,E0308
//! # use login_etl::pii::{DeviceId, Ip, Masked};
//! fn swap(ip: Masked<Ip>) -> Masked<DeviceId> {
//!     ip
//! }
//! ```

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use hmac::{HmacReset, KeyInit, Mac};
use secrecy::zeroize::Zeroize;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// The least length of a salt in bytes: as many as the hash gives, after [RFC 2104, section 3][rfc].
///
/// [rfc]: https://www.rfc-editor.org/rfc/rfc2104#section-3
pub const MIN_SALT_BYTES: usize = 32;

/// A field that is masked.
pub trait Field: sealed::Field {}

/// The address that a user logged in from.
#[derive(Debug)]
pub enum Ip {}

/// The id of the device that a user logged in with.
#[derive(Debug)]
pub enum DeviceId {}

/// A raw personal value, where it was found or, if it was escaped there, in a copy.
pub struct Pii<'a, F: Field>(Cow<'a, str>, PhantomData<F>);

/// A pseudonym: 64 lowercase hexadecimal digits that are equal where the values are.
pub struct Masked<F: Field>([u8; 64], PhantomData<F>);

/// Makes pseudonyms with a secret salt.
#[derive(Clone)]
pub struct Masker {
    /// HMAC that has taken in the salt, and nothing else yet.
    keyed: HmacReset<Sha256>,
}

/// Tells one salt from another, and helps nobody to guess either: whoever can test a guess with it
/// could test it with any token of a known address as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

/// A salt that is too short to protect what it masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the salt has fewer than {MIN_SALT_BYTES} bytes")]
pub struct ShortSalt;

impl<'a, F: Field> Pii<'a, F> {
    /// Takes a raw value in; `None` if there is nothing in it but blanks, which is no value at all
    /// and never the hash of nothing.
    #[must_use]
    pub fn new(raw: Cow<'a, str>) -> Option<Self> {
        let pii = Self(raw, PhantomData);
        (!pii.0.trim().is_empty()).then_some(pii)
    }
}

impl<F: Field> Masked<F> {
    /// The pseudonym's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_else(|_| unreachable!("hexadecimal digits are ASCII"))
    }
}

impl Fingerprint {
    /// The fingerprint's text: 16 lowercase hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Masker {
    /// Takes the salt, whose UTF-8 bytes are the key.
    ///
    /// # Errors
    ///
    /// [`ShortSalt`] for fewer than [`MIN_SALT_BYTES`].
    pub fn new(salt: &SecretString) -> Result<Self, ShortSalt> {
        let key = salt.expose_secret().as_bytes();
        if key.len() < MIN_SALT_BYTES {
            return Err(ShortSalt);
        }
        let keyed = HmacReset::new_from_slice(key).map_err(|_| ShortSalt)?;
        Ok(Self { keyed })
    }

    /// The pseudonym of a value: the lowercase hex of HMAC-SHA-256 over the field's name, a colon
    /// and the value in its canonical form.
    ///
    /// Canonical is trimmed; an `ip` that parses as an address is written in its standard text, with
    /// IPv4-mapped IPv6 as IPv4 and IPv6 after [RFC 5952].
    ///
    /// ```
    /// # use login_etl::pii::{Ip, Masker, Pii};
    /// let mut masker = Masker::new(&"0123456789abcdef0123456789abcdef".into())?;
    /// let mut mask = |ip: &'static str| masker.mask(&Pii::<Ip>::new(ip.into()).unwrap());
    ///
    /// // printf 'ip:192.0.2.1' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    /// let token = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3";
    /// assert_eq!(mask("192.0.2.1").as_str(), token);
    /// assert_eq!(mask(" ::ffff:192.0.2.1 ").as_str(), token);
    /// # Ok::<(), login_etl::pii::ShortSalt>(())
    /// ```
    ///
    /// [RFC 5952]: https://www.rfc-editor.org/rfc/rfc5952
    #[must_use]
    pub fn mask<F: Field>(&mut self, value: &Pii<'_, F>) -> Masked<F> {
        let hash = self.hash(F::NAME, &F::canonical(value.0.trim()));
        let mut digits = [0; 64];
        let Ok(_) = base16ct::lower::encode(&hash, &mut digits) else {
            unreachable!("a byte takes two digits");
        };
        Masked(digits, PhantomData)
    }

    /// The fingerprint of the salt.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        // No field is called so, thus it is never a token.
        Fingerprint(base16ct::lower::encode_string(&self.clone().hash("salt", "fingerprint")[..8]))
    }

    fn hash(&mut self, name: &str, value: &str) -> [u8; 32] {
        self.keyed.update(name.as_bytes());
        self.keyed.update(b":");
        self.keyed.update(value.as_bytes());
        // Not of a copy: to wipe one took a fifth of the time of hashing.
        self.keyed.finalize_reset().into_bytes().into()
    }
}

impl Field for Ip {}

impl sealed::Field for Ip {
    const NAME: &'static str = "ip";

    fn canonical(trimmed: &str) -> Cow<'_, str> {
        match trimmed.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => Cow::Owned(address.to_canonical().to_string()),
            // The parser takes an IPv4 address in its standard text alone.
            Ok(IpAddr::V4(_)) | Err(_) => Cow::Borrowed(trimmed),
        }
    }
}

impl Field for DeviceId {}

impl sealed::Field for DeviceId {
    const NAME: &'static str = "device_id";

    fn canonical(trimmed: &str) -> Cow<'_, str> {
        Cow::Borrowed(trimmed)
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
        /// The name of the column, which is part of what is hashed.
        const NAME: &'static str;

        /// The one form of all the spellings of a value.
        fn canonical(trimmed: &str) -> Cow<'_, str>;
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

    /// These tokens are in users' tables, so they are the same for ever.
    #[test]
    fn tokens_are_what_openssl_computes() {
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
    fn what_is_no_address_stays_as_it_is() {
        let texts =
            ["192.0.2.01", "192.0.2.1:80", "[2001:db8::1]", "fe80::1%eth0", "unknown", "192.0.2", "UNKNOWN"];

        for (one, other) in texts.iter().zip(&texts[1..]) {
            assert_ne!(mask::<Ip>(one), mask::<Ip>(other));
        }
        assert_ne!(mask::<Ip>("192.0.2.01"), mask::<Ip>("192.0.2.1"));
    }

    #[test]
    fn nothing_is_masked_as_nothing() {
        for blank in ["", " ", "\t\r\n", "\u{3000}"] {
            assert_eq!(mask::<Ip>(blank), None, "{blank:?}");
            assert_eq!(mask::<DeviceId>(blank), None, "{blank:?}");
        }
    }

    #[test]
    fn a_salt_is_counted_in_bytes() {
        assert_eq!(Masker::new(&"x".repeat(31).into()).err(), Some(ShortSalt));
        assert!(Masker::new(&"é".repeat(16).into()).is_ok());
    }

    #[test]
    fn debug_is_silent() {
        let pii = Pii::<Ip>::new("192.0.2.1".into()).unwrap();

        assert_eq!(
            format!("{pii:?} {:?} {:?}", masker().mask(&pii), masker()),
            "Pii<ip> Masked<ip> Masker { .. }"
        );
    }

    proptest! {
        #[test]
        fn equal_values_have_equal_tokens_and_others_have_not(one in ".{0,20}", other in ".{0,20}") {
            prop_assert_eq!(mask::<DeviceId>(&one) == mask::<DeviceId>(&other), one.trim() == other.trim());
        }

        #[test]
        fn the_fields_never_share_a_token(value in ".{1,20}") {
            prop_assume!(!value.trim().is_empty());
            prop_assert_ne!(mask::<DeviceId>(&value), mask::<Ip>(&value));
        }

        #[test]
        fn every_spelling_of_an_address_is_canonical(address: std::net::Ipv6Addr, v4: std::net::Ipv4Addr) {
            let full = address.segments().map(|segment| format!("{segment:04X}")).join(":");
            prop_assert_eq!(mask::<Ip>(&full), mask::<Ip>(&address.to_canonical().to_string()));
            prop_assert_eq!(mask::<Ip>(&format!("::ffff:{v4}")), mask::<Ip>(&v4.to_string()));
        }

        #[test]
        fn an_ipv4_address_has_one_spelling(text in r"[0-9]{1,3}(\.[0-9]{1,3}){3}") {
            if let Ok(address) = text.parse::<std::net::Ipv4Addr>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
