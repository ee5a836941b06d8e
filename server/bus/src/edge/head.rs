//! The first bytes of a connection, which say what it speaks.
//!
//! They are waited for before the connection is handed on: HTTP libraries bound the time of a request's head, and none of
//! them the time until a connection has said its first word.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::TcpStream,
};

/// How every HTTP/2 connection begins (RFC 9113, section 3.4). Its first word is no method of HTTP/1.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The whole preface has come.
    Http2,
    /// Something else, which can only be HTTP/1.
    Http1,
}

/// What has come so far: at most the length of the preface.
#[derive(Debug, Default)]
pub struct Head {
    bytes: [u8; PREFACE.len()],
    len: usize,
}

impl Head {
    /// Reads more; answers with how many bytes came.
    pub(super) async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let n = stream.read(&mut self.bytes[self.len..]).await?;
        self.len += n;
        Ok(n)
    }

    /// Looks at what has come and leaves it there; answers with how many bytes that are.
    pub(super) async fn peek(&mut self, stream: &TcpStream) -> io::Result<usize> {
        self.len = stream.peek(&mut self.bytes).await?;
        Ok(self.len)
    }

    /// What the connection speaks, once that is certain.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        let come = self.bytes();
        if come != &PREFACE[..come.len()] {
            Some(Protocol::Http1)
        } else if come.len() == PREFACE.len() {
            Some(Protocol::Http2)
        } else {
            None
        }
    }

    /// What has come.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn head_of(mut bytes: &[u8]) -> Head {
        let mut head = Head::default();
        while head.read(&mut bytes).await.unwrap() > 0 {}
        head
    }

    #[tokio::test]
    async fn only_the_whole_preface_is_http_2_and_the_first_other_byte_is_http_1() {
        for len in 0..PREFACE.len() {
            assert_eq!(head_of(&PREFACE[..len]).await.protocol(), None, "{len} bytes of the preface");
        }
        assert_eq!(head_of(&[&PREFACE[..], b"more"].concat()).await.protocol(), Some(Protocol::Http2));
        for other in [&b"G"[..], b"PO", b"PRIX", b"PRI * HTTP/1.1"] {
            assert_eq!(head_of(other).await.protocol(), Some(Protocol::Http1), "{other:?}");
        }
    }
}
