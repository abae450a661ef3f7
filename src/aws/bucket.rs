//! The three requests to S3 that the erasure list needs, signed with the SDK's own signer. `aws-sdk-s3` can do far more,
//! but is far larger, and the package of the ingest function would depend on it.

use std::fmt::{self, Write};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::config::{Credentials, ProvideCredentials};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::Connector as HttpsConnector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::byte_stream::ByteStream;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::time::{sleep, timeout};

/// Time limit of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait before the second and the third attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

/// The characters that are percent-encoded in the [query of a signed request][encoding].
///
/// [encoding]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

/// S3 refused a request, or is out of reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("S3 did not do {operation}: {cause}")]
pub struct BucketError {
    /// The operation of S3, such as `PutObject`.
    pub operation: &'static str,
    /// The status and the code of S3, or what happened on the way.
    pub cause: String,
}

/// A bucket.
pub struct Bucket {
    /// Scheme and host, with the bucket's name in the host or, for an emulator, in the path.
    url: String,
    sdk: SdkConfig,
    /// Made by the first request, because it reads the system's certificates.
    connector: OnceLock<HttpsConnector>,
}

/// The keys of a bucket, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// At most 1,000.
    pub keys: Vec<String>,
    /// Whether there are more.
    pub has_more: bool,
}

/// What one attempt came to.
enum Failure {
    /// Another attempt may succeed.
    Temporary(String),
    /// It would fail, too.
    Final(String),
}

impl Bucket {
    /// Sends nothing yet. `endpoint` replaces the address of S3.
    #[must_use]
    pub fn new(sdk: SdkConfig, name: &str, endpoint: Option<&str>) -> Self {
        let endpoint = endpoint.or(sdk.endpoint_url()).map(|url| url.trim_end_matches('/'));
        let region = sdk.region().map_or_else(String::new, ToString::to_string);
        let url = match endpoint {
            Some(endpoint) => format!("{endpoint}/{name}"),
            None => format!("https://{name}.s3.{region}.{}", domain(&region)),
        };
        Self { url, sdk, connector: OnceLock::new() }
    }

    /// Writes an object.
    ///
    /// # Errors
    ///
    /// [`BucketError`]: the object may be written all the same.
    pub async fn put(&self, key: &str, content: &[u8]) -> Result<(), BucketError> {
        let url = format!("{}/{}", self.url, utf8_percent_encode(key, IN_PATH));
        self.send("PutObject", "PUT", &url, content).await.map(drop)
    }

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// [`BucketError`].
    pub async fn get(&self, key: &str) -> Result<Bytes, BucketError> {
        let url = format!("{}/{}", self.url, utf8_percent_encode(key, IN_PATH));
        self.send("GetObject", "GET", &url, b"").await
    }

    /// Returns the keys that begin with `prefix` and come after `after`.
    ///
    /// # Errors
    ///
    /// [`BucketError`].
    pub async fn list(&self, prefix: &str, after: &str) -> Result<Keys, BucketError> {
        let prefix = utf8_percent_encode(prefix, IN_QUERY);
        let mut url = format!("{}/?encoding-type=url&list-type=2&prefix={prefix}", self.url);
        if !after.is_empty() {
            let _ = write!(url, "&start-after={}", utf8_percent_encode(after, IN_QUERY));
        }
        let answer = self.send("ListObjectsV2", "GET", &url, b"").await?;
        read_keys(&String::from_utf8_lossy(&answer)).ok_or_else(|| BucketError {
            operation: "ListObjectsV2",
            cause: "the answer is not a list of keys".to_owned(),
        })
    }

    /// Sends a request, at most three times.
    async fn send(
        &self,
        operation: &'static str,
        method: &'static str,
        url: &str,
        body: &[u8],
    ) -> Result<Bytes, BucketError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let attempt = timeout(ATTEMPT_TIMEOUT, Box::pin(self.attempt(method, url, body))).await;
            let cause = match attempt {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(Failure::Final(cause))) => return Err(BucketError { operation, cause }),
                Ok(Err(Failure::Temporary(cause))) => cause,
                Err(_) => "S3 did not answer in time".to_owned(),
            };
            let Some(pause) = pauses.next() else { return Err(BucketError { operation, cause }) };
            sleep(pause).await;
        }
    }

    async fn attempt(&self, method: &'static str, url: &str, body: &[u8]) -> Result<Bytes, Failure> {
        let provider = self.sdk.credentials_provider();
        let provider =
            provider.ok_or_else(|| Failure::Final("the AWS SDK finds no credentials".to_owned()))?;
        let credentials =
            provider.provide_credentials().await.map_err(|error| Failure::Temporary(error.to_string()))?;
        let region = self.sdk.region().map_or("", AsRef::as_ref);
        let headers = sign_request(method, url, &[], body, credentials, region, SystemTime::now());

        let mut request = HttpRequest::new(body.to_vec().into());
        let unsendable = |_| Failure::Final("the name of the bucket cannot be part of a URL".to_owned());
        request.set_method(method).map_err(unsendable)?;
        request.set_uri(url).map_err(unsendable)?;
        for (name, value) in
            headers.ok_or_else(|| Failure::Final("the request cannot be signed".to_owned()))?
        {
            request.headers_mut().insert(name, value);
        }
        let connector = self.connector.get_or_init(|| {
            HttpsConnector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build()
        });
        let response = connector.call(request).await;
        let response =
            response.map_err(|error| Failure::Temporary(format!("S3 is out of reach: {error}")))?;
        let status = response.status().as_u16();
        let answer = ByteStream::new(response.into_body()).collect().await;
        let answer =
            answer.map_err(|_| Failure::Temporary("the answer ended early".to_owned()))?.into_bytes();
        if status < 300 {
            return Ok(answer);
        }
        // The message is dropped: it may be long. The code names the cause.
        let text = String::from_utf8_lossy(&answer);
        let cause =
            format!("status {status}, {}", element(&text, "Code").unwrap_or("an error without a code"));
        Err(if status >= 500 || status == 429 { Failure::Temporary(cause) } else { Failure::Final(cause) })
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Returns the domain of a region's partition.
fn domain(region: &str) -> &'static str {
    match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}

/// Returns the headers of a signed request; `None` if the URL is not valid. S3 requires a path [as it is
/// sent][canonical], and the hash of the body in a header.
///
/// [canonical]: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
fn sign_request(
    method: &'static str,
    url: &str,
    headers: &[(&'static str, &'static str)],
    body: &[u8],
    credentials: Credentials,
    region: &str,
    at: SystemTime,
) -> Option<Vec<(String, String)>> {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let identity = credentials.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("s3")
        .time(at)
        .settings(settings)
        .build()
        .unwrap_or_else(|_| unreachable!("all required parameters are set"));
    let request =
        SignableRequest::new(method, url, headers.iter().copied(), SignableBody::Bytes(body)).ok()?;
    let (instructions, _) = sign(request, &params.into()).ok()?.into_parts();
    Some(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Reads S3's answer to `ListObjectsV2`. Its keys are percent-encoded, so that they need no other decoding.
fn read_keys(answer: &str) -> Option<Keys> {
    let has_more = element(answer, "IsTruncated")? == "true";
    let encoded = answer.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap_or(rest));
    let keys = encoded.map(|key| {
        // As in a form: S3 writes a space as a plus sign.
        let key = key.replace('+', " ");
        Some(percent_decode_str(&key).decode_utf8().ok()?.into_owned())
    });
    Some(Keys { keys: keys.collect::<Option<_>>()?, has_more })
}

/// Returns the text of the first element with this name.
fn element<'x>(xml: &'x str, name: &str) -> Option<&'x str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The [examples][examples] of S3's own documentation: this is their key and their time.
    ///
    /// [examples]: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    fn signature(
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: &[u8],
    ) -> String {
        let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", secret, None, None, "example");
        let url = format!("https://examplebucket.s3.amazonaws.com/{path}");
        let at = SystemTime::UNIX_EPOCH + Duration::from_hours(380_376);
        let signed = sign_request(method, &url, headers, body, credentials, "us-east-1", at).unwrap();
        let (_, authorization) = signed.iter().find(|(name, _)| name == "authorization").unwrap();
        authorization.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn signatures_equal_those_of_the_documentation() {
        let put = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        let get = [("range", "bytes=0-9")];

        assert_eq!(
            signature("PUT", "test%24file.text", &put, b"Welcome to Amazon S3."),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        assert_eq!(
            signature("GET", "test.txt", &get, b""),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert_eq!(
            signature("GET", "?max-keys=2&prefix=J", &[], b""),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn keys_are_read_from_the_answer() {
        let answer = "<?xml version=\"1.0\"?><ListBucketResult><Name>b</Name><Prefix>erasures%2F</Prefix>\
            <IsTruncated>true</IsTruncated><Contents><Key>erasures/2026-11-27T12%3A31%3A01.000001Z-7-a.json</Key>\
            <Size>1</Size></Contents><Contents><Key>erasures/a+b%26.json</Key></Contents></ListBucketResult>";

        let keys =
            vec!["erasures/2026-11-27T12:31:01.000001Z-7-a.json".to_owned(), "erasures/a b&.json".to_owned()];
        assert_eq!(read_keys(answer), Some(Keys { keys, has_more: true }));
        assert_eq!(read_keys("<html>"), None);
        assert_eq!(
            read_keys("<IsTruncated>false</IsTruncated>"),
            Some(Keys { keys: Vec::new(), has_more: false })
        );
    }

    #[test]
    fn host_names_bucket_region_and_partition() {
        let bucket = |region: &'static str, endpoint| {
            let sdk = SdkConfig::builder().region(aws_config::Region::new(region)).build();
            Bucket::new(sdk, "erasures", endpoint).url
        };

        assert_eq!(bucket("eu-central-1", None), "https://erasures.s3.eu-central-1.amazonaws.com");
        assert_eq!(bucket("cn-north-1", None), "https://erasures.s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(bucket("eusc-de-east-1", None), "https://erasures.s3.eusc-de-east-1.amazonaws.eu");
        assert_eq!(bucket("us-east-1", Some("http://localhost:4566/")), "http://localhost:4566/erasures");
    }
}
