//! Members of the team as processes: how they are started, what they tell, and that they end.
//!
//! A member is this same program with a role, or one in Python. It tells its story as one JSON object a line on standard output. A word to it
//! comes on its standard input, and it ends by itself when that closes: so it ends even when the one who started it was
//! killed.

use std::{
    fs::File,
    io::BufRead as _,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
};

/// Events that may wait to be read; a member that tells more waits.
const EVENTS_MAX: usize = 1024;
/// Words that may wait for a member.
const WORDS_MAX: usize = 4;
/// The word on which a worker stops in the middle of its work.
const FREEZE: &str = "freeze";

/// Whether this process was told to stop in the middle of its work.
static FROZEN: AtomicBool = AtomicBool::new(false);

/// What a member tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(crate) enum Event {
    /// A line of the story.
    Say {
        /// The line.
        text: String,
    },
    /// It is on the bus and listens.
    Ready,
    /// Its connection is lost; it tries to get another.
    Lost,
    /// It has a connection again.
    Back,
    /// The planner has an answer for a file that it had none for.
    Answered {
        /// The file.
        file: String,
        /// Who answered.
        by: String,
    },
    /// It will die now, with these in its hands.
    Holding {
        /// Names of the files.
        files: Vec<String>,
    },
    /// It merged findings into what the team shares.
    Merged {
        /// How often somebody was faster, so that it was done again.
        races: u64,
    },
    /// The planner's table is written.
    Finished {
        /// Answers that came a second time, and were recognised.
        repeats: u64,
    },
    /// Its process ended.
    Ended {
        /// Whether it ended well.
        ok: bool,
        /// How, in words.
        how: String,
    },
}

/// Tells an event to whoever started this process. Nobody to hear it is no reason to fail: then standard input is closed
/// too, and the process ends.
pub(crate) fn tell(event: &Event) {
    use std::io::Write as _;
    if let Ok(line) = serde_json::to_string(event) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Tells a line of the story.
pub(crate) fn say(text: impl Into<String>) {
    tell(&Event::Say { text: text.into() });
}

/// Listens to the one who started this process, and ends it when that one is gone.
pub(crate) fn listen_to_parent() {
    std::thread::spawn(|| {
        for word in std::io::stdin().lock().lines() {
            if word.is_ok_and(|word| word == FREEZE) {
                FROZEN.store(true, Ordering::Relaxed);
            }
        }
        exit_now();
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "nobody is left to tell anything to, and whatever is in hand may come again"
)]
fn exit_now() -> ! {
    std::process::exit(3)
}

/// Whether this process is to stop in the middle of its work.
pub(crate) fn is_frozen() -> bool {
    FROZEN.load(Ordering::Relaxed)
}

/// Who told an event.
pub(crate) type Told = (String, Event);

/// The members, and what they tell.
pub(crate) struct Team<'a> {
    log: &'a Path,
    members: Vec<(String, mpsc::Sender<&'static str>)>,
    told: mpsc::Sender<Told>,
    tasks: JoinSet<()>,
}

impl<'a> Team<'a> {
    /// A team without members. What they print to standard error goes to `log`.
    pub(crate) fn new(log: &'a Path) -> (Self, mpsc::Receiver<Told>) {
        let (told, events) = mpsc::channel(EVENTS_MAX);
        (Self { log, members: Vec::new(), told, tasks: JoinSet::new() }, events)
    }

    /// Starts a member. Its key goes through the environment, where other users of the machine do not see it.
    pub(crate) fn start(&mut self, name: &str, key: &str, program: &Path, arguments: &[String]) -> Result<u32> {
        let log = File::options().create(true).append(true).open(self.log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .env("ACB_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().context("the process ended at once")?;
        let (words, heard) = mpsc::channel(WORDS_MAX);
        self.members.push((name.to_owned(), words));
        self.tasks.spawn(follow(name.to_owned(), child_output(&mut child)?, child, heard, self.told.clone()));
        Ok(pid)
    }

    /// Members that run, as far as anybody told.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Tells a member to stop in the middle of its work.
    pub(crate) fn freeze(&mut self, name: &str) {
        for (_, words) in self.members.iter().filter(|(member, _)| member == name) {
            // A member that does not listen any more has ended, and that will be told.
            let _ = words.try_send(FREEZE);
        }
    }

    /// Kills a member with SIGKILL, at once.
    pub(crate) fn kill(&mut self, name: &str) {
        self.members.retain(|(member, _)| member != name);
    }

    /// Ends all members that still run; `Ended` is told of each.
    pub(crate) fn end(&mut self) {
        self.members.clear();
    }
}

fn child_output(child: &mut Child) -> Result<tokio::io::Lines<BufReader<tokio::process::ChildStdout>>> {
    Ok(BufReader::new(child.stdout.take().context("standard output is piped")?).lines())
}

async fn follow(
    name: String,
    mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    mut child: Child,
    mut words: mpsc::Receiver<&'static str>,
    told: mpsc::Sender<Told>,
) {
    let mut input = child.stdin.take();
    loop {
        // Both arms are cancel-safe: a line half read stays in the reader.
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { break };
                let event = serde_json::from_str(&line).unwrap_or(Event::Say { text: line });
                if told.send((name.clone(), event)).await.is_err() {
                    break;
                }
            }
            word = words.recv() => if let (Some(word), Some(input)) = (word, &mut input) {
                let _ = input.write_all(format!("{word}\n").as_bytes()).await;
            } else {
                let _ = child.start_kill();
                break;
            }
        }
    }
    let (ok, how) = match child.wait().await {
        Ok(status) => (status.success(), in_words(status)),
        Err(error) => (false, error.to_string()),
    };
    let _ = told.send((name, Event::Ended { ok, how })).await;
}

fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_their_line() {
        let event = Event::Answered { file: "a/b.rs".into(), by: "worker-1".into() };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(line, r#"{"event":"answered","file":"a/b.rs","by":"worker-1"}"#);
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    async fn ended(events: &mut mpsc::Receiver<Told>) -> Event {
        let deadline = std::time::Duration::from_secs(20);
        loop {
            let told = tokio::time::timeout(deadline, events.recv()).await.unwrap();
            if let (_, event @ Event::Ended { .. }) = told.unwrap() {
                return event;
            }
        }
    }

    #[tokio::test]
    async fn what_a_member_prints_becomes_events_and_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (mut team, mut events) = Team::new(&log);
        let script = r#"echo '{"event":"ready"}'; echo plain; echo "$ACB_KEY" >&2; exit 9"#;
        team.start("one", "hush", Path::new("/bin/sh"), &["-c".into(), script.into()]).unwrap();
        assert_eq!(events.recv().await, Some(("one".into(), Event::Ready)));
        assert_eq!(events.recv().await, Some(("one".into(), Event::Say { text: "plain".into() })));
        assert_eq!(ended(&mut events).await, Event::Ended { ok: false, how: "exit code 9".into() });
        assert_eq!(std::fs::read_to_string(log).unwrap(), "hush\n");
    }

    #[tokio::test]
    async fn members_are_ended_with_the_team() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (mut team, mut events) = Team::new(&log);
        team.start("sleeper", "", Path::new("/bin/sh"), &["-c".into(), "exec sleep 600".into()]).unwrap();
        team.end();
        assert_eq!(ended(&mut events).await, Event::Ended { ok: false, how: "signal 9".into() });
    }
}
