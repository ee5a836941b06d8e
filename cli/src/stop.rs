//! Ctrl-C, and being asked to end: the command finishes what it holds and goes.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// A token that is cancelled at the first SIGINT or SIGTERM. At the second the process ends at once.
pub(crate) fn on_signals() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    let listening = async move {
        for count in 0.. {
            // Both arms are cancel-safe.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if count > 0 {
                end_now();
            }
            told.cancel();
        }
    };
    #[expect(clippy::disallowed_methods, reason = "listens as long as the process lives, and holds nothing")]
    tokio::spawn(listening);
    Ok(stop)
}

#[expect(clippy::disallowed_methods, reason = "the user asked twice: what is unfinished comes again")]
fn end_now() -> ! {
    std::process::exit(Exit::Interrupted.number().into())
}
