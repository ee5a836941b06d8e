//! Settings: one struct a subsystem, from defaults < `acb.toml` < `ACB_…` < flags.
//!
//! Every key stands once, below, with its meaning and default; reading, checking, printing and the page
//! `docs/guide/configuration.md` follow from that. A key that nobody knows is an error that names the nearest one, and
//! all errors are told together.

pub mod load;
pub mod print;
pub mod setting;
pub mod validate;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use acb_types::Durability;

use self::{
    load::{Problem, Values},
    setting::{ByteCount, Limit},
};
use crate::telemetry::logs::LogFormat;

/// A key of the settings.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Section and name, such as `server.listen`.
    pub path: &'static str,
    /// What holds when nobody says otherwise, as text.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether its value is shown to nobody.
    pub secret: bool,
}

impl Key {
    /// Its section.
    pub fn section(&self) -> &'static str {
        self.path.split('.').next().unwrap_or_default()
    }

    /// Its name inside the section.
    pub fn name(&self) -> &'static str {
        self.path.split('.').nth(1).unwrap_or_default()
    }

    /// The environment variable that sets it, such as `ACB_SERVER_LISTEN`.
    pub fn variable(&self) -> String {
        format!("ACB_{}", self.path.replace('.', "_").to_uppercase())
    }
}

macro_rules! settings {
    ($(#[doc = $section_doc:literal] $section:ident: $type:ident {
        $(#[doc = $doc:literal] $key:ident: $value:ty = $default:literal;)*
    })*) => {
        /// All settings.
        #[derive(Clone, Debug)]
        pub struct Config {
            $(#[doc = $section_doc] pub $section: $type,)*
        }

        $(
            #[doc = $section_doc]
            #[derive(Clone, Debug)]
            pub struct $type {
                $(#[doc = $doc] pub $key: $value,)*
            }

            impl $type {
                fn read(values: &Values, problems: &mut Vec<Problem>) -> Option<Self> {
                    $(let $key = values.read(concat!(stringify!($section), ".", stringify!($key)), problems);)*
                    Some(Self { $($key: $key?,)* })
                }
            }
        )*

        /// Every key, in order.
        pub const KEYS: &[Key] = &[$($(
            Key {
                path: concat!(stringify!($section), ".", stringify!($key)),
                default: $default,
                meaning: $doc,
                secret: false,
            },
        )*)*];

        impl Config {
            /// Reads all settings out of values, or tells everything that is wrong with them.
            ///
            /// # Errors
            /// Every value that does not read, and every rule between values that is broken.
            pub fn read(values: &Values) -> Result<Self, Vec<Problem>> {
                let mut problems = Vec::new();
                $(let $section = $type::read(values, &mut problems);)*
                let read = (|| Some(Self { $($section: $section?,)* }))();
                match read {
                    Some(config) if problems.is_empty() => {
                        validate::check(&config, values, &mut problems);
                        if problems.is_empty() { Ok(config) } else { Err(problems) }
                    }
                    _ => Err(problems),
                }
            }
        }
    };
}

settings! {
    /// Where the server listens.
    server: Server {
        /// Address for clients: gRPC and HTTP on one port. An address that others can reach needs TLS or `allow_plaintext`.
        listen: SocketAddr = "127.0.0.1:7400";
        /// Address for `/live`, `/ready`, `/metrics` and `/version`. It has no credentials, so it must be loopback.
        admin_listen: SocketAddr = "127.0.0.1:7401";
        /// Lets others connect without TLS. Tokens and messages can then be read on the way.
        allow_plaintext: bool = "false";
    }
    /// Where data is kept.
    storage: Storage {
        /// Folder of everything that must survive: logs, metadata, keys. One server at a time.
        data_dir: PathBuf = "acb-data";
    }
    /// TLS 1.3. Both or neither.
    tls: Tls {
        /// PEM file of the certificate chain, leaf first. Empty for none.
        certificate: Option<PathBuf> = "";
        /// PEM file of the private key. Empty for none.
        key: Option<PathBuf> = "";
    }
    /// Connections.
    edge: EdgeSettings {
        /// Threads that serve HTTP/2 connections; 0 for half of the cores.
        hot_runtimes: usize = "0";
        /// Connections at once; more are turned away with `too_many_connections`.
        connections_max: usize = "50000";
        /// Requests that one connection has open at once.
        streams_per_connection: u32 = "128";
        /// Time that a connection has to say what it speaks, TLS included.
        handshake_timeout: Duration = "10s";
        /// TLS handshakes at once.
        handshakes_max: usize = "256";
        /// How often a silent connection is asked whether it lives.
        keep_alive_interval: Duration = "30s";
        /// How long it has to answer.
        keep_alive_timeout: Duration = "20s";
        /// Time that a thread of HTTP/2 looks for the next message before it sleeps, where the last came that soon: less latency for agents that talk back and forth (on two virtual cores half of it), for up to a core while they do. At most `1ms`; `0s` for never.
        busy_poll: Duration = "200us";
    }
    /// Identity.
    auth: AuthSettings {
        /// Life of an access token: 1 min to 1 day.
        access_token_ttl: Duration = "1h";
        /// Life of a refresh token: 1 min to 90 days. Each works once.
        refresh_token_ttl: Duration = "7days";
        /// Unary calls of an agent in a minute; the hot streams do not count. `none` for no bound, which `--dev` takes by itself.
        calls_per_minute: Limit = "1000";
    }
    /// Delivery.
    delivery: DeliverySettings {
        /// Level of sends and publishes that name none: `memory`, `written` or `synced`. Requests and replies take `written`.
        durability_default: Durability = "synced";
        /// Lowest level that a publish may ask for.
        durability_floor: Durability = "memory";
        /// Threads that flush logs side by side.
        committer_threads: usize = "2";
        /// How often retention is looked at.
        retain_every: Duration = "10s";
        /// How often what absent consumers will never be given is looked for, so that it holds no log; also at the start.
        survey_every: Duration = "1h";
    }
    /// How much the logs of each tenant keep.
    retention: Retention {
        /// Bytes of all inboxes; then sends to them are refused with `storage_full`.
        inbox_bytes: ByteCount = "4 GiB";
        /// How long messages on topics are kept that everybody has had.
        topics_age: Duration = "7days";
        /// Bytes of topics; then the oldest go, and who has not read them is told of the gap.
        topics_bytes: ByteCount = "8 GiB";
        /// Bytes of dead letters; then the oldest go.
        dead_letters_bytes: ByteCount = "1 GiB";
    }
    /// What the server says of itself.
    log: LogSettings {
        /// `text`, `json`, or `auto` for text on a terminal and JSON otherwise.
        format: LogFormat = "auto";
        /// What is logged, such as `info` or `info,acb_server=debug`.
        filter: String = "info";
    }
    /// How the server stops.
    shutdown: ShutdownSettings {
        /// How long streams and calls have to finish what they have.
        drain_timeout: Duration = "10s";
        /// How long logs and metadata have to reach the disk.
        flush_timeout: Duration = "10s";
    }
}
