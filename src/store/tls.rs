//! TLS to Postgres: the certificates to trust, and the methods of authentication to permit.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Shared};
use native_tls::{Certificate, TlsConnector};
use postgres_native_tls::{MakeTlsConnector, set_postgresql_alpn};
use tokio_postgres::config::SslMode;

use super::auth_guard::GuardedTls;
use super::error::StoreError;
use crate::config::{DATABASE_CA_BUNDLE, DatabaseSettings, DatabaseSource, SettingError};

/// The certificate authorities of Amazon RDS. They are compiled in, because `sam build` packages only the
/// binary. The file names its source and date.
const RDS_CERTIFICATES: &[u8] = include_bytes!("rds-global-bundle.pem");

/// A TLS connector that another thread makes while this thread fetches the secrets: OpenSSL takes longer to read
/// the certificates than to connect.
pub struct PendingTls(Shared<BoxFuture<'static, Result<Option<GuardedTls>, StoreError>>>);

impl PendingTls {
    /// Starts to make a connector that verifies the server's certificate and host name. It trusts the authorities of
    /// the bundle and, unless the bundle is to be trusted alone, those of the system and of Amazon RDS (which sign
    /// only databases).
    ///
    /// # Errors
    ///
    /// [`SettingError`] if `DATABASE_CA_BUNDLE` is not a file of certificates.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn start(settings: &DatabaseSettings) -> Result<Self, SettingError> {
        if matches!(&settings.source, DatabaseSource::Url(config) if config.get_ssl_mode() == SslMode::Disable)
        {
            return Ok(Self(future::ready(Ok(None)).boxed().shared()));
        }
        let bundle = settings.ca_bundle.as_ref();
        let bundle_only = bundle.is_some_and(|bundle| bundle.only);
        let bundle = bundle.map(|bundle| read_bundle(&bundle.path)).transpose()?.unwrap_or_default();
        let permitted = Arc::from(&*settings.auth_methods);
        let made = tokio::task::spawn_blocking(move || make_connector(bundle, bundle_only)).map(|made| {
            let made = made.map_err(|error| error.to_string());
            made.and_then(|made| made.map_err(|error| error.to_string()))
                .map(|tls| Some(GuardedTls::new(tls, permitted)))
                .map_err(|cause| StoreError::Unreachable { cause, sqlstate: None })
        });
        Ok(Self(made.boxed().shared()))
    }

    /// Waits for the connector; `None` with `sslmode=disable`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unreachable`] if OpenSSL cannot be used.
    pub(super) async fn ready(&self) -> Result<Option<GuardedTls>, StoreError> {
        self.0.clone().await
    }
}

impl fmt::Debug for PendingTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingTls").finish_non_exhaustive()
    }
}

/// Makes a connector. Unless only the bundle is trusted, the library itself adds the authorities of the system, and
/// those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
fn make_connector(
    bundle: Vec<Certificate>,
    bundle_only: bool,
) -> Result<MakeTlsConnector, native_tls::Error> {
    let mut builder = TlsConnector::builder();
    builder.disable_built_in_roots(bundle_only);
    let rds = if bundle_only { Vec::new() } else { Certificate::stack_from_pem(RDS_CERTIFICATES)? };
    for certificate in rds.into_iter().chain(bundle) {
        builder.add_root_certificate(certificate);
    }
    set_postgresql_alpn(&mut builder);
    Ok(MakeTlsConnector::new(builder.build()?))
}

fn read_bundle(path: &Path) -> Result<Vec<Certificate>, SettingError> {
    let invalid = |problem| SettingError::Invalid { variable: DATABASE_CA_BUNDLE, problem };
    let pem = std::fs::read(path).map_err(|_| invalid("cannot be read"))?;
    match Certificate::stack_from_pem(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(invalid("is not a file of PEM certificates")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_certificates_for_each_of_27_regions() {
        assert_eq!(Certificate::stack_from_pem(RDS_CERTIFICATES).unwrap().len(), 3 * 27);
    }
}
