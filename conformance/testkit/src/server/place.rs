//! Where a server under test runs: its program, its ports, its folder.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result, bail};

/// Names the server's program when it does not lie where cargo puts it.
pub const SERVER_BIN: &str = "ACB_SERVER_BIN";

/// Ports are taken from here. Below the range that the system gives to outgoing connections: such a connection to a
/// port on which nobody listens yet can be given that very port and then talks to itself.
const PORTS: std::ops::Range<u16> = 18_000..31_000;

/// The program `acb-server`: what [`SERVER_BIN`] names, or the one beside the running test.
///
/// # Errors
/// When it was not built.
pub fn server_program() -> Result<PathBuf> {
    program("acb-server", SERVER_BIN)
}

fn program(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("where this test lies")?;
    // A test lies in target/<profile>/deps, a program in target/<profile>.
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("{name} is not built: `cargo build -p {name}` first, or name it in {variable}"),
    }
}

/// A port on which nobody listens now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    // Several test processes look at once: each starts elsewhere.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    let own = (std::process::id().wrapping_mul(7919) % u32::from(span)) as u16;
    for _ in 0..span {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (own.wrapping_add(step) % span);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port in {PORTS:?}")
}

/// An address of this machine alone.
pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A server's data: a folder of its own that goes with it, or one that somebody else owns.
#[derive(Debug)]
pub enum DataDir {
    /// Goes when it is dropped.
    Own(tempfile::TempDir),
    /// Stays.
    Given(PathBuf),
}

impl DataDir {
    /// A new folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        Ok(Self::Own(tempfile::Builder::new().prefix("acb-test-").tempdir().context("a folder for the server")?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Given(path) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_lie_below_those_of_outgoing_connections() {
        let (a, b) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(a, b);
        assert!(PORTS.contains(&a) && PORTS.contains(&b));
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken = free_port().unwrap();
        let _held = TcpListener::bind(local(taken)).unwrap();
        for _ in 0..3 {
            assert_ne!(free_port().unwrap(), taken);
        }
    }

    #[test]
    fn a_program_that_is_not_there_says_how_to_get_it() {
        let error = program("acb-nothing", "ACB_NOTHING_BIN").unwrap_err().to_string();
        assert!(error.contains("cargo build -p acb-nothing") && error.contains("ACB_NOTHING_BIN"), "{error}");
    }
}
