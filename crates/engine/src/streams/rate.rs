//! Rate limits: the generic cell rate algorithm (GCRA; ITU-T I.371, as in Brandur Leach's
//! `redis-cell`), which keeps one number a key: the theoretical arrival time (TAT) of the next request.

use std::time::Duration;

/// The window in which `per_minute` requests may come, at once or spread.
const WINDOW_US: i64 = 60_000_000;

/// KEYS[1] = key, ARGV[1] = requests a minute. Answers {allowed 0|1, TAT - now in µs}; Redis' clock
/// counts, so that replicas agree.
pub(super) const SCRIPT: &str = r"
local window = 60000000
local interval = window / tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
if tat < now then tat = now end
local ahead = tat + interval - now
if ahead > window then return {0, math.floor(tat - now)} end
redis.call('SET', KEYS[1], string.format('%.0f', tat + interval), 'PX', math.ceil(ahead / 1000) + 1)
return {1, math.floor(ahead)}
";

/// Whether a request may go on, and what to tell the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// How many more may follow at once.
    pub remaining: u32,
    /// When the whole quota is there again.
    pub reset_after: Duration,
    /// When to come again; zero when it was allowed.
    pub retry_after: Duration,
}

impl Decision {
    pub(super) fn new(allowed: bool, tat_in_us: i64, per_minute: u32) -> Self {
        let interval_us = WINDOW_US / i64::from(per_minute.max(1));
        let room_us = (WINDOW_US - tat_in_us).max(0);
        let micros = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
        Self {
            allowed,
            remaining: u32::try_from(room_us / interval_us.max(1)).unwrap_or(u32::MAX),
            reset_after: micros(tat_in_us),
            retry_after: if allowed {
                Duration::ZERO
            } else {
                micros(tat_in_us + interval_us - WINDOW_US)
            },
        }
    }
}

/// The same decision as the script's, for one process: `tat_us` is what is kept for the key (0 at
/// first), `now_us` any clock that does not go back. Returns the decision and what to keep.
#[must_use]
pub fn decide(tat_us: i64, now_us: i64, per_minute: u32) -> (Decision, i64) {
    let interval_us = WINDOW_US / i64::from(per_minute.max(1));
    let tat_us = tat_us.max(now_us);
    let ahead_us = tat_us + interval_us - now_us;
    if ahead_us > WINDOW_US {
        return (Decision::new(false, tat_us - now_us, per_minute), tat_us);
    }
    (Decision::new(true, ahead_us, per_minute), tat_us + interval_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_used_up_and_comes_back_evenly() {
        let mut kept = 0;
        let mut ask = |now_us: i64| {
            let (decision, next) = decide(kept, now_us, 60);
            kept = next;
            decision
        };

        let burst: Vec<bool> = (0..61).map(|_| ask(0).allowed).collect();
        let refused = ask(0);
        let later = ask(1_000_000);

        assert_eq!(burst.iter().filter(|allowed| **allowed).count(), 60);
        assert_eq!(refused.retry_after, Duration::from_secs(1));
        assert!(later.allowed, "one a second comes back");
        assert!(!ask(1_000_000).allowed);
    }
}
