//! What the server's memory and its reading of logs may grow with, measured on the real program: not with what waits
//! behind a subscriber, and not with what others left in the log.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::result_large_err,
    clippy::cast_precision_loss,
    reason = "tests fail by panicking, own their tasks, and stay plain"
)]

mod catching_up;
mod life;
mod sleeping;
mod streams;

use acb_testkit::{
    Server, ServerOptions,
    raw::{Identity, RawClient},
};

/// How every server of these tests is started: this build's own program, with the machine's time.
fn options() -> ServerOptions {
    ServerOptions::default().program(env!("CARGO_BIN_EXE_acb-server")).real_clock()
}

async fn client(server: &Server, agent: &str) -> RawClient {
    RawClient::connect(server.address(), &Identity::dev("default", agent)).await.unwrap()
}

/// Memory of a server's process that is in RAM, in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().unwrap())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A number that the environment may set.
fn asked(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.replace('_', "").parse().unwrap())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
