//! A database that is away: said once, asked again with growing pauses, said again when it is back.

use std::time::Duration;

/// The first pause; doubled with every failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a loop knows of the outage it is in.
#[derive(Debug)]
pub struct Outage {
    doing: &'static str,
    pause: Option<Duration>,
}

impl Outage {
    /// No outage yet of a loop whose work is `doing`.
    #[must_use]
    pub fn new(doing: &'static str) -> Self {
        Self { doing, pause: None }
    }

    /// The loop failed with `error`: how long to wait before the next try.
    pub fn pause_after(&mut self, error: &(dyn std::error::Error + 'static)) -> Duration {
        let pause = if let Some(pause) = self.pause {
            (pause * 2).min(PAUSE_MAX)
        } else {
            tracing::warn!(error, "could not {}; will try again", self.doing);
            PAUSE_MIN
        };
        self.pause = Some(pause);
        pause
    }

    /// The loop succeeded.
    pub fn over(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!("can {} again", self.doing);
        }
    }
}
