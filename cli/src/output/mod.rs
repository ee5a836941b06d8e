//! What commands print: tables and lines for people, one JSON object a line for scripts.

use std::io::{self, IsTerminal as _, Write};

use serde_json::Value;

use crate::failure::Result;

mod show;
mod table;

pub(crate) use show::{age, bytes, message_json, now, payload_json, text_or_size, when, when_json};
pub(crate) use table::Table;

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    styled: bool,
}

impl Output {
    /// Results on standard output, as JSON lines or for people.
    pub(crate) fn new(json: bool) -> Self {
        let styled = !json && io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, styled }
    }

    /// Whether scripts read it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints one result: an object for scripts, a sentence for people.
    pub(crate) fn result(self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result {
        if self.json { line(&json().to_string()) } else { line(&text()) }
    }

    /// Prints many results: an object each for scripts, a table for people.
    pub(crate) fn rows(self, json: impl IntoIterator<Item = Value>, table: Table) -> Result {
        if !self.json {
            return line(&table.render(self.styled));
        }
        let mut out = io::stdout().lock();
        for object in json {
            writeln!(out, "{object}")?;
        }
        out.flush()?;
        Ok(())
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(self, bytes: &[u8]) -> Result {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        if !bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(())
    }

    /// Less important text, on a terminal that shows it so.
    pub(crate) fn faint(self, text: &str) -> String {
        if self.styled { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Tells people something beside the results, on standard error. Scripts are told nothing.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

fn line(text: &str) -> Result {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
