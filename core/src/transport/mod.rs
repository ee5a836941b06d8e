//! How bytes reach a bus: where it is, how a connection is opened, and gRPC over it.
//!
//! The dialler is injected, so that a simulated network, an in-memory server or a proxy can stand in; everything above
//! it is the real thing.

use std::{fmt, future::Future, io, pin::Pin, str::FromStr};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, ErrorCode};

pub(crate) mod grpc;
pub(crate) mod tls;
pub(crate) mod wire;

/// Port of a bus when the address names none.
pub const PORT: u16 = 7400;

/// Where a bus is: `acb://host:port` in plain text, `acbs://host:port` over TLS 1.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    tls: bool,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: PORT, tls: false }
    }
}

impl Endpoint {
    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port; 7400 when none was given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Scheme and authority as HTTP knows them.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{}", self.port)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: String| Err(Error::new(ErrorCode::InvalidArgument, "connect", why).with("endpoint", text));
        let (rest, tls) = match text.split_once("://") {
            Some(("acb", rest)) => (rest, false),
            Some(("acbs", rest)) => (rest, true),
            Some((other, _)) => return bad(format!("endpoint has scheme {other}, it must be acb or acbs")),
            None => (text, false),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // An IPv6 address without brackets has colons, but none that starts a port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return bad(format!("endpoint has port {port}, which is no number from 0 to 65535")),
            },
            _ => (rest, PORT),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return bad("endpoint must have the form acb://host:port".into());
        }
        Ok(Self { host: host.into(), port, tls })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin();
        f.write_str(&origin.replacen("http", "acb", 1))
    }
}

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection that is being opened.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Opens connections.
pub trait Dialer: Send + Sync + fmt::Debug + 'static {
    /// Opens one connection. TLS is put over it by the client.
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> Dialing<'a>;
}

/// Opens TCP connections with `TCP_NODELAY`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

impl Dialer for TcpDialer {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> Dialing<'a> {
        Box::pin(async move {
            // Tries every address of the name in turn.
            let stream = tokio::net::TcpStream::connect((endpoint.host(), endpoint.port())).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_scheme_a_host_and_a_port() {
        let parse = |t: &str| t.parse::<Endpoint>().map(|e| (e.host, e.port, e.tls));
        assert_eq!(parse("acb://bus"), Ok(("bus".into(), 7400, false)));
        assert_eq!(parse("bus:1"), Ok(("bus".into(), 1, false)));
        assert_eq!(parse("acbs://10.0.0.1:7443/"), Ok(("10.0.0.1".into(), 7443, true)));
        assert_eq!(parse("acb://[::1]:7"), Ok(("::1".into(), 7, false)));
        assert_eq!(parse("acb://[::1]"), Ok(("::1".into(), 7400, false)));
        for bad in ["", "acb://", "http://a", "acb://a:b", "acb://a:70000", "acb://a/b", "acb://u@h"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?} was taken");
        }
        let v6: Endpoint = "acbs://[::1]:7".parse().unwrap();
        assert_eq!((v6.origin().as_str(), v6.to_string().as_str()), ("https://[::1]:7", "acbs://[::1]:7"));
    }
}
