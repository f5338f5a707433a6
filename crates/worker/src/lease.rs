//! The worker's loop: takes due work for its free slots, and, when told to stop, gives back what it
//! cannot finish in a moment.
//!
//! A worker whose runs are quick takes more than it has slots ([`crate::ahead`]), so that what a
//! statement costs is shared by hundreds of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use orchestrator_boot::{KeptConnection, Outage};
use orchestrator_engine::store::queue::{Leased, Past, QueueView, Take};
use orchestrator_engine::store::{StoreError, notices, reach};
use orchestrator_engine::streams::WORK;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ahead::{Rate, Ready};
use crate::commit::Write;
use crate::held::Why;
use crate::perform::perform;
use crate::settle::Ending;
use crate::slot::Slot;
use crate::{Worker, in_time, tell};

/// The longest sleep while Redis tells of new work; a hint may be lost all the same.
const POLL: Duration = Duration::from_secs(5);
/// The longest sleep while Redis is away.
const POLL_WITHOUT_REDIS: Duration = Duration::from_secs(1);
/// The shortest sleep before a look that has no hint: rows that another worker is taking look due.
const POLL_MIN: Duration = Duration::from_millis(10);
/// After so many takes in a row that filled every slot the worker is busy: it looks again anyway.
const BUSY_AFTER: u32 = 16;
/// How long runs may go on after `stop` before they are interrupted and given back.
const DRAIN: Duration = Duration::from_secs(1);
/// With more work than slots, how long slots that become free are gathered for one statement. A run
/// that finds a free slot is not delayed by it.
const GATHER: Duration = Duration::from_millis(2);

/// Takes due work and runs it until `stop`; returns when every run has ended or was given back.
pub(crate) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let mut taker = Taker {
        going: JoinSet::new(),
        conn: KeptConnection::new(worker.ctx.pool.clone()),
        view: QueueView::default(),
        rate: Rate::default(),
        worker,
    };
    taker.run(&stop).await;
    let Taker { worker, going, .. } = taker;
    note_sleep(&worker, false).await.ok();
    drain(&worker, going).await;
}

/// What the loop remembers.
struct Taker {
    worker: Arc<Worker>,
    going: JoinSet<()>,
    conn: KeptConnection,
    view: QueueView,
    rate: Rate,
}

impl Taker {
    async fn run(&mut self, stop: &CancellationToken) {
        let worker = Arc::clone(&self.worker);
        let wake = worker.ctx.streams.listen(WORK, stop.clone());
        let mut outage = Outage::new("lease work");
        let mut is_asleep = false;
        let mut full_takes = 0;
        while !stop.is_cancelled() {
            // One slot in hand: there is room for at least one run. A hint heard while there is none
            // may still be about a run that is on and to be canceled.
            let slot = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                slot = worker.slots.next() => Some(slot),
                () = worker.ahead.low() => None,
                () = worker.ahead.stale() => {
                    put_back(&worker, worker.ahead.take_stale());
                    continue;
                }
                () = wake.heard() => {
                    worker.look.notify_one();
                    continue;
                }
                () = self.conn.rest() => continue,
            };
            if full_takes > 0 && slot.is_some() && worker.ahead.wanted() == 0 {
                tokio::time::sleep(GATHER).await;
            }
            let mut slots = Vec::from_iter(slot);
            slots.extend(std::iter::from_fn(|| worker.slots.try_next()));
            let pause = match self.take(slots).await {
                Ok(pause) => {
                    outage.over();
                    pause
                }
                Err(error) => Some(outage.pause_after(&error)),
            };
            while self.going.try_join_next().is_some() {}
            if worker.forgotten.swap(false, Ordering::Relaxed) {
                is_asleep = false;
            }
            full_takes = if pause.is_none() { full_takes + 1 } else { 0 };
            let sleeps = full_takes == 0;
            if (sleeps && !is_asleep) || (full_takes >= BUSY_AFTER && is_asleep) {
                match note_sleep(&worker, sleeps).await {
                    Ok(()) => is_asleep = sleeps,
                    Err(error) => tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "whoever adds runs does not know whether this worker sleeps"
                    ),
                }
                if is_asleep {
                    continue; // look once more: before now, nobody would have notified
                }
            }
            let Some(pause) = pause else { continue };
            self.conn.let_go();
            tokio::select! {
                () = stop.cancelled() => {}
                () = wake.heard() => worker.look.notify_one(),
                () = worker.again.notified() => {}
                () = worker.ahead.stale() => put_back(&worker, worker.ahead.take_stale()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts what was taken ahead on the slots in hand, leases for the rest of them, and some ahead.
    /// Returns how long to sleep, or `None` when there may be more at once.
    async fn take(&mut self, mut slots: Vec<Slot>) -> Result<Option<Duration>, StoreError> {
        let worker = Arc::clone(&self.worker);
        let ctx = &worker.ctx;
        while let Some(slot) = slots.pop() {
            let Some(ready) = worker.ahead.pop() else {
                slots.push(slot);
                break;
            };
            self.start(ready, slot);
        }
        worker.ahead.want(self.rate.runs_ahead(worker.pace.count()));
        let free = u16::try_from(slots.len()).unwrap_or(u16::MAX);
        let ahead = worker.ahead.missing();
        if free + ahead == 0 {
            return Ok(None);
        }
        let how = Take {
            worker: ctx.process_id,
            duration: ctx.settings.worker.lease,
            wanted: free + ahead,
            slots: free,
            ageing: ctx.settings.worker.ageing,
        };
        let (conn, view) = (&self.conn, &mut self.view);
        let taken = conn.with(async |conn| view.take(conn, how).await);
        let taken = in_time("lease due runs", taken).await?;
        let leased = taken.runs;
        if !leased.is_empty() {
            measure(&worker, &leased);
        }
        let pause = if leased.len() == usize::from(how.wanted) {
            None
        } else {
            let longest = if ctx.streams.is_up() { POLL } else { POLL_WITHOUT_REDIS };
            Some(taken.next_in.unwrap_or(longest).clamp(POLL_MIN, longest))
        };
        tell::started(&worker, &leased);
        // All of the batch are held before the first begins: a lease whose held runs are over is ended.
        let ready: Vec<_> = leased
            .into_iter()
            .map(|run| (worker.holding.add(run.lease, run.past != Past::Fresh), run))
            .collect();
        worker.busy.notify_one();
        let mut later = Vec::new();
        for ready in ready {
            match slots.pop() {
                Some(slot) => self.start(ready, slot),
                None => later.push(ready),
            }
        }
        worker.ahead.add(later);
        Ok(pause)
    }

    fn start(&mut self, ready: Ready, slot: Slot) {
        self.going.spawn(work(Arc::clone(&self.worker), ready, slot));
    }
}

/// Says whether new runs are to be notified of.
async fn note_sleep(worker: &Worker, sleeps: bool) -> Result<(), StoreError> {
    let ctx = &worker.ctx;
    in_time("say whether we sleep", async {
        let mut conn = reach(&ctx.pool).await?;
        if sleeps {
            notices::sleep(&mut conn, ctx.process_id).await
        } else {
            notices::wake(&mut conn, ctx.process_id).await
        }
    })
    .await
}

/// Works on a run until it is over, then on those that were taken ahead, one after the other. Its slot
/// is free before what was done is durable.
async fn work(worker: Arc<Worker>, first: Ready, slot: Slot) {
    let mut next = Some(first);
    while let Some((held, run)) = next {
        let Ok(room) = Arc::clone(&worker.unwritten).acquire_owned().await else { return };
        let subject = tell::Subject::of(&run);
        let began = tokio::time::Instant::now();
        worker.ctx.metrics.worker().active.inc();
        let write = perform(&worker, &held, &slot, run).await;
        worker.ctx.metrics.worker().active.dec();
        let took = began.elapsed();
        if let Some(write) = write {
            let ending = Ending { worker: Arc::clone(&worker), held, subject, took, room };
            worker.committer.hand_over(write, ending).await;
        } else {
            worker.holding.ended(&[held.lease]);
            tell::lost(&worker.ctx, &subject);
            worker.holding.remove(held.lease);
        }
        if slot.is_wanted_back() {
            break;
        }
        next = worker.ahead.pop();
    }
}

/// Gives runs back that were taken ahead.
fn put_back(worker: &Arc<Worker>, runs: Vec<Ready>) {
    if runs.is_empty() {
        return;
    }
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        let leases = runs.into_iter().map(|(held, _)| held.lease);
        join_all(leases.map(async |lease| {
            worker.committer.write(Write::PutBack(lease)).await;
            worker.holding.remove(lease);
        }))
        .await;
        worker.ctx.streams.wake_workers().await;
    });
}

fn measure(worker: &Worker, leased: &[Leased]) {
    let metrics = worker.ctx.metrics.worker();
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    metrics.lease_batch.observe(leased.len() as f64);
    for run in leased {
        match run.past {
            Past::Fresh => {
                metrics.pickup_seconds.observe(run.waited.as_secs_f64());
                metrics.started(&run.info, worker.ctx.clock.now());
            }
            Past::Returned => {}
            Past::Lapsed => {
                metrics.leases_reclaimed.inc();
                tracing::warn!(run.id = %run.lease.run_id, attempt = run.info.attempt,
                    "a run is taken over: its worker was lost");
            }
        }
    }
}

/// Lets runs end for a moment, then interrupts them; each gives its lease back.
async fn drain(worker: &Arc<Worker>, mut going: JoinSet<()>) {
    put_back(worker, worker.ahead.take_all());
    if going.is_empty() {
        return;
    }
    tracing::info!(runs = worker.holding.len(), "finishing or giving back what is on");
    let all_ended = async { while going.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, all_ended).await.is_ok() {
        return;
    }
    for held in worker.holding.all() {
        held.stop(Why::Shutdown);
    }
    while going.join_next().await.is_some() {}
}
