//! What the shell learns: exit codes, few and stable, so that scripts can decide by them.

use std::fmt::Write as _;

use acb_types::ErrorKind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done. Also when a command that runs until it is stopped was stopped, or its reader went away.
    Ok = 0,
    /// Failed in a way that has no number of its own.
    Failed = 1,
    /// Asked for something that can never be.
    Usage = 2,
    /// It is not there.
    NotFound = 3,
    /// Nobody knows the caller, or the caller may not.
    Denied = 4,
    /// It is there already, or not in the state that was expected.
    Conflict = 5,
    /// The bus is not there, nobody answers, or time ran out.
    Unavailable = 6,
    /// A limit, a quota or a disk is full.
    Limit = 7,
    /// This server does not do it.
    Unsupported = 8,
    /// Stored or sent data is damaged.
    Damaged = 9,
    /// Ctrl-C before the command was done.
    Interrupted = 130,
}

impl Exit {
    /// All codes, in order.
    pub(crate) const ALL: [Self; 11] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Denied,
        Self::Conflict,
        Self::Unavailable,
        Self::Limit,
        Self::Unsupported,
        Self::Damaged,
        Self::Interrupted,
    ];

    /// The code of an error, by its kind alone.
    pub(crate) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => Self::Conflict,
            ErrorKind::InvalidArgument => Self::Usage,
            ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::ResourceExhausted => Self::Limit,
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Self::Unavailable,
            ErrorKind::DataLoss => Self::Damaged,
            ErrorKind::Unsupported => Self::Unsupported,
            // Cancelled, internal, and kinds that a later version adds.
            _ => Self::Failed,
        }
    }

    /// The number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// What it means, for people.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done; also when `subscribe` or `reply` was stopped by Ctrl-C or its reader went away",
            Self::Failed => "failed, in a way that has no number of its own",
            Self::Usage => "the command or a value in it can never be right; mend it",
            Self::NotFound => "it is not there",
            Self::Denied => "not logged in, or not allowed",
            Self::Conflict => "it is there already, or not in the state that was expected",
            Self::Unavailable => "the bus is not there, nobody answers, or time ran out",
            Self::Limit => "a limit, a quota or a disk is full",
            Self::Unsupported => "this server does not do that",
            Self::Damaged => "stored or sent data is damaged",
            Self::Interrupted => "stopped by Ctrl-C before it was done",
        }
    }
}

/// What `acb help exit-codes` shows.
pub(crate) fn help() -> String {
    let mut out = String::from("Exit codes of acb:\n\n");
    for exit in Exit::ALL {
        let _ = writeln!(out, "  {:>3}  {}", exit.number(), exit.meaning());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_a_code_that_is_not_success() {
        for kind in ErrorKind::ALL {
            assert_ne!(Exit::of(kind), Exit::Ok, "{kind}");
        }
        assert_eq!(Exit::of(ErrorKind::NotFound).number(), 3);
        assert_eq!(Exit::of(ErrorKind::PermissionDenied).number(), 4);
        assert_eq!(Exit::of(ErrorKind::AlreadyExists).number(), 5);
        assert_eq!(Exit::of(ErrorKind::DeadlineExceeded).number(), 6);
        assert_eq!(Exit::of(ErrorKind::ResourceExhausted).number(), 7);
    }

    #[test]
    fn the_guide_shows_the_same_table() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/cli.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.number(), exit.meaning());
            assert!(guide.contains(&row), "docs/guide/cli.md lacks: {row}");
        }
    }
}
