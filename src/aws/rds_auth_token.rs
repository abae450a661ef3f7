//! Signs the token that RDS accepts instead of a password.
//!
//! The token is the URL, without its scheme, of [a signed request to `rds-db`][guide] that is never sent. RDS
//! checks the signature to find out who logs in.
//!
//! [guide]: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::config::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningError, SigningSettings, sign as sign_request,
};
use aws_sigv4::sign::v4::SigningParams;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;

use crate::config::IamSettings;

/// How long a token is valid: [as long as RDS accepts it][limit]. A connection outlives its token.
///
/// [limit]: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html
pub const VALIDITY: Duration = Duration::from_mins(15);

/// The characters that are percent-encoded in the [query of a signed request][encoding].
///
/// [encoding]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The host cannot be part of a URL.
#[derive(Debug, thiserror::Error)]
#[error("DATABASE_HOST is not the name of a host")]
pub struct BadHost;

/// The library's error is dropped: it may quote the URL.
impl From<SigningError> for BadHost {
    fn from(_: SigningError) -> Self {
        Self
    }
}

/// Signs a token, byte for byte equal to the token of [botocore].
///
/// [botocore]: https://docs.aws.amazon.com/boto3/latest/reference/services/rds/client/generate_db_auth_token.html
///
/// # Errors
///
/// [`BadHost`].
pub fn sign(
    credentials: Credentials,
    region: &str,
    iam: &IamSettings,
    at: SystemTime,
) -> Result<SecretString, BadHost> {
    let IamSettings { host, port, user, .. } = iam;
    let query = format!("Action=connect&DBUser={}", utf8_percent_encode(user, ENCODED));
    // RDS checks the signature of the host name in lower case.
    let address = format!("https://{}:{port}/?{query}", host.to_lowercase());
    let request = SignableRequest::new("GET", address, std::iter::empty(), SignableBody::empty())?;

    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(VALIDITY);
    let identity = credentials.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("rds-db")
        .time(at)
        .settings(settings)
        .build()
        .unwrap_or_else(|_| unreachable!("all required parameters are set"));
    let (instructions, signature) = sign_request(request, &params.into())?.into_parts();

    let mut token = format!("{host}:{port}/?{query}");
    let signature = ("X-Amz-Signature", signature.as_str().into());
    let parameters = instructions.params().iter().filter(|(name, _)| *name != signature.0);
    for (name, value) in parameters.chain([&signature]) {
        let _ = write!(token, "&{name}={}", utf8_percent_encode(value, ENCODED));
    }
    Ok(token.into())
}
