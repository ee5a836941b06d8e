//! The readme and the guides are true: what they tell the reader to type is typed here, and what they say is printed is
//! looked for. Their Rust is a part of a sample that other tests run, word for word.
//!
//! A guide's `sh` blocks run in one shell, one after the other, in an empty folder, with a server of their own. A `text`
//! block after one is what the reader sees: each of its lines has to come, in what the block or a program in the
//! background prints, and `…` stands for anything. A comment `<!-- not run: why -->` before a block leaves it out.

use std::{fmt::Write as _, path::Path, process::Stdio, time::Duration};

use acb_testkit::{server::free_port, wait::within};
use tokio::process::Command;

/// All of a guide may take so long, on a busy machine.
const GUIDE_WITHIN: Duration = Duration::from_mins(2);
/// Shell functions that the guides' commands run among: waiting for what goes on in the background.
const PRELUDE: &str = include_str!("guides.sh");

#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    text: String,
    /// Why it is not run.
    left_out: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut left_out) = (false, None);
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            open = !open;
            if open {
                let language = language.split(',').next().unwrap_or_default().to_owned();
                blocks.push(Block { language, text: String::new(), left_out: left_out.take() });
            }
        } else if open {
            let block = blocks.last_mut().unwrap();
            block.text.push_str(line);
            block.text.push('\n');
        } else if let Some(comment) = line.strip_prefix("<!-- not run: ") {
            left_out = Some(comment.trim_end_matches(" -->").to_owned());
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// One script of all blocks. What is left in the background is waited for until it listens.
fn script(blocks: &[Block]) -> String {
    let mut script = PRELUDE.to_owned();
    for (n, block) in blocks.iter().enumerate() {
        if block.left_out.is_some() {
            continue;
        }
        match block.language.as_str() {
            "sh" => {
                writeln!(script, "block {n}").unwrap();
                for line in block.text.lines() {
                    let command = line.split(" #").next().unwrap_or_default().trim_end();
                    match command.strip_suffix('&') {
                        Some(command) => writeln!(script, "background {}", quoted(command.trim_end())).unwrap(),
                        None => writeln!(script, "{line}").unwrap(),
                    }
                }
            }
            "text" => {
                for line in block.text.lines().filter(|l| !l.trim().is_empty()) {
                    writeln!(script, "expect {}", quoted(line.trim())).unwrap();
                }
            }
            _ => {}
        }
    }
    script.push_str("finish\n");
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

async fn follow(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join(page)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_request-reply")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let (port, admin) = (free_port().unwrap(), free_port().unwrap());
    let mut shell = Command::new("bash");
    shell
        .args(["-euo", "pipefail", "-c", &script(&blocks(&text))])
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("HOME", folder.path())
        .env("ACB_URL", format!("acb://127.0.0.1:{port}"))
        .env("ACB_SERVER_LISTEN", format!("127.0.0.1:{port}"))
        .env("ACB_SERVER_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = within(page, GUIDE_WITHIN, shell.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{page} does not do what it says:\n{out}\n{err}");
    assert!(out.contains("guide followed"), "{page} was not followed to its end:\n{out}\n{err}");
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    follow("README.md").await;
}

#[tokio::test]
async fn the_quickstart_does_what_it_says() {
    follow("docs/guide/quickstart.md").await;
}

#[tokio::test]
async fn the_guide_to_messages_does_what_it_says() {
    follow("docs/guide/messaging.md").await;
}

#[tokio::test]
async fn the_guide_to_credentials_does_what_it_says() {
    follow("docs/guide/authentication.md").await;
}

/// A line without what formatting may change.
fn bare(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect()
}

#[test]
fn the_guides_rust_is_that_of_samples_that_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut samples = Vec::new();
    // Samples, and tests that a guide shows.
    for folder in ["src/bin", "../testing/tests/it"] {
        for sample in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = sample.unwrap().path();
            if path.is_file() {
                samples.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut seen = 0;
    for guide in std::fs::read_dir(root.join("../docs/guide")).unwrap() {
        let path = guide.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in blocks(&text).iter().filter(|b| b.language == "rust" && b.left_out.is_none()) {
            let wanted = bare(&block.text);
            let found = samples.iter().any(|s| bare(s).windows(wanted.len()).any(|w| w == wanted));
            assert!(found, "no sample has this Rust of {}:\n{}", path.display(), block.text);
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen} blocks: the guides lost their Rust");
}

#[test]
fn what_a_page_says_is_found_in_it() {
    let page = "a\n```sh\nls &   # b\n```\n\n```text\nx … 'y'\n```\n<!-- not run: no bus -->\n```sh\nrm\n```\n";
    let found = blocks(page);
    assert_eq!(found.len(), 3);
    assert_eq!(found[2].left_out.as_deref(), Some("no bus"));
    let script = script(&found);
    assert!(script.ends_with("block 0\nbackground 'ls'\nexpect 'x … '\\''y'\\'''\nfinish\n"), "{script}");
}
