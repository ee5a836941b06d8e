//! A server under `strace`, and the proof that what it acknowledged was on its level before the acknowledgement left.
//!
//! `strace` sees every system call of the real binary, in the order in which threads stop at them: a thread that waits
//! for another's sync cannot enter its `write` before the tracer saw that sync return. So the order of lines is proof,
//! and times are not needed. The tracer is no parent (`-D`): the server keeps its own process id, and can be stopped and
//! killed as without it.

mod parse;
mod proof;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use acb_testkit::{
    ServerOptions,
    wait::{Level, wait_until},
};
use anyhow::{Context as _, Result, bail};

pub use self::{
    parse::{Call, parse},
    proof::{Proof, prove},
};

/// Calls that change the log's files, make them durable, or carry answers.
const TRACED: &str = "trace=pwrite64,pwritev,fdatasync,fsync,write,writev,sendto,sendmsg";
/// Bytes of a buffer that are kept: more than any frame or batch of the test.
const BYTES_MAX: &str = "1048576";
/// Longest that the tracer takes to write its last line after the server has ended.
const WRITTEN_WITHIN: Duration = Duration::from_secs(20);

/// Lets a server run under `strace`, which writes into a file.
///
/// # Errors
/// When there is no `strace`.
pub fn traced(options: ServerOptions, file: &Path) -> Result<ServerOptions> {
    if std::process::Command::new("strace").arg("-V").output().is_err() {
        bail!("strace is missing: `scripts/setup-dev.sh test` installs it");
    }
    let file = file.to_str().context("the trace's path is no text")?;
    // Stopping at the traced calls alone (`--seccomp-bpf`) leaves the server nearly as fast as it is.
    let words = ["strace", "-D", "-f", "--seccomp-bpf", "-ttt", "-y", "-xx", "-s", BYTES_MAX, "-e", TRACED];
    Ok(options.wrapper(&[&words[..], &["-e", "signal=none", "-o", file]].concat()))
}

/// The calls of a server that has ended.
///
/// # Errors
/// When the trace is not written to its end, or is none.
pub async fn finished(file: &Path, pid: u32) -> Result<Vec<Call>> {
    let last = format!("{pid} ");
    let path: PathBuf = file.to_owned();
    let text = wait_until("the trace's last line", WRITTEN_WITHIN, || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        // The leader's end is the last thing that a process does.
        let ended = text.lines().rev().take(50).any(|l| l.starts_with(&last) && l.contains("+++ "));
        let bytes = text.len();
        async move { Level::when(ended, text, format!("{bytes} bytes")) }
    })
    .await?;
    parse(&text)
}
