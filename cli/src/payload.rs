//! Where a payload comes from: the command line, a file, or standard input.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    path::{Path, PathBuf},
};

use acb_types::limits::PAYLOAD_BYTES_MAX;
use bytes::Bytes;
use clap::Args;

use crate::failure::{Failure, Result};

/// A payload: given as an argument, or with `--file`, or on standard input.
#[derive(Args, Debug, Default)]
pub(crate) struct PayloadArgs {
    /// The payload; `-` reads standard input, and so does leaving it out in a pipe.
    #[arg(value_name = "PAYLOAD")]
    payload: Option<String>,

    /// Reads the payload from a file.
    #[arg(long, short, value_name = "PATH", conflicts_with = "payload")]
    file: Option<PathBuf>,
}

impl PayloadArgs {
    /// The payload.
    pub(crate) fn read(&self) -> Result<Bytes> {
        match (&self.payload, &self.file) {
            (_, Some(path)) => file(path),
            (Some(text), None) if text != "-" => Ok(Bytes::copy_from_slice(text.as_bytes())),
            (None, None) if io::stdin().is_terminal() => {
                Err(Failure::usage("there is no payload: give it as an argument, with --file, or through a pipe"))
            }
            _ => whole(io::stdin().lock(), "standard input"),
        }
    }
}

/// A file's content, whole.
fn file(path: &Path) -> Result<Bytes> {
    let open = File::open(path).map_err(|error| Failure::file(path, &error))?;
    whole(open, &path.display().to_string())
}

/// A file's content, whole; `-` is standard input.
pub(crate) fn file_or_input(path: &Path) -> Result<Bytes> {
    if path == Path::new("-") { whole(io::stdin().lock(), "standard input") } else { file(path) }
}

/// Reads all there is; more than a message takes is refused before it is sent.
fn whole(from: impl Read, name: &str) -> Result<Bytes> {
    let mut content = Vec::new();
    let limit = PAYLOAD_BYTES_MAX as u64;
    from.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(|error| Failure::own(crate::exit::Exit::Failed, format!("{name}: {error}"), ""))?;
    if content.len() > PAYLOAD_BYTES_MAX {
        let sentence = format!("{name} holds more than the {limit} bytes that a message takes");
        return Err(Failure::own(
            crate::exit::Exit::Usage,
            sentence,
            "send it in parts, or send where it can be found",
        ));
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(payload: Option<&str>, file: Option<&Path>) -> PayloadArgs {
        PayloadArgs { payload: payload.map(Into::into), file: file.map(Into::into) }
    }

    #[test]
    fn an_argument_is_the_payload() {
        assert_eq!(args(Some("hello"), None).read().unwrap(), "hello");
        assert_eq!(args(Some(""), None).read().unwrap(), "");
    }

    #[test]
    fn a_file_is_read_whole_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, vec![b'x'; PAYLOAD_BYTES_MAX]).unwrap();
        assert_eq!(args(None, Some(&path)).read().unwrap().len(), PAYLOAD_BYTES_MAX);
        std::fs::write(&path, vec![b'x'; PAYLOAD_BYTES_MAX + 1]).unwrap();
        let refused = args(None, Some(&path)).read().unwrap_err();
        assert!(refused.to_string().contains("1048576"), "{refused}");
        assert_eq!(refused.exit(), crate::exit::Exit::Usage);
    }

    #[test]
    fn an_absent_file_is_named() {
        let refused = args(None, Some(Path::new("/absent/file"))).read().unwrap_err();
        assert!(refused.to_string().starts_with("/absent/file: "), "{refused}");
        assert_eq!(refused.exit(), crate::exit::Exit::NotFound);
    }
}
