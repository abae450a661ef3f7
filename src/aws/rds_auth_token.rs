//! IAM authentication: the token that RDS takes in place of a password.
//!
//! It is [a request to `rds-db`][guide] that is signed for a while and sent to nobody: its address
//! without the scheme is the token, and RDS tells from the signature whose it is.
//!
//! [guide]: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::config::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningError, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;

use crate::config::IamLogin;

/// How long a token lets somebody in: [as long as RDS takes one][limit]. A connection that it let in
/// lasts longer.
///
/// [limit]: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html
pub const VALIDITY: Duration = Duration::from_mins(15);

/// What a [signature's query][encoding] does not leave as it is.
///
/// [encoding]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("DATABASE_HOST is not the name of a host")]
pub struct NotSigned(#[from] SigningError);

/// Signs a token, to the byte as [botocore] does.
///
/// [botocore]: https://docs.aws.amazon.com/boto3/latest/reference/services/rds/client/generate_db_auth_token.html
///
/// # Errors
///
/// [`NotSigned`] if the host can be in no address.
pub fn token(
    credentials: Credentials,
    region: &str,
    login: &IamLogin,
    at: SystemTime,
) -> Result<SecretString, NotSigned> {
    let IamLogin { host, port, user, .. } = login;
    let query = format!("Action=connect&DBUser={}", utf8_percent_encode(user, ENCODED));
    // What is signed is the host's name in lower case.
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
        .unwrap_or_else(|_| unreachable!("all that is required is set"));
    let (instructions, signature) = sign(request, &params.into())?.into_parts();

    let mut token = format!("{host}:{port}/?{query}");
    let signature = ("X-Amz-Signature", signature.as_str().into());
    let but_the_signature = instructions.params().iter().filter(|(name, _)| *name != signature.0);
    for (name, value) in but_the_signature.chain([&signature]) {
        let _ = write!(token, "&{name}={}", utf8_percent_encode(value, ENCODED));
    }
    Ok(token.into())
}
