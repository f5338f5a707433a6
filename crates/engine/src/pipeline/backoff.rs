//! How long to wait before another attempt.

use std::time::Duration;

use crate::task::Backoff;

/// The wait after the first attempt, and the step of a linear backoff.
pub const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// The longest wait.
pub const BACKOFF_MAX: Duration = Duration::from_hours(1);
/// The shortest wait with jitter: not so soon that what failed had no time to recover.
pub const BACKOFF_FLOOR: Duration = Duration::from_millis(500);

/// The wait after failed attempt number `attempt` (from 1).
///
/// `fixed`: always [`BACKOFF_BASE`]; `linear`: 1 s, 2 s, 3 s …; `exponential`: 1 s, 2 s, 4 s …;
/// `exponential_jitter`: a random part of that, spread evenly above [`BACKOFF_FLOOR`] (full jitter,
/// "Exponential Backoff And Jitter", AWS 2015), so that runs that failed together do not come back
/// together. Never above [`BACKOFF_MAX`]. `fraction` is random, 0 to below 1.
#[must_use]
pub fn backoff(strategy: Backoff, attempt: i32, fraction: f64) -> Duration {
    let attempt = u32::try_from(attempt.max(1)).unwrap_or(1);
    let doubled = || BACKOFF_BASE.saturating_mul(1 << (attempt - 1).min(16)).min(BACKOFF_MAX);
    match strategy {
        Backoff::Fixed => BACKOFF_BASE,
        Backoff::Linear => BACKOFF_BASE.saturating_mul(attempt).min(BACKOFF_MAX),
        Backoff::Exponential => doubled(),
        Backoff::ExponentialJitter => {
            let spread = doubled().saturating_sub(BACKOFF_FLOOR);
            BACKOFF_FLOOR + spread.mul_f64(fraction.clamp(0.0, 1.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_wait_grows_as_its_strategy_says() {
        let cases = [
            (Backoff::Fixed, [1, 1, 1, 1]),
            (Backoff::Linear, [1, 2, 3, 4]),
            (Backoff::Exponential, [1, 2, 4, 8]),
        ];
        for (strategy, seconds) in cases {
            let waits = [1, 2, 3, 4].map(|attempt| backoff(strategy, attempt, 0.5).as_secs());
            assert_eq!(waits, seconds, "{strategy}");
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_outside_its_limits(attempt: i32, fraction in 0.0..1.0_f64) {
            for strategy in Backoff::ALL {
                let wait = backoff(*strategy, attempt, fraction);
                prop_assert!((BACKOFF_FLOOR..=BACKOFF_MAX).contains(&wait));
            }
        }
    }
}
