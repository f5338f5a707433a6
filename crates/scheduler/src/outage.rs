//! A database that is away: said once, asked again with growing pauses, said again when it is back.

use std::time::Duration;

use orchestrator_engine::store::StoreError;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a loop knows of the outage it is in.
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
    pub fn pause_after(&mut self, error: &StoreError) -> Duration {
        let pause = match self.pause {
            Some(pause) => (pause * 2).min(PAUSE_MAX),
            None => {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "could not {}; will try again",
                    self.doing
                );
                PAUSE_MIN
            }
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
