//! Opens a sealed value, and checks that it is the value of the token that was asked for.

use login::pii::Masker;
use login_etl::point::Point;
use secrecy::{ExposeSecret, SecretString};

use crate::database::SealedValue;
use crate::open::{SharedCoordinate, StreamOpener, Unopenable};
use crate::padding;
use crate::token::Token;

/// The points with which a stream is opened.
#[derive(Clone, Copy, Debug)]
pub struct Points {
    /// The public key to which the stream was sealed.
    pub recipient: Point,
    /// The point that begins the stream.
    pub encapsulated: Point,
}

impl Points {
    /// Reads the points beside a sealed value.
    ///
    /// # Errors
    ///
    /// [`Unopenable`].
    pub fn of(sealed: &SealedValue) -> Result<Self, Unopenable> {
        Ok(Self {
            recipient: Point::from_spki(&sealed.public_key).map_err(|_| Unopenable)?,
            encapsulated: sealed.encapsulated.as_slice().try_into().map_err(|_| Unopenable)?,
        })
    }
}

/// Opens a sealed value. Whoever has the public key can seal any value beside any token. So a value is returned only if
/// its token is the token that was asked for.
///
/// # Errors
///
/// [`Unopenable`].
pub fn unseal(
    sealed: &SealedValue,
    points: &Points,
    coordinate: &SharedCoordinate,
    token: &Token,
    masker: &mut Masker,
) -> Result<SecretString, Unopenable> {
    let SealedValue { field, token: beside, sequence, ciphertext, .. } = sealed;
    let opener = StreamOpener::new(&points.recipient, &points.encapsulated, coordinate);
    let padded = opener.open(*sequence, beside.associated(*field).as_bytes(), ciphertext)?;
    let value = padding::remove(&padded)?;
    let token_of_value = field.mask(value.expose_secret(), masker);
    if token_of_value.as_ref() == Some(token) { Ok(value) } else { Err(Unopenable) }
}
