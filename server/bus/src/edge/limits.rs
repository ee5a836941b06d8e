//! Every bound of connections, in one place.

use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::{rt::TokioTimer, server::conn::auto};

/// HTTP/2 window of a stream. Large enough that a full window of frames never waits for a round trip.
pub const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// HTTP/2 window of a connection: both hot streams of a client.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Largest HTTP/2 frame: a whole frame of messages.
pub const FRAME_BYTES_MAX: u32 = 256 * 1024;
/// Largest header list of a request; a token takes some 600 bytes.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// What a stream may have waiting to be sent.
const SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// Streams that a peer reset before we looked at them (CVE-2023-44487 and its kin).
const RESET_STREAMS_MAX: usize = 20;
/// Header fields of an HTTP/1 request.
const HTTP1_HEADERS_MAX: usize = 64;

/// Connections above [`EdgeLimits::connections_max`] that are told so at once; more are closed without a word.
pub const TURNED_AWAY_MAX: usize = 64;
/// How long each of them has until its protocol and TLS are known, and then as long again to ask and to take its answer.
pub const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(2);

/// Bounds that can be set.
#[derive(Clone, Copy, Debug)]
pub struct EdgeLimits {
    /// Connections at once; more are turned away.
    pub connections_max: usize,
    /// Requests that one connection has open at once, hot streams included.
    pub streams_per_connection: u32,
    /// From a connection's first byte to its protocol and TLS being known, and for the head of an HTTP/1 request.
    pub handshake_timeout: Duration,
    /// TLS handshakes at once.
    pub handshakes_max: usize,
    /// How often a silent HTTP/2 connection is asked whether it lives.
    pub keep_alive_interval: Duration,
    /// How long it has to answer.
    pub keep_alive_timeout: Duration,
    /// How long a hot thread looks for more work at most before it sleeps, where work lately came that soon.
    pub busy_poll: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            connections_max: 50_000,
            streams_per_connection: 128,
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 256,
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
            busy_poll: Duration::from_micros(200),
        }
    }
}

impl EdgeLimits {
    /// How long a peer may take nothing of what waits for it: as long as it may leave a question unanswered.
    pub fn stall_timeout(&self) -> Duration {
        self.keep_alive_interval + self.keep_alive_timeout
    }

    /// Sets up HTTP/2 connections.
    pub fn http2<E>(&self, builder: &mut http2::Builder<E>) {
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_concurrent_streams(self.streams_per_connection)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout);
    }

    /// Sets up connections of the other runtime: HTTP/1, and HTTP/2 of those who did not say so in time.
    pub fn auto<E>(&self, builder: &mut auto::Builder<E>) {
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake_timeout)
            .max_headers(HTTP1_HEADERS_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_concurrent_streams(self.streams_per_connection)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout);
    }
}
