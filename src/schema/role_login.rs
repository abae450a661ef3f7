//! How a role logs in: with a password, or by IAM.

use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::error::{SchemaError, is_one_of};

/// The role of the ingest function.
pub const WRITER_ROLE: &str = "login_writer";

const GRANT_IAM_LOGIN: &str = include_str!("grant_iam_login.sql");
const REVOKE_IAM_LOGIN: &str = include_str!("revoke_iam_login.sql");
const SET_PASSWORD: &str = include_str!("set_password.sql");

/// How a role logs in.
#[derive(Debug)]
pub enum RoleLogin {
    /// With this password.
    Password(SecretString),
    /// By IAM.
    Iam,
}

/// Sets how a role logs in.
///
/// # Errors
///
/// As [`set_password_login`] and [`grant_iam_login`].
pub async fn set_login(
    transaction: &Transaction<'_>,
    role: &'static str,
    login: &RoleLogin,
) -> Result<(), SchemaError> {
    match login {
        RoleLogin::Password(password) => set_password_login(transaction, role, password).await,
        RoleLogin::Iam => grant_iam_login(transaction, role).await,
    }
}

/// Sets the password of a role, and revokes its login by IAM.
///
/// # Errors
///
/// [`SchemaError::MayNotRevokeIam`] if this role may not revoke `rds_iam`, and [`SchemaError::Postgres`]; also if
/// another role granted `rds_iam` to the role, because only that role can revoke it.
pub async fn set_password_login(
    transaction: &Transaction<'_>,
    role: &'static str,
    password: &SecretString,
) -> Result<(), SchemaError> {
    match transaction.batch_execute(&REVOKE_IAM_LOGIN.replace(WRITER_ROLE, role)).await {
        Err(error) if is_one_of(&error, &[SqlState::INSUFFICIENT_PRIVILEGE]) => {
            return Err(SchemaError::MayNotRevokeIam { role });
        }
        outcome => outcome?,
    }
    Ok(set_password(transaction, role, password).await?)
}

/// Grants a role the login [by IAM], and removes its password: RDS accepts only tokens from members
/// of the role `rds_iam`.
///
/// [by IAM]: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.DBAccounts.html
///
/// # Errors
///
/// [`SchemaError::NoIam`] if the role `rds_iam` does not exist, [`SchemaError::MayNotGrantIam`] if this role may not
/// grant it, and [`SchemaError::Postgres`].
pub async fn grant_iam_login(client: &impl GenericClient, role: &'static str) -> Result<(), SchemaError> {
    match client.batch_execute(&GRANT_IAM_LOGIN.replace(WRITER_ROLE, role)).await {
        Err(error) if is_one_of(&error, &[SqlState::UNDEFINED_OBJECT]) => return Err(SchemaError::NoIam),
        Err(error) if is_one_of(&error, &[SqlState::INSUFFICIENT_PRIVILEGE]) => {
            return Err(SchemaError::MayNotGrantIam { role });
        }
        outcome => outcome?,
    }
    // Nothing would rotate the password any more, and it would work again if the role were revoked.
    Ok(client.batch_execute(&format!("ALTER ROLE {role} PASSWORD NULL")).await?)
}

/// Sets the password of a role, as its SCRAM verifier: Postgres may log statements.
///
/// The verifier is a parameter, and no part of a statement. Otherwise Postgres would log the verifier with a
/// statement that fails.
pub(super) async fn set_password(
    transaction: &Transaction<'_>,
    role: &str,
    password: &SecretString,
) -> Result<(), tokio_postgres::Error> {
    let verifier = scram_sha_256(password.expose_secret().as_bytes());
    let settings = "SELECT pg_catalog.set_config('login_etl.role', $1, true), \
                    pg_catalog.set_config('login_etl.verifier', $2, true)";
    transaction.execute_typed(settings, &[(&role, Type::TEXT), (&verifier, Type::TEXT)]).await?;
    transaction.batch_execute(SET_PASSWORD).await
}
