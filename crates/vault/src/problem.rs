//! Errors as problem documents (RFC 9457). They name the field and the rule, and never repeat a value.

use std::borrow::Cow;

use serde::Serialize;

use crate::kms::KmsFailure;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Identifies the kind of problem.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind of problem in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What to change.
    pub detail: Cow<'static, str>,
    /// The audit entry of the request, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_entry: Option<i64>,
    /// Whether the same request may succeed soon.
    #[serde(skip)]
    pub is_temporary: bool,
}

impl Problem {
    /// The body breaks a rule.
    #[must_use]
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "urn:login-etl:bad-request", "The request breaks a rule", detail)
    }

    /// IAM did not verify who sent the request.
    #[must_use]
    pub fn unidentified_caller() -> Self {
        let detail = "AWS does not name a caller: the route requires the authorization AWS_IAM";
        Self::new(403, "urn:login-etl:unidentified-caller", "The caller is not known", detail)
    }

    /// Nothing is at this path.
    #[must_use]
    pub fn not_found() -> Self {
        let detail = "the paths are /token, /reveal, /erase, /audit, /verify and /honey";
        Self::new(404, "urn:login-etl:not-found", "Not found", detail)
    }

    /// The path has only the method POST.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let detail = "the path has only the method POST";
        Self::new(405, "urn:login-etl:method-not-allowed", "Method not allowed", detail)
    }

    /// The body is too large.
    #[must_use]
    pub fn too_large() -> Self {
        let detail = "a body has at most 4,096 bytes";
        Self::new(413, "urn:login-etl:too-large", "The body is too large", detail)
    }

    /// The vault has no value of the token.
    #[must_use]
    pub fn unknown_token() -> Self {
        let detail = "the vault has no value of this token";
        Self::new(404, "urn:login-etl:unknown-token", "The token is unknown", detail)
    }

    /// The value of the token was erased.
    #[must_use]
    pub fn erased() -> Self {
        let detail = "the value of this token was erased";
        Self::new(410, "urn:login-etl:erased", "The value was erased", detail)
    }

    /// The sealed value does not open, or is the value of another token.
    #[must_use]
    pub fn unopenable() -> Self {
        let detail = "the sealed value was changed, or was sealed to another key or with another salt";
        Self::new(500, "urn:login-etl:unopenable", "The sealed value does not open", detail)
    }

    /// KMS did not do its part.
    #[must_use]
    pub fn kms(failure: KmsFailure) -> Self {
        let kind = "urn:login-etl:kms-unavailable";
        let problem = Self::new(503, kind, "KMS is not available", failure.to_string());
        Self { is_temporary: failure.is_temporary(), ..problem }
    }

    /// Secrets Manager did not return the salt.
    #[must_use]
    pub fn salt_unavailable() -> Self {
        let (kind, title) = ("urn:login-etl:salt-unavailable", "The salt is not available");
        Self { is_temporary: true, ..Self::new(503, kind, title, "try again later") }
    }

    /// The database is out of reach.
    #[must_use]
    pub fn database_unavailable() -> Self {
        let (kind, title) = ("urn:login-etl:database-unavailable", "The database is not available");
        Self { is_temporary: true, ..Self::new(503, kind, title, "try again later") }
    }

    /// The erasure cannot be written to the erasure list.
    #[must_use]
    pub fn list_unavailable() -> Self {
        let (kind, title) = ("urn:login-etl:list-unavailable", "The erasure list is not available");
        Self { is_temporary: true, ..Self::new(503, kind, title, "nothing was erased; try again later") }
    }

    /// The erasure took too long. Postgres may still finish it.
    #[must_use]
    pub fn erasure_unknown() -> Self {
        let title = "The outcome of the erasure is not known";
        let detail = "the erasure may still be done; the audit entry has its outcome";
        Self::new(503, "urn:login-etl:erasure-unknown", title, detail)
    }

    /// The database refused what this program sent.
    #[must_use]
    pub fn bug() -> Self {
        let detail = "the log of the program has the reason";
        Self::new(500, "urn:login-etl:bug", "The program has a bug", detail)
    }

    /// Adds the audit entry of the request.
    #[must_use]
    pub fn of_entry(self, entry: i64) -> Self {
        Self { audit_entry: Some(entry), ..self }
    }

    fn new(
        status: u16,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, title, status, detail: detail.into(), audit_entry: None, is_temporary: false }
    }
}
