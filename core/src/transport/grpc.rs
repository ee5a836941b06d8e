//! gRPC over one HTTP/2 connection: hyper's client by hand, so that windows, frame size and send buffer are set in one
//! place, and tonic's framing above it. The hot streams use a codec that hands bytes through.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use acb_types::limits;
use bytes::{Buf, BufMut, Bytes};
use futures_core::Stream;
use http::uri::PathAndQuery;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::{
    Request, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};

use super::{Io, wire::Outgoing};

/// What a connection may hold and send at once, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Flow control of one stream.
    stream_window: u32,
    /// Flow control of the connection.
    connection_window: u32,
    /// Largest HTTP/2 frame. With the protocol's default of 16 KiB large batches cost a system call and a header each.
    frame_max: u32,
}

impl Sizes {
    /// For the hot streams and unary calls.
    pub(crate) const HOT: Self = Self { stream_window: 4 << 20, connection_window: 8 << 20, frame_max: 256 << 10 };
    /// For one transfer.
    pub(crate) const BULK: Self = Self { stream_window: 4 << 20, connection_window: 4 << 20, frame_max: 1 << 20 };
}

/// Bytes that a stream may have waiting for the socket.
const SEND_BUFFER: usize = 1 << 20;
/// Largest gRPC message that is read: a frame of one message, with room for what stands around it.
const GRPC_MESSAGE_MAX: usize = limits::MESSAGE_BYTES_MAX + (64 << 10);

/// How often a silent connection is asked whether it is there, and how long it has to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// The half of a connection that must be polled for anything to move.
pub(crate) type Driver = Connection<TokioIo<Box<dyn Io>>, Body, TokioExecutor>;

/// Shakes HTTP/2's hands over an open connection.
pub(crate) async fn handshake(
    io: Box<dyn Io>,
    keep_alive: KeepAlive,
    sizes: Sizes,
) -> hyper::Result<(Channel, Driver)> {
    let (send, driver) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(sizes.stream_window)
        .initial_connection_window_size(sizes.connection_window)
        .max_frame_size(sizes.frame_max)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(keep_alive.interval)
        .keep_alive_timeout(keep_alive.timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await?;
    Ok((Channel(send), driver))
}

/// Sends requests over one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Channel(SendRequest<Body>);

impl Channel {
    /// Whether the connection takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

type Answer = Pin<Box<dyn Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>> + Send>>;

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        Box::pin(self.0.send_request(request))
    }
}

/// Opens one of the two hot streams. Answers when the server has sent its response head.
pub(crate) async fn open_stream<S>(
    channel: Channel,
    origin: http::Uri,
    path: &'static str,
    metadata: MetadataMap,
    frames: S,
) -> Result<Streaming<Bytes>, Status>
where
    S: Stream<Item = Outgoing> + Send + 'static,
{
    let mut grpc = tonic::client::Grpc::with_origin(channel, origin).max_decoding_message_size(GRPC_MESSAGE_MAX);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut request = Request::new(frames);
    *request.metadata_mut() = metadata;
    let response = grpc.streaming(request, PathAndQuery::from_static(path), Passthrough).await?;
    Ok(response.into_inner())
}

/// Hands frames through: outgoing ones were encoded when their messages were published, incoming ones are read where
/// they are used.
#[derive(Clone, Copy, Debug)]
struct Passthrough;

impl Codec for Passthrough {
    type Encode = Outgoing;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Passthrough {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, frame: Outgoing, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(frame.len());
        out.put_slice(&frame.head);
        out.put_slice(&frame.body);
        Ok(())
    }
}

impl Decoder for Passthrough {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        // Taking all that remains shares tonic's buffer and copies nothing.
        let len = bytes.remaining();
        Ok(Some(bytes.copy_to_bytes(len)))
    }
}
