//! `acb-server`: arguments, settings, logs, run, exit code.

use std::process::ExitCode;

use acb_server::program;

/// Measured: less CPU per message than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    program::run()
}
