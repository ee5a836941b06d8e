//! Disks that give out: a small file system that is filled or taken away, and where mounting is not allowed, or a mount
//! cannot be changed under open files, system calls that fail as if it were.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

/// What is written at a time while a disk is filled.
const FILL_BYTES: usize = 64 * 1024;

/// A file system in memory, of a size of its own.
#[derive(Debug)]
pub struct SmallDisk {
    root: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one.
    ///
    /// # Errors
    /// When this process may not.
    pub fn mount(bytes: u64) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("acb-small-disk-").tempdir()?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "acb-test", text(root.path())?])?;
        Ok(Self { root })
    }

    /// Where the data folder lies.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.root.path().join("ballast")
    }

    /// Takes so many bytes away from everybody else, or all that there are.
    ///
    /// # Errors
    /// What is not a full disk.
    pub fn take(&self, bytes: Option<u64>) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(self.ballast())?;
        let most = bytes.unwrap_or(u64::MAX);
        let mut taken = 0;
        let mut piece = vec![b'x'; FILL_BYTES];
        while taken < most {
            match file.write(&piece) {
                Ok(n) if n > 0 => taken += n as u64,
                Ok(_) => bail!("the disk takes nothing"),
                Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                    if bytes.is_some() {
                        bail!("the disk is too small for this test");
                    }
                    // To the last byte.
                    if piece.len() == 1 {
                        return Ok(());
                    }
                    piece.truncate((piece.len() / 16).max(1));
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Gives back what was taken.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn give_back(&self) -> Result<()> {
        fs::remove_file(self.ballast()).context("the ballast")
    }

    /// Takes all writing away, or allows it again. Not while a file is open for writing.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remount(&self, how: &str) -> Result<()> {
        run("mount", &["-o", &format!("remount,{how}"), text(self.root.path())?])
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(path) = text(self.root.path())
            && let Err(error) = run("umount", &["-l", path])
        {
            eprintln!("{error:#}");
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Calls that change files, made to fail in a running process by `strace`.
#[derive(Debug)]
pub struct Failing(Child);

impl Failing {
    /// From now on all of them fail with an error such as `EROFS`.
    ///
    /// # Errors
    /// When there is no `strace`, or it may not.
    pub async fn with(pid: u32, error: &str) -> Result<Self> {
        let calls = "pwrite64,pwritev,fallocate,ftruncate,mkdir,rename,unlink";
        let inject = format!("inject={calls}:error={error}");
        let mut child = tokio::process::Command::new("strace")
            .args(["-f", "-p", &pid.to_string(), "-o", "/dev/null"])
            .args(["-e", &format!("trace={calls}"), "-e", &inject])
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("strace: `scripts/setup-dev.sh test` installs it")?;
        let mut lines = BufReader::new(child.stderr.take().context("no output")?).lines();
        match lines.next_line().await? {
            // It holds all threads when it says so. Whoever reads no more must not block it.
            Some(line) if line.contains("attached") => {
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok(Self(child))
            }
            other => bail!("strace cannot attach: {}", other.unwrap_or_default()),
        }
    }

    /// Lets them succeed again.
    ///
    /// # Errors
    /// When the tracer does not let go.
    pub async fn heal(mut self) -> Result<()> {
        let pid = self.0.id().context("strace has ended")?;
        run("kill", &["-INT", &pid.to_string()])?;
        self.0.wait().await?;
        Ok(())
    }
}
