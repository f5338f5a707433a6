//! Telling of runs while there are many.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Lifecycle, Streams};

/// The most changes of runs told in a [`WINDOW`]: more can nobody follow. Of the others it is told how many
/// there were.
const TOLD_MAX: usize = 500;
const WINDOW: Duration = Duration::from_secs(1);
/// The most changes told at once.
const TOLD_AT_ONCE: usize = 250;
const STARTED: &str = "run.started";
const QUEUED: &str = "run.queued";

/// Tells whoever watches what became of runs, and workers that there may be work: what is said meanwhile in
/// one round trip, for which nobody waits.
#[derive(Debug)]
pub struct Teller {
    changes: mpsc::Sender<Lifecycle>,
    work: Arc<Notify>,
    window: Mutex<Window>,
    untold: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    told: usize,
}

impl Teller {
    /// Starts the task that tells; it ends when the teller is dropped and all is told.
    #[must_use]
    pub fn start(streams: Streams) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(TOLD_MAX);
        let (work, untold) = (Arc::<Notify>::default(), Arc::<AtomicU64>::default());
        let telling =
            tokio::spawn(tell_all(streams, receiver, Arc::clone(&work), Arc::clone(&untold)));
        let window = Mutex::new(Window { since: Instant::now(), told: 0 });
        (Self { changes: sender, work, window, untold }, telling)
    }

    /// Tells a change, or, when there are too many, that there was one more.
    pub fn tell(&self, change: impl FnOnce() -> Lifecycle) {
        if !self.has_room() || self.changes.try_send(change()).is_err() {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells workers that there may be work; what was told of before this call is told with it or earlier.
    pub fn wake_workers(&self) {
        self.work.notify_one();
    }

    fn has_room(&self) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.told >= TOLD_MAX {
            if window.since.elapsed() < WINDOW {
                return false;
            }
            *window = Window { since: Instant::now(), told: 0 };
        }
        window.told += 1;
        true
    }
}

async fn tell_all(
    streams: Streams,
    mut said: mpsc::Receiver<Lifecycle>,
    work: Arc<Notify>,
    untold: Arc<AtomicU64>,
) {
    let mut changes = Vec::with_capacity(TOLD_AT_ONCE);
    // When it is told how many were skipped.
    let mut sum_at: Option<Instant> = None;
    loop {
        let sum = async {
            match sum_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mut is_work = tokio::select! {
            biased;
            () = sum => {
                let count = untold.swap(0, Ordering::Relaxed);
                sum_at = None;
                if count > 0 {
                    streams.untold(count).await;
                    sum_at = Some(Instant::now() + WINDOW); // more may have come in the same window
                }
                continue;
            }
            () = work.notified() => true,
            count = said.recv_many(&mut changes, TOLD_AT_ONCE) => {
                if count == 0 {
                    break;
                }
                false
            }
        };
        while changes.len() < TOLD_AT_ONCE
            && let Ok(change) = said.try_recv()
        {
            changes.push(change);
        }
        is_work |= work.notified().now_or_never().is_some();
        drop_overtaken(&mut changes);
        if is_work {
            streams.queued(&changes).await;
        } else {
            streams.lifecycle(&changes).await;
        }
        if !changes.is_empty() {
            sum_at.get_or_insert_with(|| Instant::now() + WINDOW);
            changes.clear();
        }
    }
}

/// Of a run that has ended already, that it began is no news.
fn drop_overtaken(changes: &mut Vec<Lifecycle>) {
    let ended: HashSet<_> = changes
        .iter()
        .filter(|one| !matches!(one.kind, STARTED | QUEUED))
        .map(|one| one.run_id)
        .collect();
    changes.retain(|one| one.kind != STARTED || !ended.contains(&one.run_id));
}
