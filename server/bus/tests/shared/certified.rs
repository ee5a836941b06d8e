//! TLS for tests that speak to the server byte by byte.

use std::{io, net::SocketAddr, sync::Arc};

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Certificate and key of `localhost` in a folder, and a client that trusts them.
pub(crate) struct Certified {
    folder: tempfile::TempDir,
    roots: rustls::RootCertStore,
}

impl Certified {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { folder, roots }
    }

    /// The server's settings.
    pub(crate) fn settings(&self) -> [(&'static str, String); 2] {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        [("tls.certificate", file("cert.pem")), ("tls.key", file("key.pem"))]
    }

    /// Shakes hands, for one protocol, or for none by name.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        protocol: Option<&[u8]>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}
