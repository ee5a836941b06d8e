//! The machine and the versions that figures belong to.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{calm::Calm, proc::file_system};

/// Written beside the results as `machine.json` and printed above the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Model of the processor.
    pub(crate) processor: String,
    /// Cores that programs may use.
    pub(crate) cores: usize,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// File system of the stores.
    pub(crate) file_system: String,
    /// Congestion control of TCP: it moves both sides, on loopback too.
    pub(crate) congestion_control: String,
    /// When the run began, UTC.
    pub(crate) started: String,
    /// Commit that was measured, with a mark when the tree had changes.
    pub(crate) commit: String,
    /// Programs and client libraries: name, version.
    pub(crate) versions: Vec<(String, String)>,
    /// Seconds per run and pairs per row, as run.
    pub(crate) settings: String,
    /// How calm it was before each pair.
    #[serde(default)]
    pub(crate) calm: Vec<Calm>,
}

impl Machine {
    /// Reads the machine; `programs` are asked for their versions with `--version`.
    pub(crate) fn read(data_dir: &Path, programs: &[&Path], settings: String) -> Self {
        let mut versions: Vec<(String, String)> = programs
            .iter()
            .map(|program| {
                let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (name, output(Command::new(program).arg("--version")))
            })
            .collect();
        let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
        for name in ["async-nats", "redis", "tokio", "tonic"] {
            if let Some(version) = locked_version(&lock, name) {
                versions.push((format!("crate {name}"), version));
            }
        }
        versions.push(("rustc".into(), output(Command::new("rustc").arg("--version"))));
        let dirty = !output(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"])).is_empty();
        let commit = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]));
        Self {
            processor: processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_gib(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            kernel: file("/proc/sys/kernel/osrelease"),
            file_system: file_system(data_dir).unwrap_or_default(),
            congestion_control: file("/proc/sys/net/ipv4/tcp_congestion_control"),
            started: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: if dirty { format!("{commit} with changes") } else { commit },
            versions,
            settings,
            calm: Vec::new(),
        }
    }

    /// Processor and cores: what two figures must share to be compared.
    pub(crate) fn short(&self) -> String {
        format!("{}, {} cores", self.processor, self.cores)
    }

    /// Reads `machine.json`.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes `machine.json`.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// First line a command prints, or nothing.
fn output(command: &mut Command) -> String {
    let printed = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&printed).lines().next().unwrap_or_default().trim().to_owned()
}

fn processor(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}

fn memory_gib(meminfo: &str) -> f64 {
    let kib = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse::<f64>().ok());
    (kib.unwrap_or(0.0) / 1024.0 / 1024.0 * 10.0).round() / 10.0
}

/// Version of the newest entry of a package in a `Cargo.lock`.
fn locked_version(lock: &str, name: &str) -> Option<String> {
    let wanted = format!("name = \"{name}\"");
    let mut lines = lock.lines();
    let mut found = None;
    while let Some(line) = lines.next() {
        if line == wanted {
            found = lines.next()?.strip_prefix("version = \"")?.strip_suffix('"').map(str::to_owned);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_parsed() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), "Some CPU @ 2 GHz");
        assert!((memory_gib("MemTotal:       25165824 kB\n") - 24.0).abs() < 1e-9);
        let lock = "[[package]]\nname = \"redis\"\nversion = \"1.8.1\"\n\n[[package]]\nname = \"redis-x\"\nversion = \"2.0.0\"\n";
        assert_eq!(locked_version(lock, "redis").as_deref(), Some("1.8.1"));
        assert_eq!(locked_version(lock, "tokio"), None);
    }

    #[test]
    fn the_machine_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::read(folder.path(), &[], "3 s".into());
        let path = folder.path().join("machine.json");
        machine.save(&path).unwrap();
        assert_eq!(Machine::load(&path).unwrap().short(), machine.short());
        assert!(machine.cores > 0);
    }
}
