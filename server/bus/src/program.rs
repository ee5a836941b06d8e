//! The program around the server: what it is told, what it prints, how it ends.
//!
//! Standard output is for what people and scripts asked for (the first screen, settings, reports), standard error for the
//! log and for failures. Exit codes: 0 well, 1 a failure or a deadline that passed while stopping, 2 bad arguments or
//! settings, 3 damage found by `check`.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use acb_ports::{Clock, ManualClock, SystemClock};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Cli, Command, Switches},
    boot, check,
    config::{
        Config,
        load::{Problem, Values},
        print,
    },
    edge::fd_limit,
    server::{ServerBuilder, ServerHandle},
    shutdown::Clean,
    telemetry::logs,
};

/// Exit code of bad arguments and settings.
const BAD_SETTINGS: u8 = 2;
/// Threads for what blocks: reads of logs, hashing of secrets.
const BLOCKING_THREADS: usize = 16;

/// Runs the program to its end.
pub fn run() -> ExitCode {
    use_small_pages();
    let cli = Cli::parse();
    if let Some(Command::Check { folder, salvage_into }) = &cli.command {
        return check::run(folder, salvage_into.as_deref());
    }
    let (values, mut problems) = cli.settings.values(std::env::vars());
    let config = match Config::read(&values) {
        Ok(config) if problems.is_empty() => config,
        Ok(_) => return bad_settings(&problems),
        Err(more) => {
            problems.extend(more);
            return bad_settings(&problems);
        }
    };
    match cli.command {
        Some(Command::Config) => print_config(&values),
        _ => serve(config, &cli.switches),
    }
}

/// No transparent huge pages for this process. One is cleared whole by the thread that touches it first, and that thread
/// serves everybody: up to 7 ms where a virtual machine gives memory it does not have yet (measured: ADR 0006).
fn use_small_pages() {
    // An older kernel refuses; then it is as slow as it was.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

fn print_config(values: &Values) -> ExitCode {
    say(&print::effective(values));
    ExitCode::SUCCESS
}

fn bad_settings(problems: &[Problem]) -> ExitCode {
    let mut text = match problems.len() {
        1 => "a problem with the settings:\n".to_owned(),
        n => format!("{n} problems with the settings:\n"),
    };
    for problem in problems {
        let _ = writeln!(text, "  {problem}");
    }
    complain(&text);
    ExitCode::from(BAD_SETTINGS)
}

fn serve(config: Config, switches: &Switches) -> ExitCode {
    if let Err(error) = logs::init(config.log.format, &config.log.filter) {
        complain(&format!("log.filter: {error}\n"));
        return ExitCode::from(BAD_SETTINGS);
    }
    let files = fd_limit::raise();
    if let Some(files) = files
        && (files as usize) < config.edge.connections_max
    {
        tracing::warn!(
            files,
            connections_max = config.edge.connections_max,
            "fewer open files than connections are allowed"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("acb-main")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(serve_on(config, switches)),
        Err(error) => {
            complain(&format!("no runtime: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn serve_on(config: Config, switches: &Switches) -> ExitCode {
    let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
    // Before anything is opened: whoever is told to stop while it starts stops in order, too.
    if let Err(error) = listen_for_signals(stop.clone(), hurry.clone()) {
        complain(&format!("no signals: {error}\n"));
        return ExitCode::FAILURE;
    }
    let manual = switches.manual_clock.map(|start| Arc::new(ManualClock::new(start)));
    let clock: Arc<dyn Clock> = match &manual {
        Some(clock) => Arc::clone(clock) as Arc<dyn Clock>,
        None => Arc::new(SystemClock::new()),
    };
    let stores = match boot::stores(&config, Arc::clone(&clock)).await {
        Ok(stores) => stores,
        Err(error) => {
            complain(&format!("{}: {}\n", config.storage.data_dir.display(), error.message));
            return ExitCode::FAILURE;
        }
    };
    let mut builder = ServerBuilder::new(config.clone(), stores).clock(clock);
    if switches.dev {
        builder = builder.dev();
    }
    if let Some(clock) = manual {
        builder = builder.manual_clock(clock);
    }
    if switches.new_admin_key {
        builder = builder.new_admin_key();
    }
    if let Some(path) = &switches.admin_key_file {
        builder = builder.admin_key_file(path.clone());
    }
    let handle = match builder.start().await {
        Ok(handle) => handle,
        Err(error) => {
            complain(&format!("{error}\n"));
            return ExitCode::FAILURE;
        }
    };
    say(&screen(&handle, &config, switches));
    stop.cancelled().await;
    match handle.shutdown(hurry).await {
        Clean::Yes => ExitCode::SUCCESS,
        Clean::No => ExitCode::FAILURE,
    }
}

/// The first SIGTERM or SIGINT stops in order, the second skips the waiting.
fn listen_for_signals(stop: CancellationToken, hurry: CancellationToken) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let task = async move {
        for token in [stop, hurry] {
            // Both are cancel-safe.
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    };
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process")]
    tokio::spawn(task);
    Ok(())
}

/// What people see first: one screen that says how to connect.
fn screen(handle: &ServerHandle, config: &Config, switches: &Switches) -> String {
    let tls = config.tls.certificate.is_some();
    let (scheme, how) = if tls { ("acbs", "TLS 1.3") } else { ("acb", "plain text") };
    let local = handle.address().ip().is_loopback();
    let reach = if local { ", this machine only" } else { "" };
    let data = std::path::absolute(&config.storage.data_dir).unwrap_or_else(|_| config.storage.data_dir.clone());
    let mut s = format!(
        "acb-server {} is ready.\n\n  clients  {scheme}://{}   gRPC and HTTP, {how}{reach}\n  admin    http://{}   /live /ready \
         /metrics /version\n  data     {}\n",
        env!("CARGO_PKG_VERSION"),
        handle.address(),
        handle.admin_address(),
        data.display(),
    );
    if !local && !tls {
        s.push_str(
            "\n  !! Plain text on an address that others can reach: tokens and messages can be read on the way.\n",
        );
    }
    if switches.dev {
        s.push_str(
            "\n  !! --dev: nobody is asked for credentials. Every program on this machine may do everything, as any agent\n  \
             !! of any tenant. Do not keep anything here that matters.\n",
        );
        if let Some(start) = switches.manual_clock {
            let _ = writeln!(
                s,
                "  !! --manual-clock: time stands at {start} until POST http://{}/advance?ms=1000",
                handle.admin_address()
            );
        }
        let _ = writeln!(s, "\n  Try it:  acb agents ls");
    } else if let Some(key) = handle.admin_key() {
        let _ = writeln!(
            s,
            "\n  An admin key was made for the tenant \"default\". It is shown this once; keep it:\n\n    {key}"
        );
        if let Some(path) = &switches.admin_key_file {
            let _ = writeln!(s, "\n  It is also in {}.", path.display());
        }
        let _ = writeln!(s, "\n  Log in:  ACB_KEY={key} acb login --agent admin");
    } else {
        s.push_str("\n  Log in with a key of this server: acb login\n");
    }
    s
}

/// Tells a fault of the settings or the start.
pub(crate) fn complain(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = write!(io::stderr().lock(), "acb-server: {text}");
}

/// Prints what was asked for.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    // A reader who went away has what it wanted.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
