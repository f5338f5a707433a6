//! The worker's loop: takes due work for its free slots, and, when told to stop, gives back what it
//! cannot finish in a moment.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::Outage;
use orchestrator_engine::store::queue::{Leased, Past, QueueView, Take};
use orchestrator_engine::store::{StoreError, notices};
use orchestrator_engine::streams::WORK;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commit::{Write, Written};
use crate::held::{Held, Why};
use crate::perform::perform;
use crate::{Worker, after, in_time, tell};

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
/// The most runs that are over for us and not yet written: what a slow database holds up is bounded.
/// They take no slot, so others can begin meanwhile.
const UNWRITTEN_MAX: usize = 500;
/// With more work than slots, how long slots that become free are gathered for one statement. A run
/// that finds a free slot is not delayed by it.
const GATHER: Duration = Duration::from_millis(2);

/// Takes due work and runs it until `stop`; returns when every run has ended or was given back.
pub(crate) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let slots = usize::from(worker.ctx.settings.worker.concurrency);
    let room = Room {
        slots: Arc::new(Semaphore::new(slots)),
        unwritten: Arc::new(Semaphore::new(slots + UNWRITTEN_MAX)),
    };
    let mut going = JoinSet::new();
    let wake = worker.ctx.streams.listen(WORK, stop.clone());
    let mut outage = Outage::new("lease work");
    let mut view = QueueView::default();
    let mut is_asleep = false;
    let mut full_takes = 0;
    while !stop.is_cancelled() {
        // One permit in hand: there is room for at least one run. A hint heard while there is none
        // may still be about a run that is on and to be canceled.
        let first = tokio::select! {
            () = stop.cancelled() => break,
            place = room.place() => place,
            () = wake.heard() => {
                worker.look.notify_one();
                continue;
            }
        };
        let Some(first) = first else { break };
        if full_takes > 0 && room.slots.available_permits() + 1 < slots {
            tokio::time::sleep(GATHER).await;
        }
        let mut places = vec![first];
        while let Some(place) = room.try_place() {
            places.push(place);
        }
        let pause = match take(&worker, &mut view, places, &mut going).await {
            Ok(pause) => {
                outage.over();
                pause
            }
            Err(error) => {
                is_asleep = false; // a crash of the database forgets sleepers
                Some(outage.pause_after(&error))
            }
        };
        while going.try_join_next().is_some() {}
        full_takes = if pause.is_none() { full_takes + 1 } else { 0 };
        let sleeps = full_takes == 0;
        if (sleeps && !is_asleep) || (full_takes >= BUSY_AFTER && is_asleep) {
            match note_sleep(&worker, sleeps).await {
                Ok(()) => is_asleep = sleeps,
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "whoever adds runs by SQL does not know whether this worker sleeps"
                ),
            }
            if is_asleep {
                continue; // look once more: before now, nobody would have notified
            }
        }
        let Some(pause) = pause else { continue };
        tokio::select! {
            () = stop.cancelled() => {}
            () = wake.heard() => worker.look.notify_one(),
            () = worker.again.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    note_sleep(&worker, false).await.ok();
    drain(&worker, going).await;
}

/// Says whether runs added by SQL are to be notified of.
async fn note_sleep(worker: &Worker, sleeps: bool) -> Result<(), StoreError> {
    let ctx = &worker.ctx;
    let mut conn =
        ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
    if sleeps {
        notices::sleep(&mut conn, ctx.process_id).await
    } else {
        notices::wake(&mut conn, ctx.process_id).await
    }
}

/// What bounds how many runs are held.
struct Room {
    /// Runs that are being worked on.
    slots: Arc<Semaphore>,
    /// Those, and the ones that are over and not yet written.
    unwritten: Arc<Semaphore>,
}

/// Room for one run.
struct Place {
    slot: OwnedSemaphorePermit,
    unwritten: OwnedSemaphorePermit,
}

impl Room {
    /// Room for one more, once there is; `None` never, as neither is ever closed.
    async fn place(&self) -> Option<Place> {
        let unwritten = Arc::clone(&self.unwritten).acquire_owned().await.ok()?;
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        Some(Place { slot, unwritten })
    }

    fn try_place(&self) -> Option<Place> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        let unwritten = Arc::clone(&self.unwritten).try_acquire_owned().ok()?;
        Some(Place { slot, unwritten })
    }
}

/// Leases for the places in hand and starts what it gets. Returns how long to sleep, or `None` when
/// there may be more at once.
async fn take(
    worker: &Arc<Worker>,
    view: &mut QueueView,
    places: Vec<Place>,
    going: &mut JoinSet<()>,
) -> Result<Option<Duration>, StoreError> {
    let ctx = &worker.ctx;
    let how = Take {
        worker: ctx.process_id,
        duration: ctx.settings.worker.lease,
        wanted: u16::try_from(places.len()).unwrap_or(u16::MAX),
        ageing: ctx.settings.worker.ageing,
    };
    let taken = in_time("lease due runs", async {
        let mut conn =
            ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
        view.take(&mut conn, how).await
    });
    let taken = taken.await?;
    let leased = taken.runs;
    let full = leased.len() == places.len();
    if !leased.is_empty() {
        measure(worker, &leased);
    }
    let pause = if full {
        None
    } else {
        let longest = if ctx.streams.is_up() { POLL } else { POLL_WITHOUT_REDIS };
        Some(taken.next_in.unwrap_or(longest).clamp(POLL_MIN, longest))
    };
    tell::started(worker, &leased);
    // All of the batch are held before the first begins: a lease whose held runs are over is ended.
    let held: Vec<_> = leased.iter().map(|run| worker.holding.add(run.lease)).collect();
    worker.busy.notify_one();
    for ((run, held), place) in leased.into_iter().zip(held).zip(places) {
        going.spawn(work(Arc::clone(worker), held, run, place));
    }
    Ok(pause)
}

/// Works on a leased run until its end, or its way back to the queue, is durable.
async fn work(worker: Arc<Worker>, held: Arc<Held>, run: Leased, place: Place) {
    let subject = tell::Subject::of(&run);
    let began = tokio::time::Instant::now();
    worker.ctx.metrics.worker().active.inc();
    let write = perform(&worker, &held, run).await;
    worker.ctx.metrics.worker().active.dec();
    let took = began.elapsed();
    drop(place.slot);
    if let Some(write) = write {
        let (written, write) = worker.committer.write(write).await;
        if let Some(write) = write {
            follow_up(&worker, &subject, &write, written, took).await;
        }
    } else {
        worker.holding.ended(&[held.lease]);
        tell::lost(&worker.ctx, &subject);
    }
    worker.holding.remove(held.lease);
    drop(place.unwritten);
}

/// What follows from a run's end, or its way back to the queue.
async fn follow_up(
    worker: &Worker,
    subject: &tell::Subject,
    write: &Write,
    written: Written,
    took: Duration,
) {
    if matches!(write, Write::Requeue(_)) {
        worker.again.notify_one();
    }
    tell::ended(worker, subject, write, written, took).await;
    if written == Written::Done
        && let Some(ended) = subject.ended(write)
    {
        after::ended(&worker.ctx, &ended).await;
    }
}

fn measure(worker: &Worker, leased: &[Leased]) {
    let metrics = worker.ctx.metrics.worker();
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    metrics.lease_batch.observe(leased.len() as f64);
    for run in leased {
        match run.past {
            Past::Fresh => metrics.pickup_seconds.observe(run.waited.as_secs_f64()),
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
async fn drain(worker: &Worker, mut going: JoinSet<()>) {
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
