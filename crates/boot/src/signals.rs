//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of whoever did not want to wait for the calm end (128 + SIGINT).
const EXIT_AT_ONCE: i32 = 130;

/// From now on each SIGTERM or SIGINT cancels the next of `stops`, in order; one more ends the
/// process at once with exit code 130.
///
/// A service has one stop. `orchestrator dev` has two: end calmly; end without waiting, but not
/// without stopping the servers it started.
///
/// # Errors
///
/// When the handlers cannot be set.
pub fn stop_on_signal(
    stops: impl IntoIterator<Item = CancellationToken> + Send + 'static,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stops: Vec<_> = stops.into_iter().collect();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        for stop in stops {
            let name = next().await;
            tracing::info!(signal = name, "{name}: stopping; once more ends sooner");
            stop.cancel();
        }
        let name = next().await;
        tracing::warn!(signal = name, "{name} again: ending at once");
        std::process::exit(EXIT_AT_ONCE);
    });
    Ok(())
}
