//! TLS to Postgres: whom to trust, and with what keys.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DATABASE_CA_BUNDLE, SettingError};

/// The authorities of Amazon RDS, compiled in, because `sam build` packages the binary and nothing
/// beside it. Their source and date are in the file.
const RDS_AUTHORITIES: &[u8] = include_bytes!("rds-global-bundle.pem");

/// TLS with a verified certificate and host name, whatever a server would settle for. It trusts the
/// system's authorities, those of Amazon RDS (who sign nothing else), and those of the bundle.
///
/// # Errors
///
/// [`SettingError`] if `DATABASE_CA_BUNDLE` is not a file of certificates.
pub(super) fn verified(ca_bundle: Option<&Path>) -> Result<MakeRustlsConnect, SettingError> {
    let invalid = |problem| SettingError::Invalid { variable: DATABASE_CA_BUNDLE, problem };
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(of_the_system());
    authorities.add_parsable_certificates(certificates(RDS_AUTHORITIES));
    if let Some(path) = ca_bundle {
        let pem = std::fs::read(path).map_err(|_| invalid("cannot be read"))?;
        let (trusted, refused) = authorities.add_parsable_certificates(certificates(&pem));
        if trusted == 0 || refused > 0 {
            return Err(invalid("is not a file of PEM certificates"));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(cryptography()))
        .with_safe_default_protocol_versions()
        .map_err(|_| invalid("cannot be used by the TLS library"))?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// The library's own choice, but for the group that a client sends its key share in: P-256 is what
/// Postgres takes [unless it is told otherwise][ecdh], and another costs a round trip.
///
/// [ecdh]: https://www.postgresql.org/docs/15/runtime-config-connection.html#GUC-SSL-ECDH-CURVE
fn cryptography() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::secp256r1);
    provider
}

/// The system's authorities, as far as they can be read. Where it has them in one file they are read from
/// that alone: the folders have the same in many files, and reading those takes longer than connecting.
fn of_the_system() -> Vec<CertificateDer<'static>> {
    let told = openssl_probe::has_ssl_cert_env_vars();
    match openssl_probe::probe().cert_file {
        Some(file) if !told => rustls_native_certs::load_certs_from_paths(Some(&file), None).certs,
        _ => rustls_native_certs::load_native_certs().certs,
    }
}

/// The certificates of a PEM file; none if it is not one.
fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_authorities_of_each_of_27_regions_are_compiled_in() {
        assert_eq!(certificates(RDS_AUTHORITIES).len(), 3 * 27);
    }
}
