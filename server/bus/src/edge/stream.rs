//! Sockets that move from the acceptor's runtime to the one that serves them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::head::Head;

/// A socket that can leave one runtime and join another, also from under a TLS session.
#[derive(Debug)]
pub enum Socket {
    /// Registered with the present runtime.
    Here(TcpStream),
    /// Between two runtimes.
    Moving(std::net::TcpStream),
    /// Lost on the way: the move failed.
    Gone,
}

impl Socket {
    /// Leaves the present runtime.
    ///
    /// # Errors
    /// When the operating system refuses; the socket is gone then.
    pub fn leave(&mut self) -> io::Result<()> {
        if let Self::Here(stream) = std::mem::replace(self, Self::Gone) {
            *self = Self::Moving(stream.into_std()?);
        }
        Ok(())
    }

    /// Joins the present runtime.
    ///
    /// # Errors
    /// As [`Self::leave`].
    pub fn join(&mut self) -> io::Result<()> {
        if let Self::Moving(stream) = std::mem::replace(self, Self::Gone) {
            *self = Self::Here(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Here(stream) => Ok(Pin::new(stream)),
            Self::Moving(_) | Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}

/// A connection ready for HTTP.
#[derive(Debug)]
pub enum Connection {
    /// Plain text.
    Plain(Socket),
    /// TLS 1.3. Boxed: a session is some kilobytes, and most connections have none.
    Tls(Box<Greeted>),
    /// A pipe inside this process.
    Piped(DuplexStream),
}

/// A TLS session of which the first bytes were read already, to see what it speaks: they are given once more.
#[derive(Debug)]
pub struct Greeted {
    stream: TlsStream<Socket>,
    head: Head,
    given: usize,
}

impl Greeted {
    /// A session and what was read of it.
    pub fn new(stream: TlsStream<Socket>, head: Head) -> Self {
        Self { stream, head, given: 0 }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let rest = &me.head.bytes()[me.given..];
        if rest.is_empty() {
            return Pin::new(&mut me.stream).poll_read(cx, buf);
        }
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        me.given += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connection {
    /// The socket under it. A pipe has none, and belongs to no runtime.
    fn socket(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(greeted) => Some(greeted.stream.get_mut().0),
            Self::Piped(_) => None,
        }
    }

    /// See [`Socket::leave`].
    ///
    /// # Errors
    /// As there.
    pub fn leave(&mut self) -> io::Result<()> {
        self.socket().map_or(Ok(()), Socket::leave)
    }

    /// See [`Socket::join`].
    ///
    /// # Errors
    /// As there.
    pub fn join(&mut self) -> io::Result<()> {
        self.socket().map_or(Ok(()), Socket::join)
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Connection::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Connection::Tls($stream) => {
                let $stream = Pin::new(&mut **$stream);
                $call
            }
            Connection::Piped($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
