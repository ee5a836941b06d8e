//! `acb-server` on a fresh data folder.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{Place, ask};
use crate::case::Case;

/// The bound of the topics' log in a warm case: so small that the discarded run reaches it, and the measured one is what a
/// server at its bound does for the rest of its life: it writes into segments that retention has given up.
const WARM_TOPICS_BYTES: &str = "retention.topics_bytes=256 MiB";

/// A load is a handful of agents that make the calls of thousands: the bound of calls is counted per agent, and lifted.
const FREE_CALLS: &str = "auth.calls_per_minute=none";

/// The command that starts it.
#[expect(clippy::unnecessary_wraps, reason = "same signature as the peers' commands")]
pub(super) fn command(program: &Path, place: &Place, case: &Case) -> Result<Command> {
    let mut command = Command::new(program);
    command
        .args(["--listen", &place.address()])
        .arg("--admin-key-file")
        .arg(key_file(&place.address()))
        .args(["--admin-listen", &place.admin()])
        .arg("--data-dir")
        .arg(place.store());
    if case.warm {
        command.args(["--set", WARM_TOPICS_BYTES]);
    }
    if case.many_calls() {
        command.args(["--set", FREE_CALLS]);
    }
    Ok(command)
}

/// Where the server writes the key of its first start: load programs and server agree by the address alone.
pub(crate) fn key_file(address: &str) -> std::path::PathBuf {
    let port = address.rsplit(':').next().unwrap_or(address);
    std::env::temp_dir().join(format!("acb-bench-{port}.key"))
}

/// It is ready when its admin listener says so.
pub(super) fn ready(place: &Place) -> bool {
    let question = b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    is_ok(&ask(&place.admin(), question))
}

fn is_ok(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_ready() {
        assert!(is_ok(b"HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!is_ok(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"));
        assert!(!is_ok(b""));
    }
}
