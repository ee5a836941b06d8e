//! The cases, and with which peer, level and window each is measured: one table, read by everything else.

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
        }
    }

    /// What an acknowledgement of this peer promises, in the words of the table.
    pub(crate) const fn durability(self) -> &'static str {
        match self {
            Self::NatsDefault | Self::NatsLean => "after write(), fsync every 2 min",
            Self::NatsAlways => "after fsync of each message",
            Self::NatsCore => "nothing stored",
            Self::RedisEverysec => "after write(), fsync every 1 s",
            Self::RedisAlways => "after fsync per event-loop turn",
        }
    }

    /// Which program serves this peer.
    pub(crate) const fn target(self) -> Target {
        match self {
            Self::RedisEverysec | Self::RedisAlways => Target::Redis,
            _ => Target::Nats,
        }
    }

    /// The client forms that are measured; with several, each pair counts the fastest of them.
    pub(crate) const fn forms(self) -> &'static [Form] {
        match self {
            Self::NatsLean => &[Form::Lean, Form::OwnInbox],
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
}

impl Target {
    /// The name used on the command line of `load`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Acb => "acb",
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }
}

/// How a client publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Form {
    /// The fastest documented call that gives each message its own result.
    Usual,
    /// No result per message: NATS fast ingest; ACB receipts dropped, the end awaited.
    Lean,
    /// NATS only: one reply inbox for all, a slot given back per reply.
    OwnInbox,
}

impl Form {
    /// The name used on the command line of `load`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Lean => "lean",
            Self::OwnInbox => "own-inbox",
        }
    }
}

/// What happens in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One client publishes with a window of open publishes.
    Pipelined,
    /// Clients that each wait for an ack before the next publish, one connection each.
    OneInFlight {
        /// How many.
        clients: usize,
    },
    /// One durable subscription works off a stored backlog, one explicit ack per message.
    Backlog,
    /// Publish to handler and ack; a slot is given back when the first subscription has the message.
    Live {
        /// Durable subscriptions, one connection each.
        subscriptions: usize,
    },
    /// Requests to one responder, each client one open request.
    RequestReply {
        /// Requesters, one connection each.
        clients: usize,
    },
    /// Connections that do nothing: memory of the server per connection.
    Idle {
        /// How many.
        connections: usize,
    },
}

/// A case, the same for ours and for every peer.
#[derive(Debug)]
pub(crate) struct Case {
    /// Name in results.
    pub(crate) name: &'static str,
    /// What happens.
    pub(crate) shape: Shape,
    /// Payload bytes.
    pub(crate) payload: usize,
    /// Each of our publish frames carries one message: what many small producers look like.
    pub(crate) one_frame: bool,
    /// Each message has a deduplication key of its own.
    pub(crate) keyed: bool,
    /// Before our measured run goes a discarded one on the same server: its segments have then been written
    /// before, where a fresh store's have not. The peers always start with a fresh store.
    pub(crate) warm: bool,
}

const BASE: Case =
    Case { name: "", shape: Shape::Pipelined, payload: 256, one_frame: false, keyed: false, warm: false };

macro_rules! cases {
    ($($constant:ident = $name:literal, $shape:expr $(, $field:ident : $value:expr)*;)*) => {
        $(const $constant: Case = Case { name: $name, shape: $shape $(, $field: $value)*, ..BASE };)*
        /// Every case, in the order of the report.
        pub(crate) static CASES: &[Case] = &[$($constant),*];
    };
}

cases! {
    PUBLISH = "publish-256-pipelined", Shape::Pipelined, warm: true;
    PUBLISH_ONE_FRAME = "publish-256-oneframe", Shape::Pipelined, one_frame: true, warm: true;
    PUBLISH_4096 = "publish-4096-pipelined", Shape::Pipelined, payload: 4096, warm: true;
    PUBLISH_4096_FRESH = "publish-4096-fresh", Shape::Pipelined, payload: 4096;
    PUBLISH_KEYED = "publish-256-keyed", Shape::Pipelined, keyed: true, warm: true;
    PUBLISH_50X1 = "publish-256-50x1", Shape::OneInFlight { clients: 50 };
    PUBLISH_1X1 = "publish-256-1x1", Shape::OneInFlight { clients: 1 };
    DELIVER = "deliver-256-backlog", Shape::Backlog;
    DELIVER_4096 = "deliver-4096-backlog", Shape::Backlog, payload: 4096;
    LIVE = "live-256", Shape::Live { subscriptions: 1 };
    LIVE_ONE_FRAME = "live-256-oneframe", Shape::Live { subscriptions: 1 }, one_frame: true;
    LIVE_8 = "live-256-8subs", Shape::Live { subscriptions: 8 };
    REQUEST_1X1 = "request-reply-1x1", Shape::RequestReply { clients: 1 };
    REQUEST_50X1 = "request-reply-50x1", Shape::RequestReply { clients: 50 };
    IDLE = "idle-10k", Shape::Idle { connections: 10_000 };
}

impl Case {
    /// The case of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        CASES.iter().find(|case| case.name == name)
    }

    /// What the main figure of this case counts.
    pub(crate) const fn unit(&self) -> &'static str {
        match self.shape {
            Shape::Idle { .. } => "KiB/connection",
            Shape::RequestReply { .. } => "requests/s",
            _ => "msg/s",
        }
    }

    /// What an acknowledgement of ours promises at a level, and on which kind of segment it was measured.
    pub(crate) fn our_durability(&self, mode: Mode) -> String {
        let promise = match mode {
            Mode::Written => "after write(), fdatasync within 20 ms",
            Mode::Synced => "after group fdatasync",
        };
        match self.shape {
            Shape::Pipelined if self.warm => format!("{promise}, segments written before"),
            Shape::Pipelined => format!("{promise}, fresh segments"),
            _ => promise.to_owned(),
        }
    }

    /// How acknowledgements are given in this case, on both sides.
    pub(crate) const fn acks(&self, form: Form) -> &'static str {
        match (self.shape, form) {
            (Shape::Pipelined | Shape::OneInFlight { .. }, Form::Usual) => "each publish acked",
            (Shape::Pipelined | Shape::OneInFlight { .. }, _) => "acked, no result per message",
            (Shape::Backlog, _) => "explicit ack each",
            (Shape::Live { .. }, _) => "each publish acked, explicit ack each",
            (Shape::RequestReply { .. }, _) => "reply to each request",
            (Shape::Idle { .. }, _) => "-",
        }
    }
}

/// A line of the report: a case at a level against a peer, with one window for both sides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// The case's name.
    pub(crate) case: &'static str,
    /// Our level.
    pub(crate) mode: Mode,
    /// Against whom.
    pub(crate) peer: Peer,
    /// Open publishes (pipelined, live) or unacknowledged deliveries (backlog) on both sides.
    pub(crate) window: usize,
}

const fn row(case: &'static str, mode: Mode, peer: Peer, window: usize) -> Row {
    Row { case, mode, peer, window }
}

/// Unacknowledged deliveries of a subscription, JetStream's default.
pub(crate) const ACK_WINDOW: usize = 1000;

/// Every row. Windows: 512 is the peers' usual one, 1000 is fast ingest's documented 2 x 500, 1024 is
/// Redis' two pipelines of 512; ours takes the peer's.
pub(crate) static ROWS: &[Row] = &[
    row(PUBLISH.name, Mode::Written, Peer::NatsDefault, 512),
    row(PUBLISH.name, Mode::Written, Peer::NatsLean, 1000),
    row(PUBLISH.name, Mode::Written, Peer::RedisEverysec, 1024),
    row(PUBLISH.name, Mode::Synced, Peer::NatsDefault, 512),
    row(PUBLISH.name, Mode::Synced, Peer::RedisAlways, 1024),
    row(PUBLISH.name, Mode::Synced, Peer::NatsAlways, 512),
    row(PUBLISH_ONE_FRAME.name, Mode::Written, Peer::NatsDefault, 512),
    row(PUBLISH_4096.name, Mode::Written, Peer::NatsDefault, 512),
    row(PUBLISH_4096_FRESH.name, Mode::Written, Peer::NatsDefault, 512),
    row(PUBLISH_KEYED.name, Mode::Written, Peer::NatsDefault, 512),
    row(PUBLISH_50X1.name, Mode::Written, Peer::NatsDefault, 1),
    row(PUBLISH_50X1.name, Mode::Synced, Peer::RedisAlways, 1),
    row(PUBLISH_50X1.name, Mode::Synced, Peer::NatsAlways, 1),
    row(PUBLISH_1X1.name, Mode::Written, Peer::NatsDefault, 1),
    row(PUBLISH_1X1.name, Mode::Synced, Peer::RedisAlways, 1),
    row(DELIVER.name, Mode::Written, Peer::NatsDefault, ACK_WINDOW),
    row(DELIVER.name, Mode::Written, Peer::RedisEverysec, 500),
    row(DELIVER_4096.name, Mode::Written, Peer::NatsDefault, ACK_WINDOW),
    row(LIVE.name, Mode::Written, Peer::NatsDefault, 512),
    row(LIVE_ONE_FRAME.name, Mode::Written, Peer::NatsDefault, 512),
    row(LIVE_8.name, Mode::Written, Peer::NatsDefault, 512),
    row(REQUEST_1X1.name, Mode::Written, Peer::NatsCore, 1),
    row(REQUEST_50X1.name, Mode::Written, Peer::NatsCore, 1),
    row(IDLE.name, Mode::Written, Peer::NatsCore, 0),
];

impl Row {
    /// The case behind the name.
    pub(crate) fn case(&self) -> anyhow::Result<&'static Case> {
        Case::named(self.case).ok_or_else(|| anyhow::anyhow!("no case is named {}", self.case))
    }

    /// `case mode peer`, the row's identity in messages.
    pub(crate) fn label(&self) -> String {
        format!("{} {} {}", self.case, self.mode.name(), self.peer.name())
    }

    /// The window as it is printed beside the row.
    pub(crate) fn windows(&self, case: &Case) -> String {
        match case.shape {
            Shape::Pipelined => format!("{} open", self.window),
            Shape::OneInFlight { clients } | Shape::RequestReply { clients } => {
                format!("{clients} x 1 open")
            }
            Shape::Backlog => format!("{} unacked", self.window),
            Shape::Live { .. } => format!("{} open, {ACK_WINDOW} unacked", self.window),
            Shape::Idle { connections } => format!("{connections} connections"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_case_and_every_case_has_a_row() {
        for row in ROWS {
            assert!(Case::named(row.case).is_some(), "{}", row.case);
        }
        for case in CASES {
            assert!(ROWS.iter().any(|row| row.case == case.name), "{}", case.name);
        }
    }

    #[test]
    fn rows_are_unique() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..index].iter().all(|other| other.label() != row.label()), "{}", row.label());
        }
    }

    #[test]
    fn names_on_the_command_line_equal_names_in_results() {
        for mode in [Mode::Written, Mode::Synced] {
            assert_eq!(serde_json::to_string(&mode).unwrap(), format!("\"{}\"", mode.name()));
        }
        for peer in ROWS.iter().map(|row| row.peer) {
            assert_eq!(serde_json::to_string(&peer).unwrap(), format!("\"{}\"", peer.name()));
        }
    }
}
