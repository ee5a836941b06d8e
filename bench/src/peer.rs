//! Who is measured and how: levels, peers, programs, client forms, languages.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Level at which ACB acknowledges a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Acknowledged after `write()`, flushed within 20 ms.
    Written,
    /// Acknowledged after a group-commit `fdatasync`.
    Synced,
}

impl Mode {
    /// The name used in results and on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Synced => "synced",
        }
    }
}

/// A peer: a server with a setting, and for NATS also the way its client publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// JetStream file store as it comes: acks after `write()`, fsync every 2 minutes.
    NatsDefault,
    /// The same server, published to in the leanest forms it has.
    NatsLean,
    /// JetStream with `sync_interval: always`.
    NatsAlways,
    /// Core NATS: no storage, no acks.
    NatsCore,
    /// Redis Streams, append-only file flushed every second.
    RedisEverysec,
    /// Redis Streams, append-only file flushed before each event-loop turn answers.
    RedisAlways,
    /// `nats-py` against the default JetStream: `publish_async`.
    NatsPyPublishAsync,
    /// `nats-py` against the default JetStream: a durable push subscription with a callback.
    NatsPyPush,
    /// `nats-py` against the default JetStream: a durable pull subscription and `fetch`.
    NatsPyFetch,
    /// `redis-py` with hiredis against Redis Streams flushed every second.
    RedisPy,
    /// Our own Rust core against our own server: what a binding's border costs.
    RustCore,
    /// `cp` and then `sha256sum` of the same file: what the disk and the digest cost without a bus.
    CpSha256,
    /// Nobody: ours alone, without a ratio.
    Alone,
}

impl Peer {
    /// The name used in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NatsDefault => "nats-default",
            Self::NatsLean => "nats-lean",
            Self::NatsAlways => "nats-always",
            Self::NatsCore => "nats-core",
            Self::RedisEverysec => "redis-everysec",
            Self::RedisAlways => "redis-always",
            Self::NatsPyPublishAsync => "nats-py-publish-async",
            Self::NatsPyPush => "nats-py-push",
            Self::NatsPyFetch => "nats-py-fetch",
            Self::RedisPy => "redis-py",
            Self::RustCore => "rust-core",
            Self::CpSha256 => "cp-sha256",
            Self::Alone => "alone",
        }
    }

    /// What an acknowledgement of this peer promises, in the words of the table.
    pub(crate) const fn durability(self) -> &'static str {
        match self {
            Self::NatsDefault | Self::NatsLean | Self::NatsPyPublishAsync | Self::NatsPyPush | Self::NatsPyFetch => {
                "after write(), fsync every 2 min"
            }
            Self::NatsAlways => "after fsync of each message",
            Self::NatsCore => "nothing stored",
            Self::RedisEverysec | Self::RedisPy => "after write(), fsync every 1 s",
            Self::RedisAlways => "after fsync per event-loop turn",
            Self::RustCore => "the same as ours",
            Self::CpSha256 => "written, not flushed",
            Self::Alone => "-",
        }
    }

    /// Which program serves this peer.
    pub(crate) const fn target(self) -> Target {
        match self {
            Self::RedisEverysec | Self::RedisAlways | Self::RedisPy => Target::Redis,
            Self::RustCore | Self::Alone => Target::Acb,
            Self::CpSha256 => Target::Files,
            _ => Target::Nats,
        }
    }

    /// The client forms that are measured; with several, each pair counts the fastest of them.
    pub(crate) const fn forms(self) -> &'static [Form] {
        match self {
            Self::NatsLean => &[Form::Lean, Form::OwnInbox],
            Self::NatsPyPush => &[Form::Push],
            Self::NatsPyFetch => &[Form::Fetch],
            _ => &[Form::Usual],
        }
    }

    /// The form of our client that stands against this peer.
    pub(crate) const fn our_form(self) -> Form {
        match self {
            Self::NatsLean => Form::Lean,
            _ => Form::Usual,
        }
    }

    /// The language of this peer's client in a case of ours in `language`.
    pub(crate) const fn language(self, language: Language) -> Language {
        match self {
            Self::RustCore | Self::CpSha256 => Language::Rust,
            _ => language,
        }
    }
}

/// What a load program talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// `acb-server`, through the Rust SDK.
    Acb,
    /// `nats-server`, through `async-nats`.
    Nats,
    /// `redis-server`, through the `redis` crate.
    Redis,
    /// Files, through `cp` and `sha256sum`; a server of ours stands idle beside.
    Files,
}

impl Target {
    /// The name used on the command line of `load`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Acb => "acb",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Files => "files",
        }
    }
}

/// How a client publishes or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// The fastest documented call that gives each message its own result.
    Usual,
    /// No result per message: NATS fast ingest; ACB receipts dropped, the end awaited.
    Lean,
    /// NATS only: one reply inbox for all, a slot given back per reply.
    OwnInbox,
    /// `nats-py` only: a push subscription with a callback.
    Push,
    /// `nats-py` only: a pull subscription, 500 a fetch.
    Fetch,
}

impl Form {
    /// The name used on the command line of `load`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Lean => "lean",
            Self::OwnInbox => "own-inbox",
            Self::Push => "push",
            Self::Fetch => "fetch",
        }
    }
}

/// In which language a client runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// In the load program itself.
    Rust,
    /// In a Python process that the load program drives; uvloop on every side.
    Python,
}

impl Language {
    /// The name used on the command line of `load`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
        }
    }
}
