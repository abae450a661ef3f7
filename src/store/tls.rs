//! TLS to Postgres: the certificates to trust, and the key exchange.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DATABASE_CA_BUNDLE, SettingError};

/// The certificate authorities of Amazon RDS. They are compiled in, because `sam build` packages only the
/// binary. The file names its source and date.
const RDS_CERTIFICATES: &[u8] = include_bytes!("rds-global-bundle.pem");

/// Makes a connector that verifies the server's certificate and host name. It trusts the authorities of the
/// system, of Amazon RDS (which sign only databases), and of the bundle.
///
/// # Errors
///
/// [`SettingError`] if `DATABASE_CA_BUNDLE` is not a file of certificates.
pub(super) fn tls_connector(ca_bundle: Option<&Path>) -> Result<MakeRustlsConnect, SettingError> {
    let invalid = |problem| SettingError::Invalid { variable: DATABASE_CA_BUNDLE, problem };
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(system_certificates());
    authorities.add_parsable_certificates(certificates(RDS_CERTIFICATES));
    if let Some(path) = ca_bundle {
        let pem = std::fs::read(path).map_err(|_| invalid("cannot be read"))?;
        let (trusted, refused) = authorities.add_parsable_certificates(certificates(&pem));
        if trusted == 0 || refused > 0 {
            return Err(invalid("is not a file of PEM certificates"));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| invalid("cannot be used by the TLS library"))?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Returns the library's default provider with P-256 as the first key exchange group: Postgres uses P-256
/// [by default][ecdh], and a key share of another group costs a round trip.
///
/// [ecdh]: https://www.postgresql.org/docs/15/runtime-config-connection.html#GUC-SSL-ECDH-CURVE
fn crypto_provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::secp256r1);
    provider
}

/// Reads the certificate authorities of the system, as far as they can be read. If the system has one file
/// of them, only this file is read: its folders hold the same certificates in many files, and reading these
/// takes longer than connecting.
fn system_certificates() -> Vec<CertificateDer<'static>> {
    let is_configured = openssl_probe::has_ssl_cert_env_vars();
    match openssl_probe::probe().cert_file {
        Some(file) if !is_configured => rustls_native_certs::load_certs_from_paths(Some(&file), None).certs,
        _ => rustls_native_certs::load_native_certs().certs,
    }
}

/// Reads the certificates of a PEM file; none if the file is not PEM.
fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_certificates_for_each_of_27_regions() {
        assert_eq!(certificates(RDS_CERTIFICATES).len(), 3 * 27);
    }
}
