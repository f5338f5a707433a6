//! SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code of whoever did not want to wait for the calm end (128 + SIGINT).
const EXIT_AT_ONCE: i32 = 130;

/// From now on the first SIGTERM or SIGINT cancels `stop`, and the second ends the process at once.
///
/// # Errors
///
/// When the handlers cannot be set.
pub fn stop_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "{name}: stopping; once more ends at once");
        stop.cancel();
        let name = next().await;
        tracing::warn!(signal = name, "{name} again: ending at once");
        std::process::exit(EXIT_AT_ONCE);
    });
    Ok(())
}
