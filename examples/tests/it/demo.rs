//! The demo on a small folder: the same program, processes and kills as `make demo`.

use std::{fmt::Write as _, fs, path::Path, process::Stdio, time::Duration};

use acb_testkit::wait::within;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// Files of the folder. Enough that both kills fall into the middle.
const FILES: usize = 60;
/// Files in a second: the work goes on for some two seconds.
const RATE: usize = 30;
/// Megabytes of the archive: enough that the second kill falls into the middle of its upload.
const STREAM_MB: usize = 64;
/// What a client sends again after a broken connection, at most: its window of 16 MiB, as the demo rounds it.
const WINDOW_BYTES: f64 = 16.8e6;
/// The whole may take so long, on a busy machine: it takes ten seconds.
const DEMO_WITHIN: Duration = Duration::from_secs(100);

/// The demo, running on a folder of its own.
struct Demo {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    told: String,
    folder: TempDir,
    /// Where it keeps what it needs.
    temporary: TempDir,
}

impl Demo {
    fn start() -> Self {
        let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for number in 0..FILES {
            fs::write(folder.path().join(name(number)), format!("// {number}\nfn main() {{}}\n")).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_acb-demo"))
            .arg(folder.path())
            .args(["--rate", &RATE.to_string(), "--within", "60", "--stream-mb", &STREAM_MB.to_string()])
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, told: String::new(), folder, temporary }
    }

    /// Reads until a line holds this, or to the end.
    async fn read_to(&mut self, text: Option<&str>) {
        let read = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let _ = writeln!(self.told, "{line}");
                if text.is_some_and(|text| line.contains(text)) {
                    return true;
                }
            }
            false
        };
        let met = within("the demo", DEMO_WITHIN, read).await.unwrap();
        assert_eq!(met, text.is_some(), "{}", self.told);
    }

    /// Reads what is left, and gives the exit code.
    async fn end(&mut self) -> Option<i32> {
        self.read_to(None).await;
        within("the demo's end", DEMO_WITHIN, self.child.wait()).await.unwrap().unwrap().code()
    }

    /// What is at the end of the row of the summary that starts so.
    fn row(&self, what: &str) -> &str {
        let row = self.told.lines().map(str::trim).find(|line| line.starts_with(what));
        row.and_then(|row| row.split_whitespace().last()).unwrap_or_else(|| panic!("no {what} in {}", self.told))
    }
}

fn name(number: usize) -> String {
    format!("{number:02}.rs")
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test]
async fn the_team_finds_the_same_as_one_process_over_the_death_of_a_worker_and_of_the_server() {
    let mut demo = Demo::start();
    let code = demo.end().await;
    let told = &demo.told;
    assert_eq!(code, Some(0), "{told}");
    let all = FILES + 1;
    assert!(told.contains(&format!("equals the local survey, file by file: {all} files.")), "{told}");
    assert_eq!(demo.row("different from the local survey"), "0");
    assert_eq!(demo.row("files "), all.to_string());
    // The story was told as it is meant to be: a poison file, a worker's death, the server's.
    assert!(told.contains("sees a dead letter: extra/cut-in-half.txt"), "{told}");
    assert!(told.contains("attempts_exhausted after 5 attempts"), "{told}");
    assert_eq!(demo.row("given up, in the dead letters"), "1");
    assert!(told.contains("killed with SIGKILL, with "), "{told}");
    let held: usize = demo.row("held by a worker when it died").parse().unwrap();
    assert!(held > 0, "the worker that died held nothing: {told}");
    // Members in both languages answered, and the planner is one in Python.
    assert!(told.contains("planner started (Python, pid "), "{told}");
    for worker in ["worker-1 (Rust, ", "worker-2 (Python, ", "worker-3 (Rust, ", "worker-4 (Python, "] {
        assert!(told.contains(worker), "no {worker} in {told}");
    }
    assert!(["answered by worker-2", "answered by worker-4"].iter().any(|row| told.contains(row)), "{told}");
    let killed = told.lines().find(|line| line.contains("server") && line.contains("killed with SIGKILL after"));
    assert!(killed.is_some_and(|line| line.contains("signal: 9")), "{told}");
    assert!(told.contains("planner   lost the bus") && told.contains("planner   is back on the bus"), "{told}");
    assert!(is_empty(demo.temporary.path()), "it left something behind");
}

#[tokio::test]
async fn findings_are_shared_revision_by_revision_and_a_large_context_survives_the_server() {
    let mut demo = Demo::start();
    let code = demo.end().await;
    let told = &demo.told;
    assert_eq!(code, Some(0), "{told}");
    // What was shared: each revision in its order, by workers and in the end by the reader, and then all files.
    let revisions: Vec<&str> = told.lines().filter_map(|line| line.split("survey/findings is now ").nth(1)).collect();
    let numbers: Vec<usize> =
        revisions.iter().map(|line| line.split([',', '.']).nth(2).unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "{told}");
    assert!(revisions.iter().any(|line| line.contains("by worker-")), "{told}");
    assert_eq!(demo.row("in the shared context, merged by compare-and-set"), FILES.to_string());
    // The doors that stay shut.
    for refused in [
        "the reader's private notes to the watcher (context_not_found)",
        "a second change of one and the same revision (revision_conflict)",
    ] {
        assert!(told.contains(&format!("refused, as it must be: {refused}")), "{told}");
    }
    assert!(
        told.contains(&format!("asked the planner for the result, and has the answer: {} files", FILES + 1)),
        "{told}"
    );
    // The stream: killed with a part of it on disk, and what came was what went.
    let killed = told.lines().find(|line| line.contains("killed with SIGKILL with "));
    assert!(killed.is_some_and(|line| line.contains(" on its disk (pid ") && line.contains("signal: 9")), "{told}");
    assert!(told.contains("uploaded it as survey/archive in "), "{told}");
    assert_eq!(demo.row("times the server was killed"), "2");
    let again = told.lines().find(|line| line.contains("sent again because of the kill: "));
    let again: Vec<&str> = again.unwrap_or_else(|| panic!("{told}")).rsplit(": ").next().unwrap().split(' ').collect();
    let unit = match again[1] {
        "B" => 1.0,
        "kB" => 1e3,
        _ => 1e6,
    };
    let again = again[0].parse::<f64>().unwrap() * unit;
    assert!(again <= WINDOW_BYTES, "{again} bytes were sent again, more than a window: {told}");
    assert!(told.contains("The archive that was downloaded equals its source, SHA-256 "), "{told}");
}

#[tokio::test]
async fn a_finding_that_is_not_so_ends_it_with_1_and_the_difference() {
    let mut demo = Demo::start();
    // Half of the files are answered for by now, and the first was the first. The local survey comes last.
    demo.read_to(Some("killed with SIGKILL after")).await;
    fs::write(demo.folder.path().join(name(0)), "one\ntwo\nthree lines\n").unwrap();
    let code = demo.end().await;
    let told = &demo.told;
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(demo.row("different from the local survey"), "1");
    let shown = told.split("differs from the local survey in 1 files:").nth(1).unwrap_or_else(|| panic!("{told}"));
    let lines: Vec<&str> = shown.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[0], name(0));
    assert!(lines[1].starts_with("team:  Rust, 2 lines, longest 12, "), "{shown}");
    assert!(lines[2].starts_with("local: Rust, 3 lines, longest 11, "), "{shown}");
    // What went wrong can be looked into.
    let kept = lines.iter().find_map(|line| line.strip_prefix("Logs and data are kept in "));
    let kept = kept.unwrap_or_else(|| panic!("{shown}"));
    assert!(Path::new(kept).join("server.log").is_file(), "{kept}");
}
