//! What an audit entry holds.

use serde::{Deserialize, Serialize};

use crate::requests::Purpose;
use crate::token::{Field, Token};

/// What a caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Verb {
    /// The token of a value.
    Token,
    /// The value of a token.
    Reveal,
    /// The erasure of a value.
    Erase,
    /// The erasure of the values of a user.
    EraseUser,
    /// Entries of the audit.
    Audit,
    /// Whether a sealed value opens.
    Verify,
    /// Honey tokens.
    Honey,
}

/// The first half of an entry, before anything is done.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The ARN of the caller.
    pub caller: &'a str,
    /// What the caller asks for.
    pub verb: Verb,
    /// The field, where the caller names it.
    pub field: Option<Field>,
    /// The token, for a token, a reveal and an erasure that is not of a user.
    pub token: Option<Token>,
    /// The hash of the user id, for a user.
    pub subject: Option<&'a [u8]>,
    /// Why, for a reveal, an erasure and honey tokens.
    pub purpose: Option<&'a Purpose>,
}

/// The second half of an entry: what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Outcome {
    /// The caller gets what was asked for.
    Done,
    /// The vault has no value of the token.
    Unknown,
    /// The value was erased.
    Erased,
    /// The sealed value does not open, or is the value of another token.
    Unopenable,
    /// KMS did not do its part.
    KmsFailed,
    /// The program did not do its part.
    Failed,
}

/// An entry, without its token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Entry {
    /// The number of the entry.
    pub id: i64,
    /// When the caller asked.
    pub at: String,
    /// The ARN of the caller.
    pub caller: String,
    /// What the caller asked for.
    pub verb: String,
    /// The field, where the caller named it.
    pub field: Option<String>,
    /// The kind of reason.
    pub reason: Option<String>,
    /// The number of the ticket.
    pub ticket: Option<String>,
    /// How it ended; none if the program ended before.
    pub outcome: Option<String>,
    /// The id of the request to KMS.
    pub kms_request_id: Option<String>,
    /// Whether the sealed value was handed out, or the work began.
    pub taken: bool,
}

impl Verb {
    /// Returns the name in the audit entry.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Outcome {
    /// Returns the name in the audit entry.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}
