//! A program in another language that speaks JSON lines: one command a line in, one answer a line out, in any order.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    sync::oneshot,
};

use crate::raw::Failure;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// How a program is started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// What runs it.
    pub(super) command: PathBuf,
    /// Its arguments.
    pub(super) arguments: Vec<String>,
    /// How people get what is missing.
    pub(super) made_by: &'static str,
}

/// A running program. Ended with the last of its agents.
pub(super) struct Process {
    input: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
    _child: Child,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("waiting", &self.waiting.lock().len()).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts the program.
    pub(super) fn start(program: &Program) -> Result<Self, Failure> {
        let wrong = |e: std::io::Error| {
            let text = format!("{}: {e}; made by: {}", program.command.display(), program.made_by);
            Failure::own("internal", text)
        };
        let mut child = Command::new(&program.command)
            .args(&program.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(wrong)?;
        let none = || Failure::own("internal", "the program has no pipes");
        let (input, output) = (child.stdin.take().ok_or_else(none)?, child.stdout.take().ok_or_else(none)?);
        let waiting = Waiting::default();
        tokio::spawn(read(BufReader::new(output), Arc::clone(&waiting)));
        Ok(Self { input: tokio::sync::Mutex::new(input), waiting, next: AtomicU64::new(1), _child: child })
    }

    /// Gives a command and waits for its answer.
    pub(super) async fn call(&self, agent: u64, verb: &str, args: Value) -> Result<Value, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(id, answer);
        let mut line = json!({ "id": id, "agent": agent, "verb": verb, "args": args }).to_string();
        line.push('\n');
        let gone = || Failure::own("internal", "the client's program is gone");
        self.input.lock().await.write_all(line.as_bytes()).await.map_err(|_| gone())?;
        let answer = answered.await.map_err(|_| gone())?;
        match answer.get("error") {
            None => Ok(answer.get("result").cloned().unwrap_or_default()),
            Some(error) => {
                let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
                let mut failure = Failure::own(&text("code"), text("message"));
                failure.retryable = error["retryable"].as_bool().unwrap_or_default();
                Err(failure)
            }
        }
    }
}

async fn read(mut output: BufReader<tokio::process::ChildStdout>, waiting: Waiting) {
    let mut line = String::new();
    while let Ok(count) = output.read_line(&mut line).await
        && count > 0
    {
        if let Ok(answer) = serde_json::from_str::<Value>(&line)
            && let Some(waiter) = answer["id"].as_u64().and_then(|id| waiting.lock().remove(&id))
        {
            // Whoever waited may have gone.
            let _ = waiter.send(answer);
        }
        line.clear();
    }
    // Nobody is answered any more.
    waiting.lock().clear();
}
