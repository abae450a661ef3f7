//! The bucket: receives objects in parts, and shows an object only when it is complete.

use std::fmt;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, retry::RetryConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use login_etl::aws::secrets::{Secrets, request_failure};

use crate::encoder::Part;
use crate::settings::BucketSettings;

const CONTENT_TYPE: &str = "application/vnd.apache.parquet";

/// Time limit of one attempt: a part is 8 MiB, and takes less than a second in a region.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit of all attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_mins(3);
/// S3 throttles a new prefix for seconds. The SDK waits up to 1, 2, 4, 8 and 16 s between these attempts.
const ATTEMPTS: u32 = 6;

/// S3 refused a request, or is out of reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("S3 did not do {operation}: {cause}")]
pub struct BucketError {
    /// The operation of S3, such as `PutObject`.
    pub operation: &'static str,
    /// The code and the message of S3, or what happened on the way.
    pub cause: String,
}

/// The bucket of the lake.
#[derive(Clone)]
pub struct Bucket {
    client: Client,
    settings: BucketSettings,
}

/// An object that is uploaded. Readers see the object before it, if there is one, until [`Self::complete`] succeeds.
pub struct Upload<'b> {
    bucket: &'b Bucket,
    key: String,
    /// The id of the multipart upload, after its first part.
    id: Option<String>,
    parts: Vec<CompletedPart>,
    /// The only part of a small object, which is sent whole.
    only: Option<Part>,
}

impl Bucket {
    /// Makes a client, and sends nothing yet.
    #[must_use]
    pub fn new(secrets: &Secrets, settings: BucketSettings) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let config = Builder::from(secrets.sdk_config())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .force_path_style(settings.name_in_path)
            .build();
        Self { client: Client::from_conf(config), settings }
    }

    /// Begins an object. It sends nothing yet.
    #[must_use]
    pub fn upload(&self, key: String) -> Upload<'_> {
        Upload { bucket: self, key, id: None, parts: Vec::new(), only: None }
    }

    fn encryption(&self) -> Option<ServerSideEncryption> {
        self.settings.kms_key.as_ref().map(|_| ServerSideEncryption::AwsKms)
    }
}

impl Upload<'_> {
    /// Sends a part. The only part of an object is kept, and sent by [`Self::complete`].
    ///
    /// # Errors
    ///
    /// [`BucketError`].
    pub async fn add(&mut self, part: Part) -> Result<(), BucketError> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None if part.is_last => {
                self.only = Some(part);
                return Ok(());
            }
            None => self.begin().await?,
        };
        let checksum = STANDARD.encode(part.sha256);
        let number = i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX);
        let request = self.bucket.client.upload_part();
        let request = request.bucket(&self.bucket.settings.name).key(&self.key).upload_id(id);
        let request = request.part_number(number).checksum_sha256(&checksum);
        // S3 verifies the checksum, so the signature need not contain a second one.
        let sent = request.body(ByteStream::from(part.bytes)).customize().disable_payload_signing().send();
        let sent = sent.await.map_err(|error| bucket_error("UploadPart", &error))?;
        let completed = CompletedPart::builder().part_number(number).checksum_sha256(checksum);
        self.parts.push(completed.set_e_tag(sent.e_tag).build());
        Ok(())
    }

    /// Shows the object to readers, in place of the object before it. Returns its `ETag`.
    ///
    /// # Errors
    ///
    /// [`BucketError`]: readers see the one or the other object.
    pub async fn complete(&mut self) -> Result<String, BucketError> {
        let e_tag = match (self.only.take(), self.id.take()) {
            (Some(part), _) => self.put(part).await?,
            (None, Some(id)) => {
                let parts = CompletedMultipartUpload::builder().set_parts(Some(self.parts.clone())).build();
                let request = self.bucket.client.complete_multipart_upload();
                let request = request.bucket(&self.bucket.settings.name).key(&self.key).upload_id(&id);
                match request.multipart_upload(parts).send().await {
                    Ok(completed) => completed.e_tag,
                    Err(error) => {
                        self.id = Some(id);
                        return Err(bucket_error("CompleteMultipartUpload", &error));
                    }
                }
            }
            (None, None) => None,
        };
        Ok(e_tag.unwrap_or_default().replace('"', ""))
    }

    /// Removes the parts that were sent. If this fails, the bucket's lifecycle removes them.
    pub async fn abort(&mut self) {
        let Some(id) = self.id.take() else { return };
        let request = self.bucket.client.abort_multipart_upload();
        let request = request.bucket(&self.bucket.settings.name).key(&self.key).upload_id(id);
        if let Err(error) = request.send().await {
            let error = bucket_error("AbortMultipartUpload", &error);
            tracing::warn!(error = %error, "the parts of an unfinished upload stay in the bucket");
        }
    }

    async fn begin(&mut self) -> Result<String, BucketError> {
        let settings = &self.bucket.settings;
        let request = self.bucket.client.create_multipart_upload().bucket(&settings.name).key(&self.key);
        let request = request.content_type(CONTENT_TYPE).checksum_algorithm(ChecksumAlgorithm::Sha256);
        let request = request
            .set_server_side_encryption(self.bucket.encryption())
            .set_ssekms_key_id(settings.kms_key.clone())
            .set_bucket_key_enabled(settings.kms_key.as_ref().map(|_| true));
        let begun = request.send().await.map_err(|error| bucket_error("CreateMultipartUpload", &error))?;
        let id = begun.upload_id.ok_or(BucketError {
            operation: "CreateMultipartUpload",
            cause: "the answer has no upload id".to_owned(),
        })?;
        self.id = Some(id.clone());
        Ok(id)
    }

    async fn put(&self, part: Part) -> Result<Option<String>, BucketError> {
        let settings = &self.bucket.settings;
        let request = self.bucket.client.put_object().bucket(&settings.name).key(&self.key);
        let request = request.content_type(CONTENT_TYPE).checksum_sha256(STANDARD.encode(part.sha256));
        let request = request
            .set_server_side_encryption(self.bucket.encryption())
            .set_ssekms_key_id(settings.kms_key.clone())
            .set_bucket_key_enabled(settings.kms_key.as_ref().map(|_| true));
        let sent = request.body(ByteStream::from(part.bytes)).customize().disable_payload_signing().send();
        Ok(sent.await.map_err(|error| bucket_error("PutObject", &error))?.e_tag)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("key", &self.key)
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

fn bucket_error<E: ProvideErrorMetadata + std::error::Error + 'static>(
    operation: &'static str,
    error: &SdkError<E>,
) -> BucketError {
    BucketError { operation, cause: request_failure(error) }
}
