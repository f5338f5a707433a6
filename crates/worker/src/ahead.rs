//! Runs that were leased and wait for a slot of this worker.
//!
//! Only a worker whose runs are quick and harmless takes any ahead, as many as it will begin within
//! [`AHEAD`]. What waits longer all the same, because runs became slow, is given back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator_engine::store::queue::Leased;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::held::Held;

/// A run that may begin.
pub(crate) type Ready = (Arc<Held>, Leased);

/// For how long what is taken ahead is to last.
const AHEAD: Duration = Duration::from_millis(80);
/// The most runs ahead.
const AHEAD_MAX: usize = 1_000;
/// Fewer are not worth it.
const AHEAD_MIN: usize = 10;
/// Runs ahead that waited so long are given back.
const STALE: Duration = Duration::from_millis(400);
/// How far back the rate looks.
const MEMORY: Duration = Duration::from_millis(50);

/// The runs taken ahead.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    queue: Mutex<VecDeque<(Instant, Ready)>>,
    /// How many there should be.
    wanted: AtomicUsize,
    /// Fewer than half of it are left.
    low: Notify,
}

impl Ahead {
    /// The next, if there is one.
    pub(crate) fn pop(&self) -> Option<Ready> {
        let mut queue = self.queue();
        let next = queue.pop_front();
        let left = queue.len();
        drop(queue);
        let wanted = self.wanted();
        if wanted > 0 && left == wanted / 2 {
            self.low.notify_one();
        }
        next.map(|(_, ready)| ready)
    }

    /// Adds runs behind the others.
    pub(crate) fn add(&self, runs: Vec<Ready>) {
        let now = Instant::now();
        self.queue().extend(runs.into_iter().map(|ready| (now, ready)));
    }

    /// Sets how many there should be.
    pub(crate) fn want(&self, wanted: usize) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// How many there should be.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// How many to take now: none while more than half are left, so that statements are few and large.
    pub(crate) fn missing(&self) -> u16 {
        let (wanted, left) = (self.wanted(), self.queue().len());
        let missing = if left > wanted / 2 { 0 } else { wanted - left };
        u16::try_from(missing).unwrap_or(u16::MAX)
    }

    /// When more should be taken.
    pub(crate) async fn low(&self) {
        self.low.notified().await;
    }

    /// When the oldest has waited too long; never while there is none.
    pub(crate) async fn stale(&self) {
        let oldest = self.queue().front().map(|(since, _)| *since);
        match oldest {
            Some(since) => tokio::time::sleep_until(since + STALE).await,
            None => std::future::pending().await,
        }
    }

    /// Those that have waited too long.
    pub(crate) fn take_stale(&self) -> Vec<Ready> {
        let mut queue = self.queue();
        let fresh = queue.partition_point(|(since, _)| since.elapsed() >= STALE);
        queue.drain(..fresh).map(|(_, ready)| ready).collect()
    }

    /// All of them.
    pub(crate) fn take_all(&self) -> Vec<Ready> {
        self.queue().drain(..).map(|(_, ready)| ready).collect()
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(Instant, Ready)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many harmless runs were worked on.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// One more.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// So many.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many harmless runs the worker does a second, of late.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl Rate {
    /// How many runs to take ahead, when `count` were done so far.
    pub(crate) fn runs_ahead(&mut self, count: u64) -> usize {
        let now = Instant::now();
        if let Some((then, counted)) = self.last {
            let seconds = (now - then).as_secs_f64().max(1e-6);
            #[expect(clippy::cast_precision_loss, reason = "far from 2^53")]
            let rate = (count - counted) as f64 / seconds;
            let weight = 1.0 - (-seconds / MEMORY.as_secs_f64()).exp();
            self.per_second += weight * (rate - self.per_second);
        }
        self.last = Some((now, count));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small number"
        )]
        let ahead = (self.per_second * AHEAD.as_secs_f64()) as usize;
        if ahead < AHEAD_MIN { 0 } else { ahead.min(AHEAD_MAX) }
    }
}
