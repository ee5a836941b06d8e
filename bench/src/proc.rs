//! Reads CPU time and memory from `/proc`.
//!
//! A process' CPU time is the sum of its threads' `schedstat` (nanoseconds). Threads that ended meanwhile
//! take theirs with them; `/proc/PID/stat` keeps it, in 10 ms ticks: the larger of the two is taken.
//! Kernel threads (write-back) are told apart from foreign processes: they work for whoever is measured, on
//! both sides, and are counted for neither.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

/// `USER_HZ`, fixed at 100 in the kernel's interface on every architecture we run on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time of one process up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProcessCpu {
    threads: Duration,
    whole: Duration,
    children: Duration,
}

impl ProcessCpu {
    /// Reads the process of this id, or the calling one with `None`.
    pub(crate) fn read(pid: Option<u32>) -> Result<Self> {
        let folder = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let mut threads = Duration::ZERO;
        for task in fs::read_dir(format!("{folder}/task")).with_context(|| format!("{folder} is gone"))? {
            // A thread may end between the listing and the read; `whole` still has its time.
            if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
                threads += Duration::from_nanos(schedstat(&text).unwrap_or(0));
            }
        }
        let stat = fs::read_to_string(format!("{folder}/stat"))?;
        let fields = stat_fields(&stat);
        let whole = TICK * fields.as_ref().map_or(0, |fields| fields.ticks);
        let children = TICK * fields.map_or(0, |fields| fields.children);
        Ok(Self { threads, whole, children })
    }

    /// CPU time used since an earlier reading of the same process, by it and by children that have ended meanwhile.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let threads = self.threads.saturating_sub(earlier.threads);
        // Two ticks of slack: `whole` is rounded down at both ends.
        let whole = self.whole.saturating_sub(earlier.whole).saturating_sub(TICK * 2);
        threads.max(whole) + self.children.saturating_sub(earlier.children)
    }
}

/// CPU time of the machine up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineCpu {
    idle: Duration,
    steal: Duration,
    kernel_threads: Duration,
    cores: u32,
}

/// CPU time of the machine between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineUse {
    /// Time in which some process or kernel thread ran.
    pub(crate) busy: Duration,
    /// Part of it that kernel threads took (write-back, softirq threads).
    pub(crate) kernel_threads: Duration,
    /// Time the hypervisor gave to others.
    pub(crate) steal: Duration,
}

impl MachineCpu {
    /// Reads the machine's counters; takes some milliseconds with many processes.
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let (idle, steal, cores) = machine_line(&text).context("/proc/stat has no cpu line")?;
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let numeric = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
            if !numeric {
                continue;
            }
            if let Ok(stat) = fs::read_to_string(entry.path().join("stat"))
                && let Some(fields) = stat_fields(&stat)
                && fields.parent == KTHREADD
            {
                ticks += fields.ticks;
            }
        }
        Ok(Self { idle: TICK * idle, steal: TICK * steal, kernel_threads: TICK * ticks, cores })
    }

    /// Use since an earlier reading, `elapsed` apart.
    pub(crate) fn since(self, earlier: Self, elapsed: Duration) -> MachineUse {
        let steal = self.steal.saturating_sub(earlier.steal);
        let idle = self.idle.saturating_sub(earlier.idle);
        MachineUse {
            busy: (elapsed * self.cores).saturating_sub(idle).saturating_sub(steal),
            kernel_threads: self.kernel_threads.saturating_sub(earlier.kernel_threads),
            steal,
        }
    }
}

/// Parent of every kernel thread.
const KTHREADD: u32 = 2;

struct StatFields {
    parent: u32,
    ticks: u32,
    children: u32,
}

/// Parent and user + system ticks, own and of children that were waited for, out of `/proc/PID/stat`. The name in parentheses may hold anything, so the
/// fields are counted from the last parenthesis.
fn stat_fields(text: &str) -> Option<StatFields> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let user: u32 = fields.get(11)?.parse().ok()?;
    let system: u32 = fields.get(12)?.parse().ok()?;
    let child_user: u32 = fields.get(13)?.parse().ok()?;
    let child_system: u32 = fields.get(14)?.parse().ok()?;
    Some(StatFields { parent: fields.get(1)?.parse().ok()?, ticks: user + system, children: child_user + child_system })
}

/// Nanoseconds on a CPU out of `/proc/PID/task/TID/schedstat`.
fn schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Idle (with I/O wait) and stolen ticks of all cores, and the number of cores, out of `/proc/stat`.
fn machine_line(text: &str) -> Option<(u32, u32, u32)> {
    let total = text.lines().find(|line| line.starts_with("cpu "))?;
    let fields: Vec<u32> = total.split_ascii_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    Some((fields.get(3)? + fields.get(4)?, fields.get(7).copied().unwrap_or(0), u32::try_from(cores).ok()?))
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    status_kib(&text, "VmRSS:").with_context(|| format!("process {pid} shows no VmRSS"))
}

fn status_kib(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
}

/// The limit on open files of this process and those it starts.
pub(crate) fn open_files_limit() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// Type of the file system that holds `path`, from the longest mount point above it.
pub(crate) fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mount_type(&mounts, &path)
}

fn mount_type(mounts: &str, path: &Path) -> Option<String> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(point, _)| path.starts_with(point))
        // A later mount on the same point hides the earlier one, and max_by_key keeps the last of equals.
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_past_a_name_with_spaces_and_parentheses() {
        let text = "42 (a b) c) S 7 42 42 0 -1 4194304 10 0 0 0 120 34 5 6 20 0 4 0 100 0 0";
        let fields = stat_fields(text).unwrap();
        assert_eq!((fields.parent, fields.ticks, fields.children), (7, 154, 11));
    }

    #[test]
    fn machine_line_adds_idle_and_io_wait() {
        let text = "cpu  36171 0 3695 90858 366 0 53 46 0 0\ncpu0 1 0 0 0\ncpu1 1 0 0 0\nintr 5\n";
        assert_eq!(machine_line(text), Some((91_224, 46, 2)));
    }

    #[test]
    fn schedstat_takes_the_first_number() {
        assert_eq!(schedstat("96083 2026089 2\n"), Some(96_083));
        assert_eq!(schedstat(""), None);
    }

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(mount_type(mounts, Path::new("/tmp/x")).as_deref(), Some("tmpfs"));
        assert_eq!(mount_type(mounts, Path::new("/tmpfile")).as_deref(), Some("ext4"));
    }

    #[test]
    fn own_cpu_time_rises_with_work() {
        let before = ProcessCpu::read(None).unwrap();
        let mut sum = 0u64;
        for number in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        let used = ProcessCpu::read(None).unwrap().since(before);
        assert!(used > Duration::from_millis(1), "{used:?} after {sum}");
    }
}
