//! The file that goes up and down: made once for a run, the same bytes each time, with its digest beside it.

use std::{
    fs,
    io::{BufWriter, IntoInnerError, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::load::transfer::sha256sum;

/// Bytes that nobody can compress, on the disk under test; removed with the run.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is; its digest is beside it, with `.sha256` at its end.
    pub(super) path: PathBuf,
}

impl Source {
    /// Writes `bytes` and takes their digest with `sha256sum`, which is nobody's code that is measured.
    pub(super) fn make(folder: &Path, bytes: u64) -> Result<Self> {
        let source = Self { path: folder.join(format!("source-{}", std::process::id())) };
        write(&source.path, bytes).with_context(|| format!("cannot write {}", source.path.display()))?;
        fs::write(source.digest_path(), sha256sum(&source.path)?)?;
        Ok(source)
    }

    fn digest_path(&self) -> PathBuf {
        self.path.with_extension("sha256")
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.digest_path());
    }
}

fn write(path: &Path, bytes: u64) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(path)?);
    let mut left = bytes;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while left > 0 {
        // xorshift64: no two chunks alike, so that no side gains by finding that it has one already.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        let take = left.min(8) as usize;
        file.write_all(word.get(..take).unwrap_or_default())?;
        left -= take as u64;
    }
    file.into_inner().map_err(IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_its_size_and_its_digest_and_goes_with_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::make(folder.path(), 3_000_003).unwrap();
        let bytes = fs::read(&source.path).unwrap();
        assert_eq!(bytes.len(), 3_000_003);
        assert_ne!(bytes[..8], bytes[8..16]);
        let digest = fs::read_to_string(source.digest_path()).unwrap();
        assert_eq!((digest.len(), digest.as_str()), (64, sha256sum(&source.path).unwrap().as_str()));
        drop(source);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
