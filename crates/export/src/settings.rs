//! The settings, read once from environment variables. Errors name the variable, never its value.

use login_etl::config::{DatabaseSettings, SettingError};

/// The bucket that receives the objects.
pub const EXPORT_BUCKET: &str = "EXPORT_BUCKET";
/// The ARN of the KMS key that encrypts the objects. Without it, the bucket's own default applies.
pub const EXPORT_KMS_KEY: &str = "EXPORT_KMS_KEY";

/// Lambda sets it for every program that it starts.
pub const RUNTIME_API: &str = "AWS_LAMBDA_RUNTIME_API";
/// The SDK reads these endpoints, for S3 and for all services. Emulators have them.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];

/// The settings of the export.
#[derive(Debug)]
pub struct Settings {
    /// The database, with the login of `login_export`.
    pub database: DatabaseSettings,
    /// The bucket.
    pub bucket: BucketSettings,
    /// Whether Lambda runs the program. Otherwise it exports once, and ends.
    pub in_lambda: bool,
}

/// The bucket that receives the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSettings {
    /// The name.
    pub name: String,
    /// The ARN of the KMS key; `None` for the bucket's own default.
    pub kms_key: Option<String>,
    /// Whether a request has the bucket's name in its path. An emulator's host has no name for each bucket.
    pub name_in_path: bool,
}

impl Settings {
    /// Reads the settings. `environment` returns the value of an environment variable, if it is set.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or wrong.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let set = |name: &str| {
            environment(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let bucket = BucketSettings {
            name: set(EXPORT_BUCKET).ok_or(SettingError::Missing(EXPORT_BUCKET))?,
            kms_key: set(EXPORT_KMS_KEY),
            name_in_path: ENDPOINTS.into_iter().any(|name| set(name).is_some()),
        };
        let in_lambda = set(RUNTIME_API).is_some();
        Ok(Self { database: DatabaseSettings::read(environment)?, bucket, in_lambda })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let database = [("DATABASE_URL", "postgresql://login_export:secret@db.example.com/logins")];
        Settings::read(|name| {
            let all = database.iter().chain(variables);
            all.into_iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn only_the_bucket_is_required() {
        let plain = read(&[(EXPORT_BUCKET, "lake\n")]).unwrap();
        let local = read(&[
            (EXPORT_BUCKET, "lake"),
            (EXPORT_KMS_KEY, "key"),
            ("AWS_ENDPOINT_URL_S3", "http://localhost:1"),
            (RUNTIME_API, "localhost:2"),
        ])
        .unwrap();

        let bucket = BucketSettings { name: "lake".into(), kms_key: None, name_in_path: false };
        assert_eq!((plain.bucket, plain.in_lambda), (bucket, false));
        let bucket = BucketSettings { name: "lake".into(), kms_key: Some("key".into()), name_in_path: true };
        assert_eq!((local.bucket, local.in_lambda), (bucket, true));
        assert_eq!(read(&[(EXPORT_BUCKET, " ")]).unwrap_err().to_string(), "EXPORT_BUCKET is not set");
    }
}
