//! The conformance scenarios against the real server, one test per scenario and client.
//!
//! `cargo build -p acb-server` first. `-- --write` writes `docs/conformance.md`.

fn main() -> std::process::ExitCode {
    acb_testkit::scenario::harness::main()
}
