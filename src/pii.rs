//! The privacy boundary: the only code that can read a raw value.
//!
//! A raw value goes in with [`Pii::new`] and can do nothing but come out of [`Masker::mask`]:
//! [`Pii`] has no accessor, no `Clone`, no `Display`, no `Serialize`, a `Debug` that is silent, and
//! it is wiped from memory when dropped. [`Masked`] cannot be made in any other way:
//!
//! ```compile_fail,E0423
//! # use login_etl::pii::{Ip, Masked};
//! let forged: Masked<Ip> = Masked("199.172.111.135".to_owned(), std::marker::PhantomData);
//! ```
//!
//! And so a login that is not masked cannot be written:
//!
//! ```compile_fail,E0308
//! # use login_etl::{deadline::Deadline, decode::Login, store::Store};
//! async fn leak(store: &Store, logins: &[Login], deadline: Deadline) {
//!     let _ = store.write(logins, deadline).await;
//! }
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

use hmac::{Hmac, KeyInit, Mac};
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

/// A raw personal value.
pub struct Pii<F: Field>(SecretString, PhantomData<F>);

/// A pseudonym: 64 lowercase hexadecimal digits that are equal where the values are.
pub struct Masked<F: Field>(String, PhantomData<F>);

/// Makes pseudonyms with a secret salt.
pub struct Masker {
    /// HMAC that has taken in the salt, and nothing else yet.
    keyed: Hmac<Sha256>,
}

/// A salt that is too short to protect what it masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the salt has fewer than {MIN_SALT_BYTES} bytes")]
pub struct ShortSalt;

impl<F: Field> Pii<F> {
    /// Takes a raw value in; `None` if there is nothing in it but blanks, which is no value at all
    /// and never the hash of nothing.
    pub fn new(raw: Cow<'_, str>) -> Option<Self> {
        if raw.trim().is_empty() {
            return None;
        }
        Some(Self(raw.into_owned().into(), PhantomData))
    }
}

impl<F: Field> Masked<F> {
    /// The pseudonym's text.
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
        let keyed = Hmac::new_from_slice(key).map_err(|_| ShortSalt)?;
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
    /// let masker = Masker::new(&"0123456789abcdef0123456789abcdef".into())?;
    /// let mask = |ip: &'static str| masker.mask(&Pii::<Ip>::new(ip.into()).unwrap());
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
    pub fn mask<F: Field>(&self, value: &Pii<F>) -> Masked<F> {
        let mut hmac = self.keyed.clone();
        hmac.update(F::NAME.as_bytes());
        hmac.update(b":");
        hmac.update(F::canonical(value.0.expose_secret().trim()).as_bytes());
        let digest: [u8; 32] = hmac.finalize().into_bytes().into();
        Masked(base16ct::lower::encode_string(&digest), PhantomData)
    }
}

impl Field for Ip {}

impl sealed::Field for Ip {
    const NAME: &'static str = "ip";

    fn canonical(trimmed: &str) -> Cow<'_, str> {
        match trimmed.parse::<IpAddr>() {
            Ok(address) => Cow::Owned(address.to_canonical().to_string()),
            Err(_) => Cow::Borrowed(trimmed),
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

impl<F: Field> fmt::Debug for Pii<F> {
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
