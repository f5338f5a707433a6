//! The worker's loop: takes due work for its free slots, and, when told to stop, gives back what it
//! cannot finish in a moment.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_boot::Outage;
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::queue::{Leased, Past, QueueView, Take};
use orchestrator_engine::streams::WORK;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::commit::{Write, Written};
use crate::held::Why;
use crate::perform::perform;
use crate::{Worker, after, tell};

/// The longest sleep while Redis tells of new work; a hint may be lost all the same.
const POLL: Duration = Duration::from_secs(5);
/// The longest sleep while Redis is away.
const POLL_WITHOUT_REDIS: Duration = Duration::from_secs(1);
/// The shortest sleep before a look that has no hint: rows that another worker is taking look due.
const POLL_MIN: Duration = Duration::from_millis(10);
/// How long runs may go on after `stop` before they are interrupted and given back.
const DRAIN: Duration = Duration::from_secs(1);
/// With more work than slots, how long slots that become free are gathered for one statement. A run
/// that finds a free slot is not delayed by it.
const GATHER: Duration = Duration::from_millis(2);

/// Takes due work and runs it until `stop`; returns when every run has ended or was given back.
pub(crate) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let slots = usize::from(worker.ctx.settings.worker.concurrency);
    let free = Arc::new(Semaphore::new(slots));
    let mut going = JoinSet::new();
    let wake = worker.ctx.streams.listen(WORK, stop.clone());
    let mut outage = Outage::new("lease work");
    let mut view = QueueView::default();
    let mut is_backlog = false;
    while !stop.is_cancelled() {
        // One permit in hand: there is room for at least one run. A hint heard while there is none
        // may still be about a run that is on and to be canceled.
        let first = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&free).acquire_owned() => permit,
            () = wake.heard() => {
                worker.look.notify_one();
                continue;
            }
        };
        let Ok(first) = first else { break };
        if is_backlog {
            tokio::time::sleep(GATHER).await;
        }
        let mut permits = vec![first];
        while let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
            permits.push(permit);
        }
        let pause = match take(&worker, &mut view, permits, &mut going).await {
            Ok(pause) => {
                outage.over();
                pause
            }
            Err(error) => Some(outage.pause_after(&error)),
        };
        while going.try_join_next().is_some() {}
        is_backlog = pause.is_none();
        let Some(pause) = pause else { continue };
        tokio::select! {
            () = stop.cancelled() => {}
            () = wake.heard() => worker.look.notify_one(),
            () = worker.again.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    drain(&worker, going).await;
}

/// Leases for the permits in hand and starts what it gets. Returns how long to sleep, or `None` when
/// there may be more at once.
async fn take(
    worker: &Arc<Worker>,
    view: &mut QueueView,
    mut permits: Vec<OwnedSemaphorePermit>,
    going: &mut JoinSet<()>,
) -> Result<Option<Duration>, StoreError> {
    let ctx = &worker.ctx;
    let mut conn =
        ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
    let taken = view
        .take(
            &mut conn,
            Take {
                worker: ctx.process_id,
                duration: ctx.settings.worker.lease,
                wanted: u16::try_from(permits.len()).unwrap_or(u16::MAX),
                ageing: ctx.settings.worker.ageing,
            },
        )
        .await?;
    let leased = taken.runs;
    let full = leased.len() == permits.len();
    if !leased.is_empty() {
        measure(worker, &leased);
    }
    let pause = if full {
        None
    } else {
        let longest = if ctx.streams.is_up() { POLL } else { POLL_WITHOUT_REDIS };
        Some(taken.next_in.unwrap_or(longest).clamp(POLL_MIN, longest))
    };
    drop(conn);
    tell::started(ctx, &leased);
    for run in leased {
        let permit = permits.pop();
        let held = worker.holding.add(run.lease);
        worker.busy.notify_one();
        let worker = Arc::clone(worker);
        going.spawn(async move {
            let subject = tell::Subject::of(&run);
            let began = tokio::time::Instant::now();
            worker.ctx.metrics.worker().active.inc();
            let write = perform(&worker, &held, run).await;
            worker.ctx.metrics.worker().active.dec();
            match write {
                Some(write) => {
                    let written = worker.committer.write(write.clone()).await;
                    if matches!(write, Write::Requeue(_)) {
                        worker.again.notify_one();
                    }
                    tell::ended(&worker.ctx, &subject, &write, written, began.elapsed()).await;
                    if written == Written::Done
                        && let Some(ended) = subject.ended(&write)
                    {
                        after::ended(&worker.ctx, &ended).await;
                    }
                }
                None => {
                    worker.holding.ended(&[held.lease]);
                    tell::lost(&worker.ctx, &subject);
                }
            }
            worker.holding.remove(held.lease);
            // Slot and lease are kept until the result is durable: what a slow database has not yet
            // taken is never more than the slots.
            drop(permit);
        });
    }
    Ok(pause)
}

fn measure(worker: &Worker, leased: &[Leased]) {
    let metrics = worker.ctx.metrics.worker();
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    metrics.lease_batch.observe(leased.len() as f64);
    for run in leased {
        metrics.pickup_seconds.observe(run.waited.as_secs_f64());
        if run.past == Past::Lapsed {
            tracing::warn!(run.id = %run.lease.run_id, attempt = run.info.attempt,
                "a run is taken over: its worker was lost");
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
