//! Who sent a request.

/// A caller that AWS has verified: the ARN of a user or a role's session, or the subject that the OIDC provider of a
/// load balancer names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub String);

/// Why a request has no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request does not prove who sent it. Holds the reason.
    #[error("{0}")]
    Unverified(&'static str),
    /// The key that verifies the caller cannot be fetched.
    #[error("the public key of the load balancer cannot be fetched")]
    NoKey,
}
