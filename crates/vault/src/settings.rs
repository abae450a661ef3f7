//! The settings, read once from environment variables. Errors name the variable, never its value.

use login_etl::config::{self, DatabaseSettings, ErasureBucket, SALT_SECRET_ID, SettingError, vault_kms_key};

/// The settings of the broker.
#[derive(Debug)]
pub struct Settings {
    /// The database, with the login of `login_vault`.
    pub database: DatabaseSettings,
    /// The name or ARN of the salt's secret.
    pub salt_secret_id: String,
    /// The ARN or id of the KMS key whose public key the stack gives to ingest. Only `POST /verify` needs it.
    pub kms_key: Option<String>,
    /// The bucket with the erasure list, if there is one.
    pub erasure_bucket: Option<ErasureBucket>,
}

impl Settings {
    /// Reads the settings. `environment` returns the value of an environment variable, if it is set.
    ///
    /// # Errors
    ///
    /// The first setting that is missing or wrong.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let salt_secret_id = environment(SALT_SECRET_ID).map(|id| id.trim().to_owned());
        let salt_secret_id = salt_secret_id.filter(|id| !id.is_empty());
        let salt_secret_id = salt_secret_id.ok_or(SettingError::Missing(SALT_SECRET_ID))?;
        let kms_key = vault_kms_key(&environment).ok();
        let erasure_bucket = config::erasure_bucket(&environment);
        Ok(Self { database: DatabaseSettings::read(environment)?, salt_secret_id, kms_key, erasure_bucket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "DATABASE_URL" => Some("postgresql://login_vault:secret@db.example.com/logins".to_owned()),
            SALT_SECRET_ID => Some("salt\n".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn salt_and_database_are_required() {
        let settings = Settings::read(environment).unwrap();

        assert_eq!(settings.salt_secret_id, "salt");
        for missing in [SALT_SECRET_ID, "DATABASE_URL"] {
            let error = Settings::read(|name| environment(name).filter(|_| name != missing)).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}
