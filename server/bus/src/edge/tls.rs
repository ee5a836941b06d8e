//! TLS 1.3 and nothing older, by rustls over aws-lc-rs.

use std::{path::Path, sync::Arc};

use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates cannot be read.
    #[error("certificates in {path}: {reason}")]
    Certificate {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The key cannot be read.
    #[error("private key in {path}: {reason}")]
    Key {
        /// Which file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The two do not fit.
    #[error("certificate and key: {0}")]
    Pair(#[from] rustls::Error),
}

/// A configuration from PEM files: a chain, leaf first, and its key.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong_chain = |reason: String| TlsError::Certificate { path: certificate.display().to_string(), reason };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|e| wrong_chain(e.to_string()))?;
    if chain.is_empty() {
        return Err(wrong_chain("there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| TlsError::Key { path: key.display().to_string(), reason: e.to_string() })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
