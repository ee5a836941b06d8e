//! Why a command failed: one sentence, a hint, and an exit code.

use std::{
    fmt,
    io::{self, IsTerminal as _},
};

use acb_sdk::{Error, ErrorCode};
use serde_json::{Value, json};

use crate::exit::Exit;

/// A command's result.
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command ends without having done what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The bus or the client said so.
    Bus(Error),
    /// This program says so.
    Own {
        /// How the program ends.
        exit: Exit,
        /// What went wrong, in one sentence.
        sentence: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// Whoever read the output went away: no reason to complain.
    ReaderGone,
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    /// Something in the command can never be right.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self::own(Exit::Usage, sentence, "`--help` after the command shows what it takes")
    }

    /// A failure of this program's own.
    pub(crate) fn own(exit: Exit, sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Own { exit, sentence: sentence.into(), hint: hint.into() }
    }

    /// A file that could not be read or written.
    pub(crate) fn file(path: &std::path::Path, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            io::ErrorKind::PermissionDenied => Exit::Denied,
            _ => Exit::Failed,
        };
        Self::own(exit, format!("{}: {error}", path.display()), "")
    }

    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Bus(error) => Exit::of(error.kind()),
            Self::Own { exit, .. } => *exit,
            Self::ReaderGone => Exit::Ok,
            Self::Interrupted => Exit::Interrupted,
        }
    }

    fn sentence(&self) -> &str {
        match self {
            Self::Bus(error) => error.message(),
            Self::Own { sentence, .. } => sentence,
            Self::ReaderGone => "the reader of the output went away",
            Self::Interrupted => "interrupted",
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Bus(error) => hint(error),
            Self::Own { hint, .. } => hint,
            Self::ReaderGone | Self::Interrupted => "",
        }
    }

    /// Tells it on standard error: to people in two lines, and with `verbose` all that is known; to scripts as one JSON
    /// object on a line.
    pub(crate) fn tell(&self, json: bool, verbose: bool) {
        if matches!(self, Self::ReaderGone | Self::Interrupted) {
            return;
        }
        if json {
            eprintln!("{}", self.json());
        } else {
            let bold = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            eprint!("{}", self.text(bold, verbose));
        }
    }

    fn text(&self, bold: bool, verbose: bool) -> String {
        let word = |word: &str| if bold { format!("\x1b[1m{word}\x1b[0m") } else { word.to_owned() };
        let mut out = format!("{} {}\n", word("error:"), self.sentence());
        if !self.hint().is_empty() {
            out += &format!("{} {}\n", word("hint:"), self.hint());
        }
        if let (true, Self::Bus(error)) = (verbose, self) {
            out += &format!("code: {} ({}), while {}\n", error.code(), error.kind(), error.operation());
            if let Some(id) = error.request_id() {
                out += &format!("request: {id}\n");
            }
            for (name, value) in error.context() {
                out += &format!("{name}: {value}\n");
            }
        }
        out
    }

    fn json(&self) -> Value {
        let mut out = json!({ "message": self.sentence(), "exit": self.exit().number() });
        if !self.hint().is_empty() {
            out["hint"] = self.hint().into();
        }
        if let Self::Bus(error) = self {
            out["code"] = error.code().name().into();
            out["kind"] = error.kind().name().into();
            out["retryable"] = error.is_retryable().into();
            if let Some(id) = error.request_id() {
                out["request_id"] = id.into();
            }
            let details: serde_json::Map<_, _> =
                error.context().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
            if !details.is_empty() {
                out["details"] = details.into();
            }
        }
        json!({ "error": out })
    }
}

/// What to do about an error of the bus; where the shell knows better than the table, its own words.
fn hint(error: &Error) -> &'static str {
    match error.code() {
        ErrorCode::Unauthenticated => "log in with `acb login`, or set ACB_KEY and ACB_AGENT",
        ErrorCode::TokenExpired | ErrorCode::TokenRevoked => "log in again with `acb login`",
        ErrorCode::Unavailable | ErrorCode::ConnectionLost => {
            "is the server running? Start it with `acb-server`, or name another with --url"
        }
        _ => error.hint(),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Bus(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::own(Exit::Failed, error.to_string(), "")
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Failure {
        Error::new(ErrorCode::PermissionDenied, "messages.publish", "Send needs the role agent-producer")
            .with("roles", "agent-producer")
            .into()
    }

    #[test]
    fn people_get_one_sentence_and_a_hint() {
        let text = denied().text(false, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0], "error: Send needs the role agent-producer");
        assert_eq!(lines[1], format!("hint: {}", ErrorCode::PermissionDenied.what_to_do()));
    }

    #[test]
    fn verbose_adds_the_code_and_the_facts() {
        let text = denied().text(false, true);
        assert!(text.contains("code: permission_denied (permission_denied), while messages.publish\n"), "{text}");
        assert!(text.ends_with("roles: agent-producer\n"), "{text}");
    }

    #[test]
    fn scripts_get_one_object_with_the_code() {
        let error = &denied().json()["error"];
        assert_eq!((&error["code"], &error["exit"]), (&json!("permission_denied"), &json!(4)));
        assert_eq!(error["details"]["roles"], json!("agent-producer"));
    }

    #[test]
    fn a_broken_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit(), Exit::Ok);
        assert_eq!(Failure::from(io::Error::other("x")).exit(), Exit::Failed);
    }
}
