//! The masked fields, and their tokens.

use std::borrow::Cow;

use login::pii::{self, DeviceId, Ip, Masker, Pii};

/// A field that is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Field {
    /// The IP address.
    Ip,
    /// The id of the device.
    DeviceId,
}

/// The token of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token([u8; 32]);

/// A text or bytes that are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAToken;

impl Field {
    /// Returns the name of the column without `masked_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Returns the token of a value; `None` if the value is blank.
    pub fn mask(self, value: &str, masker: &mut Masker) -> Option<Token> {
        match self {
            Self::Ip => token::<Ip>(value, masker),
            Self::DeviceId => token::<DeviceId>(value, masker),
        }
    }
}

impl Token {
    /// Reads 64 lowercase hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`NotAToken`].
    pub fn parse(digits: &str) -> Result<Self, NotAToken> {
        let mut token = [0; 32];
        match base16ct::lower::decode(digits, &mut token) {
            Ok(decoded) if decoded.len() == 32 => Ok(Self(token)),
            _ => Err(NotAToken),
        }
    }

    /// Returns the bytes, as the database keeps them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns 64 lowercase hexadecimal digits, as `user_logins` has them.
    #[must_use]
    pub fn to_text(&self) -> String {
        base16ct::lower::encode_string(&self.0)
    }

    /// Returns the associated data with which a value of this token is sealed.
    #[must_use]
    pub fn associated(&self, field: Field) -> String {
        format!("{}:{}", field.name(), self.to_text())
    }
}

fn token<F: pii::Field>(value: &str, masker: &mut Masker) -> Option<Token> {
    let value = Pii::<F>::new(Cow::Borrowed(value))?;
    Token::parse(masker.mask(&value).as_str()).ok()
}

impl From<[u8; 32]> for Token {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for Token {
    type Error = NotAToken;

    fn try_from(bytes: &[u8]) -> Result<Self, NotAToken> {
        bytes.try_into().map(Self).map_err(|_| NotAToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lowercase_digits_are_a_token() {
        let digits = "fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3";

        assert_eq!(Token::parse(digits).unwrap().to_text(), digits);
        let upper = digits.to_uppercase();
        let longer = format!("{digits}00");
        let spaced = format!(" {digits}");
        for other in ["", "192.0.2.1", "2001:db8::1", &digits[1..], &digits[2..], &upper, &longer, &spaced] {
            assert_eq!(Token::parse(other), Err(NotAToken));
        }
    }

    #[test]
    fn tokens_are_those_of_ingest() {
        let mut masker = Masker::new(&"0123456789abcdef0123456789abcdef".into()).unwrap();

        let ip = Field::Ip.mask(" ::ffff:192.0.2.1", &mut masker).unwrap();
        let device_id = Field::DeviceId.mask("593-47-5928", &mut masker).unwrap();

        assert_eq!(
            ip.associated(Field::Ip),
            "ip:fadc60fe27578c94ae3481d3cf8f232ae63d3e3880d9c5ac1a481ef6ea51a5a3"
        );
        assert_eq!(
            device_id.associated(Field::DeviceId),
            "device_id:02bf14ce51f48ed08e5a575ef1ddf777477cc7ff86a0e6b50721ca8efbb959a4"
        );
        assert_eq!(Field::Ip.mask(" \t", &mut masker), None);
    }
}
