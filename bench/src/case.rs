//! The cases, and with which peer, level and window each is measured: one table, read by everything else.

pub(crate) use crate::peer::{Form, Language, Mode, Peer, Target};

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
    /// One client; so many tasks that each publish and wait for the ack: µs per operation.
    Tasks {
        /// How many.
        tasks: usize,
    },
    /// Agents that all serve an inbox and ask each other at a fixed rate, whether answers have come or not.
    OpenLoop {
        /// How many, one connection each.
        agents: usize,
        /// Requests in a second, over all agents.
        per_second: u32,
    },
    /// One file into the bus, its SHA-256 taken on the way.
    Upload,
    /// One stored content into a file, its SHA-256 checked on the way.
    Download,
    /// Writers that each update a context of their own by its revision.
    ContextUpdates {
        /// How many, one connection each.
        writers: usize,
    },
    /// Contexts of `payload` bytes, made by several writers.
    ContextCreates {
        /// How many in all.
        contexts: u64,
        /// Connections that make them.
        writers: usize,
    },
    /// Readers of one context.
    ContextGets {
        /// How many, one connection each.
        readers: usize,
    },
    /// One writer, and so many agents that watch its context: until the last has seen a change.
    ContextWatch {
        /// How many, one connection each.
        watchers: usize,
    },
    /// A fresh interpreter that imports the Python client.
    Import,
}

/// Size of the file that goes up and down.
pub(crate) const TRANSFER_BYTES: u64 = 1_000_000_000;

/// Seconds of a run unless said otherwise. Cases of a fixed size shrink with shorter runs.
pub(crate) const SECONDS: f64 = 3.0;

/// What a fixed size is in a run of `seconds`: all of it in a whole run, and never nothing.
pub(crate) fn scaled(size: u64, seconds: f64) -> u64 {
    ((size as f64 * (seconds / SECONDS).min(1.0)) as u64).max(1)
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
    /// Language of our client, and of the peers' where they are clients.
    pub(crate) language: Language,
    /// Our run of a pair stands against every peer of the case: what takes long, or has many peers.
    pub(crate) shared: bool,
    /// Length of a run as a share of the others': many rows, each steady after a moment.
    pub(crate) share: f64,
}

const BASE: Case = Case {
    name: "",
    shape: Shape::Pipelined,
    payload: 256,
    one_frame: false,
    keyed: false,
    warm: false,
    language: Language::Rust,
    shared: false,
    share: 1.0,
};

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
    AGENTS_50 = "agents-50-open-loop", Shape::OpenLoop { agents: 50, per_second: 5000 };
    COMMITS = "context-commits-16", Shape::ContextUpdates { writers: 16 }, share: 0.7;
    CREATES = "context-create-300x1m", Shape::ContextCreates { contexts: 300, writers: 16 }, payload: 1 << 20;
    GETS = "context-get-hot", Shape::ContextGets { readers: 8 }, payload: 4096, share: 0.7;
    WATCH = "context-watch-1000", Shape::ContextWatch { watchers: 1000 }, share: 0.7;
    UPLOAD = "upload-1g", Shape::Upload, shared: true;
    DOWNLOAD = "download-1g", Shape::Download, shared: true;
    PY_PUBLISH = "python-publish-256", Shape::Pipelined, language: Language::Python, warm: true, shared: true, share: 0.5;
    PY_RECEIVE = "python-receive-256", Shape::Backlog, language: Language::Python, shared: true, share: 0.5;
    PY_BORDER_1 = "python-border-1", Shape::Tasks { tasks: 1 }, language: Language::Python, share: 0.3;
    PY_BORDER_10 = "python-border-10", Shape::Tasks { tasks: 10 }, language: Language::Python, share: 0.3;
    PY_BORDER_100 = "python-border-100", Shape::Tasks { tasks: 100 }, language: Language::Python, share: 0.3;
    PY_BORDER_1000 = "python-border-1000", Shape::Tasks { tasks: 1000 }, language: Language::Python, share: 0.3;
    PY_IMPORT = "python-import", Shape::Import, language: Language::Python, share: 0.5;
    PY_UPLOAD = "python-upload-1g", Shape::Upload, language: Language::Python;
    PY_DOWNLOAD = "python-download-1g", Shape::Download, language: Language::Python;
}

impl Case {
    /// The case of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        CASES.iter().find(|case| case.name == name)
    }

    /// Whether a large file goes up or down.
    pub(crate) const fn moves_a_file(&self) -> bool {
        matches!(self.shape, Shape::Upload | Shape::Download)
    }

    /// Whether agents make more calls than the server's default bound of calls per minute allows them.
    pub(crate) const fn many_calls(&self) -> bool {
        matches!(
            self.shape,
            Shape::ContextUpdates { .. }
                | Shape::ContextCreates { .. }
                | Shape::ContextGets { .. }
                | Shape::ContextWatch { .. }
        )
    }

    /// Whether the case has a window that it is given.
    pub(crate) const fn has_window(&self) -> bool {
        matches!(self.shape, Shape::Pipelined | Shape::OneInFlight { .. } | Shape::Backlog | Shape::Live { .. })
    }

    /// What the main figure of this case counts.
    pub(crate) const fn unit(&self) -> &'static str {
        match self.shape {
            Shape::Idle { .. } => "KiB/connection",
            Shape::RequestReply { .. } | Shape::OpenLoop { .. } => "requests/s",
            Shape::Tasks { .. } => "µs/op",
            Shape::Upload | Shape::Download | Shape::ContextCreates { .. } => "MB/s",
            Shape::ContextUpdates { .. } => "commits/s",
            Shape::ContextGets { .. } => "gets/s",
            Shape::ContextWatch { .. } => "events/s",
            Shape::Import => "ms",
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
            Shape::Upload | Shape::Download => "each 8 chunks flushed; a downloaded file flushed".to_owned(),
            Shape::ContextUpdates { .. } | Shape::ContextCreates { .. } | Shape::ContextWatch { .. } => {
                "after group fdatasync of the metadata".to_owned()
            }
            Shape::ContextGets { .. } | Shape::Import => "-".to_owned(),
            _ => promise.to_owned(),
        }
    }

    /// How acknowledgements are given in this case, on both sides.
    pub(crate) const fn acks(&self, form: Form) -> &'static str {
        match (self.shape, form) {
            (Shape::Pipelined, Form::Usual) if matches!(self.language, Language::Python) => {
                "each publish acked, the end awaited"
            }
            (Shape::Pipelined | Shape::OneInFlight { .. }, Form::Usual) => "each publish acked",
            (Shape::Pipelined | Shape::OneInFlight { .. }, _) => "acked, no result per message",
            (Shape::Backlog, _) => "explicit ack each",
            (Shape::Live { .. }, _) => "each publish acked, explicit ack each",
            (Shape::RequestReply { .. } | Shape::OpenLoop { .. }, _) => "reply to each request",
            (Shape::Tasks { .. }, _) => "each ack awaited",
            (Shape::Upload | Shape::Download, _) => "SHA-256 of the whole checked",
            (Shape::ContextUpdates { .. }, _) => "each by if_rev",
            (Shape::ContextCreates { .. }, _) => "each answer awaited, SHA-256 checked",
            (Shape::ContextGets { .. }, _) => "each answer awaited",
            (Shape::ContextWatch { .. }, _) => "each change seen by all",
            (Shape::Idle { .. } | Shape::Import, _) => "-",
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
    row(AGENTS_50.name, Mode::Written, Peer::NatsCore, 0),
    row(AGENTS_50.name, Mode::Synced, Peer::Alone, 0),
    row(COMMITS.name, Mode::Synced, Peer::Alone, 1),
    row(CREATES.name, Mode::Synced, Peer::Alone, 1),
    row(GETS.name, Mode::Synced, Peer::Alone, 1),
    row(WATCH.name, Mode::Synced, Peer::Alone, 1),
    row(UPLOAD.name, Mode::Synced, Peer::NatsDefault, 0),
    row(UPLOAD.name, Mode::Synced, Peer::CpSha256, 0),
    row(DOWNLOAD.name, Mode::Synced, Peer::NatsDefault, 0),
    row(DOWNLOAD.name, Mode::Synced, Peer::CpSha256, 0),
    row(PY_PUBLISH.name, Mode::Written, Peer::NatsPyPublishAsync, 512),
    row(PY_PUBLISH.name, Mode::Written, Peer::RedisPy, 512),
    row(PY_PUBLISH.name, Mode::Written, Peer::RustCore, 512),
    row(PY_RECEIVE.name, Mode::Written, Peer::NatsPyPush, ACK_WINDOW),
    row(PY_RECEIVE.name, Mode::Written, Peer::NatsPyFetch, ACK_WINDOW),
    row(PY_RECEIVE.name, Mode::Written, Peer::RedisPy, ACK_WINDOW),
    row(PY_RECEIVE.name, Mode::Written, Peer::RustCore, ACK_WINDOW),
    row(PY_BORDER_1.name, Mode::Written, Peer::RustCore, 1),
    row(PY_BORDER_10.name, Mode::Written, Peer::RustCore, 10),
    row(PY_BORDER_100.name, Mode::Written, Peer::RustCore, 100),
    row(PY_BORDER_1000.name, Mode::Written, Peer::RustCore, 1000),
    row(PY_IMPORT.name, Mode::Written, Peer::Alone, 0),
    row(PY_UPLOAD.name, Mode::Synced, Peer::Alone, 0),
    row(PY_DOWNLOAD.name, Mode::Synced, Peer::Alone, 0),
];

impl Row {
    /// The case behind the name.
    pub(crate) fn case(&self) -> anyhow::Result<&'static Case> {
        Case::named(self.case).ok_or_else(|| anyhow::anyhow!("no case is named {}", self.case))
    }

    /// Whether our run for `earlier` is also this row's: the same work against another peer of a shared case.
    pub(crate) fn shares_run_of(&self, earlier: Self) -> bool {
        let shared = Case::named(self.case).is_some_and(|case| case.shared);
        shared
            && (self.case, self.mode, self.window) == (earlier.case, earlier.mode, earlier.window)
            && self.peer.our_form() == earlier.peer.our_form()
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
            Shape::Tasks { tasks } => format!("{tasks} open"),
            Shape::OpenLoop { agents, per_second } => format!("{agents} agents, {per_second} requests/s"),
            Shape::Upload | Shape::Download => format!("{} MB", TRANSFER_BYTES / 1_000_000),
            Shape::ContextUpdates { writers } => format!("{writers} x 1 open"),
            Shape::ContextCreates { contexts, writers } => format!("{contexts} contexts, {writers} x 1 open"),
            Shape::ContextGets { readers } => format!("{readers} x 1 open"),
            Shape::ContextWatch { watchers } => format!("{watchers} watchers, 1 writer"),
            Shape::Import => "fresh interpreters".to_owned(),
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
