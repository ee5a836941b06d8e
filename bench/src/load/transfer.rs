//! A file up, a content down, and the same file copied by `cp`: MB/s, where a MB is 1,000,000 bytes.
//!
//! Every side takes or checks the SHA-256 of the whole; what came down is checked once more, by `sha256sum`, outside of the
//! measured time.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Outcome, Plan,
    meter::{Latencies, Measured, Meter},
};

/// The file that goes up, and where what comes down goes.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The file that goes up.
    pub(crate) source: PathBuf,
    /// Its size.
    pub(crate) bytes: u64,
    /// Its SHA-256 in hex.
    pub(crate) sha256: String,
    /// Where it comes down to; not there yet.
    pub(crate) copy: PathBuf,
}

impl Files {
    /// Those of the plan.
    pub(crate) fn of(plan: &Plan) -> Result<Self> {
        let source = plan.source.clone().context("this case needs --source")?;
        let work = plan.work_dir.clone().context("this case needs --work-dir")?;
        let bytes = std::fs::metadata(&source)?.len();
        let sha256 = std::fs::read_to_string(source.with_extension("sha256"))?;
        Ok(Self { source, bytes, sha256, copy: work.join("copy") })
    }

    /// Refuses another digest than the source's.
    pub(crate) fn check(&self, sha256: &str) -> Result<()> {
        ensure!(sha256 == self.sha256, "the content's SHA-256 is {sha256}, the file's {}", self.sha256);
        Ok(())
    }

    /// Reads what came down and refuses it when it is not the source.
    pub(crate) async fn check_copy(&self) -> Result<()> {
        let copy = self.copy.clone();
        let sha256 = tokio::task::spawn_blocking(move || sha256sum(&copy)).await??;
        self.check(&sha256)
    }

    /// What a transfer of the whole file comes to.
    pub(crate) fn outcome(&self, plan: &Plan, measured: Measured) -> Outcome {
        let megabytes = self.bytes as f64 / 1e6;
        let down = matches!(plan.case.shape, crate::case::Shape::Download);
        Outcome {
            published: self.bytes,
            acked: self.bytes,
            delivered: if down { self.bytes } else { 0 },
            counted: (megabytes.round() as u64).max(1),
            value: Some(megabytes / measured.elapsed.as_secs_f64()),
            wakes: None,
            latencies: Latencies::new(),
            measured,
        }
    }
}

/// `cp` and then `sha256sum` of the copy; the digest must be the source's.
pub(crate) async fn files(plan: &Plan) -> Result<Outcome> {
    let files = Files::of(plan)?;
    let meter = Meter::start(plan.server_pid)?;
    let task = files.clone();
    let sha256 = tokio::task::spawn_blocking(move || {
        let copied = Command::new("cp").arg(&task.source).arg(&task.copy).status().context("cannot run cp")?;
        ensure!(copied.success(), "cp failed");
        sha256sum(&task.copy)
    })
    .await??;
    let measured = meter.stop()?;
    files.check(&sha256)?;
    Ok(files.outcome(plan, measured))
}

/// SHA-256 of a file in hex, by the program of that name.
pub(crate) fn sha256sum(path: &Path) -> Result<String> {
    let done = Command::new("sha256sum").arg(path).output().context("cannot run sha256sum")?;
    ensure!(done.status.success(), "sha256sum: {}", String::from_utf8_lossy(&done.stderr).trim());
    let printed = String::from_utf8(done.stdout)?;
    Ok(printed.split_ascii_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_the_file_and_another_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let digest = sha256sum(&path).unwrap();
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let files = Files { source: path.clone(), bytes: 3, sha256: digest.clone(), copy: path };
        assert!(files.check(&digest).is_ok());
        assert!(files.check(&hex(&[0xba; 32])).is_err());
        assert!(sha256sum(&folder.path().join("absent")).is_err());
    }
}
