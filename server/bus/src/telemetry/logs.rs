//! Logs: text for people at a terminal, JSON lines for everything else. To standard error, so that what the server
//! prints for people to use stays alone on standard output.

use std::io::IsTerminal as _;

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, fmt};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the process. A process logs once: later calls do nothing, so that servers in tests can share one.
///
/// # Errors
/// When `filter` is no filter, such as `info,acb_server=debug`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
    let terminal = std::io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal && text);
    // An error here means that a subscriber is there already.
    let _ = if text { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    Ok(())
}
