//! Rate limits: the generic cell rate algorithm (GCRA; ITU-T I.371, as in Brandur Leach's
//! `redis-cell`), which keeps one number a key: the theoretical arrival time (TAT) of the next request.

use std::time::Duration;

/// The window in which `per_minute` requests may come, at once or spread.
const WINDOW_US: i64 = 60_000_000;

/// KEYS[1] = key, ARGV[1] = requests a minute, ARGV[2] = how many come at once. Answers {how many of them are
/// allowed, TAT - now in µs before them}; Redis' clock counts, so that replicas agree.
///
/// A TAT is never more than a window ahead. One that is was kept before the clock was set back: it counts as
/// none, since it would refuse everything until the clock is where it was.
pub(super) const SCRIPT: &str = r"
local window, quota = 60000000, tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
if tat < now or tat > now + window + 1 then tat = now end
local room = math.floor((window - (tat - now)) * quota / window)
local allowed = math.max(0, math.min(tonumber(ARGV[2]), room))
if allowed > 0 then
    local after = tat + allowed * window / quota
    redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1)
end
return {allowed, math.floor(tat - now)}
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
    /// Those of `count` requests that came at once, of which the first `allowed` may go on: the answer of
    /// [`SCRIPT`].
    pub(super) fn of_many(
        count: usize,
        allowed: usize,
        tat_in_us: i64,
        per_minute: u32,
    ) -> Vec<Self> {
        let interval_us = WINDOW_US / i64::from(per_minute.max(1));
        let after =
            |requests| tat_in_us + interval_us * i64::try_from(requests).unwrap_or(i64::MAX);
        (1..=count)
            .map(|nth| Self::new(nth <= allowed, after(nth.min(allowed)), per_minute))
            .collect()
    }

    fn new(allowed: bool, tat_in_us: i64, per_minute: u32) -> Self {
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
    fn of_requests_that_come_at_once_each_has_the_decision_that_it_would_have_had_alone() {
        let before = decide(0, 0, 3).1;

        let (mut kept, mut alone) = (before, Vec::new());
        for _ in 0..4 {
            let (decision, next) = decide(kept, 0, 3);
            kept = next;
            alone.push(decision);
        }

        assert_eq!(Decision::of_many(4, 2, before, 3), alone);
    }

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
