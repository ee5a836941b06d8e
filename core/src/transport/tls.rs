//! TLS 1.3 by rustls with aws-lc-rs. Nothing older, no other provider, no process-wide default.

use std::{fmt, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio_rustls::TlsConnector;

use super::{Endpoint, Io};
use crate::error::{Error, ErrorCode, Result};

/// Where systems keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Roots and client certificate for `acbs://`. By default the roots of the system are trusted.
#[derive(Clone, Default)]
#[must_use]
pub struct TlsOptions {
    roots_pem: Vec<Vec<u8>>,
    identity_pem: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
}

impl TlsOptions {
    /// Trusts these roots (PEM, one or more certificates) and no others. May be called again for more.
    pub fn root_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots_pem.push(pem.into());
        self
    }

    /// Shows this certificate chain to the server (PEM), with its private key (PEM).
    pub fn identity_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity_pem = Some((chain.into(), key.into()));
        self
    }

    /// Expects this name in the server's certificate instead of the endpoint's host.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Reads everything, so that a bad file is an error at once and not at the first reconnect.
    pub(crate) fn connector(&self, endpoint: &Endpoint) -> Result<Tls> {
        let mut roots = RootCertStore::empty();
        for pem in &self.roots_pem {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|e| bad("a root certificate cannot be used").with_source(e))?;
            }
        }
        if self.roots_pem.is_empty() {
            let path = SYSTEM_ROOTS.iter().map(Path::new).find(|p| p.exists());
            if let Some(pem) = path.and_then(|p| std::fs::read(p).ok()) {
                // Systems carry roots that rustls does not take; the others count.
                roots.add_parsable_certificates(certificates(&pem)?);
            }
        }
        if roots.is_empty() {
            return Err(bad("no root certificates: give one, or install the system's"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("TLS 1.3 is not there").with_source(e))?
            .with_root_certificates(roots);
        let mut config = match &self.identity_pem {
            None => config.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|e| bad("the client's private key is no PEM").with_source(e))?;
                config
                    .with_client_auth_cert(certificates(chain)?, key)
                    .map_err(|e| bad("the client's certificate cannot be used").with_source(e))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = self.server_name.clone().unwrap_or_else(|| endpoint.host().to_owned());
        let name = ServerName::try_from(name).map_err(|e| bad("the server's name is none").with_source(e))?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("roots", &self.roots_pem.len())
            .field("identity", &self.identity_pem.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(bad("a PEM text has no certificate")),
        Err(e) => Err(bad("a certificate is no PEM").with_source(e)),
    }
}

fn bad(message: &'static str) -> Error {
    Error::new(ErrorCode::InvalidArgument, "connect", message).with("field", "tls")
}

/// Ready to put TLS over a connection.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Shakes hands.
    pub(crate) async fn wrap(&self, io: Box<dyn Io>) -> std::io::Result<Box<dyn Io>> {
        let stream = self.connector.connect(self.name.clone(), io).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the server does not speak HTTP/2"));
        }
        Ok(Box::new(stream))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_certificates_are_refused_before_dialling() {
        let endpoint: Endpoint = "acbs://localhost".parse().unwrap();
        for bad in [
            TlsOptions::default().root_pem("nothing"),
            TlsOptions::default().root_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ] {
            assert_eq!(bad.connector(&endpoint).unwrap_err().code(), ErrorCode::InvalidArgument);
        }
    }
}
