//! What a client can be told before it connects. Every value has a default, a unit and a bound; secrets never show.

use std::{fmt, sync::Arc, time::Duration};

use acb_types::{Durability, limits};

use crate::{
    client::Client,
    credentials::Credentials,
    error::{Error, ErrorCode, Result},
    retry::RetryPolicy,
    transport::{Dialer, Endpoint, TcpDialer, tls::TlsOptions},
};

/// How long a unary call may take when nobody says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `connect` may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a publish may wait for room, and then for its acknowledgement.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `drain` may take.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Publishes that may be unacknowledged at once.
pub const PUBLISH_WINDOW_MESSAGES: u32 = 1024;
/// Most publishes that may be unacknowledged at once.
pub const PUBLISH_WINDOW_MESSAGES_MAX: u32 = 1 << 20;
/// Bytes that may be unacknowledged at once.
pub const PUBLISH_WINDOW_BYTES: usize = 8 << 20;
/// Most messages that the client puts into one frame: more only adds delay (measured).
pub const FRAME_MESSAGES: u32 = 128;
/// How long a plain ack may wait for others.
pub const ACK_LINGER: Duration = Duration::from_millis(5);
/// Longest that a plain ack may be made to wait.
pub const ACK_LINGER_MAX: Duration = Duration::from_secs(1);
/// How often a silent connection is asked whether it is there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long a silent connection has for its answer.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that was decided before connecting.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) tls: TlsOptions,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) window_messages: u32,
    pub(crate) window_bytes: usize,
    pub(crate) frame_messages_max: u32,
    pub(crate) credit_messages: u32,
    pub(crate) credit_bytes: u64,
    pub(crate) ack_linger: Duration,
    pub(crate) durability: Option<Durability>,
    pub(crate) retry: RetryPolicy,
    pub(crate) reconnect: RetryPolicy,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) keep_alive_timeout: Duration,
}

impl Options {
    /// Messages of a frame: a quarter of the window, so that frames overlap on their way, and never more than is
    /// worth it.
    pub(crate) fn frame_cap(&self) -> u32 {
        (self.window_messages / 4).min(self.frame_messages_max).clamp(1, limits::FRAME_MESSAGES_MAX)
    }
}

/// Builds a [`Client`]. Made by [`Client::builder`].
#[derive(Clone)]
#[must_use = "a builder does nothing until connect is awaited"]
pub struct ClientBuilder {
    endpoint: String,
    options: Options,
}

impl ClientBuilder {
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            options: Options {
                endpoint: Endpoint::default(),
                credentials: Credentials::none(),
                tls: TlsOptions::default(),
                dialer: Arc::new(TcpDialer),
                request_timeout: REQUEST_TIMEOUT,
                connect_timeout: CONNECT_TIMEOUT,
                publish_timeout: PUBLISH_TIMEOUT,
                drain_timeout: DRAIN_TIMEOUT,
                window_messages: PUBLISH_WINDOW_MESSAGES,
                window_bytes: PUBLISH_WINDOW_BYTES,
                frame_messages_max: FRAME_MESSAGES,
                credit_messages: limits::CREDIT_MESSAGES,
                credit_bytes: limits::CREDIT_BYTES,
                ack_linger: ACK_LINGER,
                durability: None,
                retry: RetryPolicy::default(),
                reconnect: RetryPolicy::default(),
                keep_alive_interval: KEEP_ALIVE_INTERVAL,
                keep_alive_timeout: KEEP_ALIVE_TIMEOUT,
            },
        }
    }

    /// Who the client is. Without it, calls carry no token.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.options.credentials = credentials;
        self
    }

    /// Roots and client certificate for `acbs://`.
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.options.tls = tls;
        self
    }

    /// Opens connections in place of TCP: for tests and simulated networks.
    pub fn dialer(mut self, dialer: Arc<dyn Dialer>) -> Self {
        self.options.dialer = dialer;
        self
    }

    /// How long a unary call may take, reconnects and retries included; 10 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.options.request_timeout = timeout;
        self
    }

    /// How long `connect` may take, retries included; 10 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a publish may wait for room in the window, and then, once more, for its acknowledgement; 30 s by
    /// default. A receipt whose time is over says `timeout`: the message may have been stored. Looked at every quarter
    /// of it.
    pub fn publish_timeout(mut self, timeout: Duration) -> Self {
        self.options.publish_timeout = timeout;
        self
    }

    /// How long `drain` may take; 10 s by default.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.options.drain_timeout = timeout;
        self
    }

    /// Publishes that may be unacknowledged at once, in messages (1 to 1,048,576; 1,024 by default) and bytes (8 MiB
    /// by default). Publishing awaits room. One message always passes.
    pub fn publish_window(mut self, messages: u32, bytes: usize) -> Self {
        self.options.window_messages = messages;
        self.options.window_bytes = bytes;
        self
    }

    /// Most messages of a frame: 1 to 512, 128 by default, and never more than a quarter of the window.
    pub fn frame_messages_max(mut self, messages: u32) -> Self {
        self.options.frame_messages_max = messages;
        self
    }

    /// What each subscription may hold at once when it does not say otherwise: messages (0 to 65,536; 64 by default)
    /// and bytes (to 1 GiB; 8 MiB by default).
    pub fn credits(mut self, messages: u32, bytes: u64) -> Self {
        self.options.credit_messages = messages;
        self.options.credit_bytes = bytes;
        self
    }

    /// How long a plain ack may wait for others before it is sent; 0 to 1 s, 5 ms by default. A quarter of the credits
    /// is sent at once.
    pub fn ack_linger(mut self, linger: Duration) -> Self {
        self.options.ack_linger = linger;
        self
    }

    /// Level of sends and publishes that name none. Without it the server's default holds, which is `synced`.
    pub fn durability(mut self, level: Durability) -> Self {
        self.options.durability = Some(level);
        self
    }

    /// Waits between attempts of a unary call.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }

    /// Waits between attempts to connect again. With [`RetryPolicy::attempts_max`] the client closes after so many in
    /// a row; by default it never gives up.
    pub fn reconnect(mut self, policy: RetryPolicy) -> Self {
        self.options.reconnect = policy;
        self
    }

    /// How often a connection is asked whether it is there, and how long it has for the answer; 10 s each by default.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.options.keep_alive_interval = interval;
        self.options.keep_alive_timeout = timeout;
        self
    }

    /// Connects and logs in. Must be called inside a tokio runtime, of any flavour.
    ///
    /// # Errors
    /// `invalid_argument` for options out of range or a bad endpoint, `invalid_credentials`, `unavailable` when nobody
    /// answered within the connect timeout, `protocol_error` when somebody else did.
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up; nothing stays behind.
    pub async fn connect(self) -> Result<Client> {
        let options = self.validate()?;
        Client::connect(options).await
    }

    fn validate(self) -> Result<Options> {
        let mut options = self.options;
        options.endpoint = self.endpoint.parse()?;
        let range = |name: &'static str, given: u128, least: u128, most: u128| {
            if (least..=most).contains(&given) {
                return Ok(());
            }
            let text = format!("{name} of {given} is outside {least} to {most}");
            Err(Error::new(ErrorCode::InvalidArgument, "connect", text).with("field", name))
        };
        range("publish_window messages", options.window_messages.into(), 1, PUBLISH_WINDOW_MESSAGES_MAX.into())?;
        range("publish_window bytes", options.window_bytes as u128, 1, 1 << 40)?;
        range("frame_messages_max", options.frame_messages_max.into(), 1, limits::FRAME_MESSAGES_MAX.into())?;
        range("credits messages", options.credit_messages.into(), 0, limits::CREDIT_MESSAGES_MAX.into())?;
        range("credits bytes", options.credit_bytes.into(), 0, limits::CREDIT_BYTES_MAX.into())?;
        range("ack_linger ms", options.ack_linger.as_millis(), 0, ACK_LINGER_MAX.as_millis())?;
        for (name, span) in [
            ("request_timeout ms", options.request_timeout),
            ("connect_timeout ms", options.connect_timeout),
            ("publish_timeout ms", options.publish_timeout),
            ("keep_alive interval ms", options.keep_alive_interval),
            ("keep_alive timeout ms", options.keep_alive_timeout),
        ] {
            range(name, span.as_millis(), 1, Duration::from_hours(24).as_millis())?;
        }
        Ok(options)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("endpoint", &self.endpoint).field("options", &self.options).finish()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("endpoint", &self.endpoint)
            .field("credentials", &self.credentials)
            .field("request_timeout", &self.request_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("publish_timeout", &self.publish_timeout)
            .field("window_messages", &self.window_messages)
            .field("window_bytes", &self.window_bytes)
            .field("frame_messages_max", &self.frame_messages_max)
            .field("credit_messages", &self.credit_messages)
            .field("credit_bytes", &self.credit_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused_before_connecting() {
        let new = || ClientBuilder::new("acb://127.0.0.1:7400".into());
        assert!(new().validate().is_ok());
        for bad in [
            new().publish_window(0, 1),
            new().publish_window(1, 0),
            new().frame_messages_max(0),
            new().frame_messages_max(513),
            new().credits(65_537, 1),
            new().ack_linger(Duration::from_secs(2)),
            new().request_timeout(Duration::ZERO),
            ClientBuilder::new("http://x".into()),
        ] {
            let e = bad.validate().unwrap_err();
            assert_eq!(e.code(), ErrorCode::InvalidArgument, "{e}");
        }
    }

    #[test]
    fn a_frame_is_never_more_than_a_quarter_of_the_window() {
        let cap = |window, max| {
            ClientBuilder::new("acb://a".into())
                .publish_window(window, 1 << 20)
                .frame_messages_max(max)
                .validate()
                .unwrap()
                .frame_cap()
        };
        assert_eq!((cap(1, 128), cap(16, 128), cap(512, 128), cap(4096, 512), cap(4096, 1)), (1, 4, 128, 512, 1));
    }

    #[test]
    fn secrets_do_not_show() {
        let b = ClientBuilder::new("acb://a".into()).credentials(Credentials::enrolment_key("acb_hush", "planner"));
        let shown = format!("{b:?}");
        assert!(!shown.contains("hush") && shown.contains("planner"), "{shown}");
    }
}
