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
/// The whole may take so long, on a busy machine: it takes four seconds.
const DEMO_WITHIN: Duration = Duration::from_secs(75);

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
            .args(["--rate", &RATE.to_string(), "--within", "60"])
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

    /// The number in the row of the summary that starts so.
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
    let killed = told.lines().find(|line| line.contains("server") && line.contains("killed with SIGKILL after"));
    assert!(killed.is_some_and(|line| line.contains("signal: 9")), "{told}");
    assert!(told.contains("planner   lost the bus") && told.contains("planner   is back on the bus"), "{told}");
    assert!(is_empty(demo.temporary.path()), "it left something behind");
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
    let kept = lines[3].strip_prefix("Logs and data are kept in ").unwrap_or_else(|| panic!("{shown}"));
    assert!(Path::new(kept).join("server.log").is_file(), "{kept}");
}
