//! Group commit: what many runs have to write goes to Postgres in one transaction.
//!
//! While a transaction is on, the next batch gathers; a lone write goes at once. A few transactions may
//! be on at a time, but all writes under one lease go the same way, one after the other. Every write is
//! answered, so that a run's lease is kept until its result is durable. A database that is away is
//! waited for: nothing is dropped. A write that the database refuses does not take its neighbours
//! with it.

use std::collections::HashSet;
use std::sync::Arc;

use orchestrator_boot::{Context, KeptConnection, Outage};
use orchestrator_engine::id::{LeaseToken, RunId};
use orchestrator_engine::run::{RunError, RunStatus};
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::queue::{self, Finished, Lease, Requeued, Sealed};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::held::Holding;
use crate::settle::Ending;
use crate::{in_time, settle};

/// The most writes of one transaction.
const BATCH: usize = 500;
/// Writes that may wait for their transaction; beyond that, runs wait before they go on.
const WAITING_MAX: usize = 1_000;
/// How many transactions may be on at a time: while one waits for the disk, another can be worked on.
const LANES: usize = 3;

/// One thing to write.
#[derive(Clone, Debug)]
pub enum Write {
    /// That a run leased ahead is begun.
    Begin(Lease),
    /// Steps of a run that goes on.
    Checkpoint(Lease, Vec<Sealed>),
    /// The run was leased ahead and not begun: somebody else may have it.
    PutBack(Lease),
    /// The run goes back to the queue for another try.
    Requeue(Requeued),
    /// The run goes back to the queue, as if it had not been taken.
    Release(Lease, Vec<Sealed>),
    /// The end of the run.
    Finish(Finished),
}

impl Write {
    fn lease(&self) -> Lease {
        match self {
            Self::Begin(lease)
            | Self::PutBack(lease)
            | Self::Checkpoint(lease, _)
            | Self::Release(lease, _) => *lease,
            Self::Requeue(requeued) => requeued.lease,
            Self::Finish(finished) => finished.lease,
        }
    }

    /// Whether the worker lets go of the run with it.
    fn is_last(&self) -> bool {
        !matches!(self, Self::Begin(_) | Self::Checkpoint(..))
    }

    /// The steps in it.
    pub fn into_records(self) -> Vec<Sealed> {
        match self {
            Self::Begin(_) | Self::PutBack(_) => Vec::new(),
            Self::Checkpoint(_, records) | Self::Release(_, records) => records,
            Self::Requeue(requeued) => requeued.records,
            Self::Finish(finished) => finished.records,
        }
    }

    /// The steps in it.
    pub fn records(&self) -> &[Sealed] {
        match self {
            Self::Begin(_) | Self::PutBack(_) => &[],
            Self::Checkpoint(_, records) | Self::Release(_, records) => records,
            Self::Requeue(requeued) => &requeued.records,
            Self::Finish(finished) => &finished.records,
        }
    }

    fn records_mut(&mut self) -> &mut [Sealed] {
        match self {
            Self::Begin(_) | Self::PutBack(_) => &mut [],
            Self::Checkpoint(_, records) | Self::Release(_, records) => records,
            Self::Requeue(requeued) => &mut requeued.records,
            Self::Finish(finished) => &mut finished.records,
        }
    }
}

/// What became of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable.
    Done,
    /// The lease was lost: nothing was written.
    Stale,
    /// The database refuses it, whatever we do: nothing was written.
    Refused,
}

struct Waiting {
    write: Write,
    then: Then,
}

/// What is to follow when a write is durable, or known not to be.
enum Then {
    /// Whoever asked is told.
    Answer(oneshot::Sender<(Written, Write)>),
    /// The worker is through with the run.
    Settle(Ending),
}

/// The door to the committer, which ends when it is dropped.
pub struct Committer([mpsc::Sender<Waiting>; LANES]);

impl Committer {
    /// Starts the tasks that write.
    #[must_use]
    pub fn start(ctx: &Context, holding: &Arc<Holding>) -> (Self, JoinSet<()>) {
        let mut writing = JoinSet::new();
        let lanes = std::array::from_fn(|_| {
            let (sender, receiver) = mpsc::channel(WAITING_MAX);
            let conn = KeptConnection::new(ctx.pool.clone());
            let writer = Writer { ctx: ctx.clone(), conn, holding: Arc::clone(holding) };
            writing.spawn(async move { writer.commit_all(receiver).await });
            sender
        });
        (Self(lanes), writing)
    }

    /// Leaves it to whoever writes for its lease; `false` when the worker is gone.
    async fn send(&self, waiting: Waiting) -> bool {
        let token = waiting.write.lease().token.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "which is all the same"
        )]
        let lane = token as usize % LANES;
        self.0[lane].send(waiting).await.is_ok()
    }

    /// Writes, and waits until it is durable. Gives back what was written in the end;
    /// [`Written::Refused`] and nothing when the worker is gone.
    pub async fn write(&self, write: Write) -> (Written, Option<Write>) {
        let (answer, answered) = oneshot::channel();
        if !self.send(Waiting { write, then: Then::Answer(answer) }).await {
            return (Written::Refused, None);
        }
        match answered.await {
            Ok((written, write)) => (written, Some(write)),
            Err(_) => (Written::Refused, None),
        }
    }

    /// Leaves the last write about a run, and what follows from it, to the committer. Waits only while
    /// too much is waiting already.
    pub async fn hand_over(&self, write: Write, ending: Ending) {
        self.send(Waiting { write, then: Then::Settle(ending) }).await;
    }
}

/// The task that writes.
struct Writer {
    ctx: Context,
    conn: KeptConnection,
    holding: Arc<Holding>,
}

impl Writer {
    async fn commit_all(&self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                count = waiting.recv_many(&mut batch, BATCH) => if count == 0 { break },
                () = self.conn.rest() => continue,
            }
            let metrics = self.ctx.metrics.worker();
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            metrics.commit_batch.observe(batch.len() as f64);
            let (mut writes, thens): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|one| (one.write, one.then)).unzip();
            let written = self.commit(&mut writes).await;
            let stale = written.iter().filter(|written| **written == Written::Stale).count();
            metrics.stale_tokens.inc_by(stale as u64);
            let mut ended = Vec::new();
            for ((then, written), write) in thens.into_iter().zip(written).zip(writes) {
                match then {
                    Then::Answer(answer) => drop(answer.send((written, write))), // whoever asked may be gone
                    Then::Settle(ending) => ended.push((ending, write, written)),
                }
            }
            if !ended.is_empty() {
                tokio::spawn(settle::all(ended));
            }
        }
    }

    /// Writes a batch, waiting for the database as long as it takes; writes that it refuses are tried
    /// alone, so that only they fail.
    async fn commit(&self, writes: &mut [Write]) -> Vec<Written> {
        match self.commit_together(writes).await {
            Ok(held) => answers(writes, &held),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a batch of {} writes was refused; each is tried alone",
                    writes.len()
                );
                let mut written = Vec::with_capacity(writes.len());
                for one in writes.iter_mut() {
                    written.push(self.commit_alone(one).await);
                }
                written
            }
        }
    }

    /// Writes one thing as well as it can be: as it is; without what Postgres cannot keep; and a
    /// result, at last, as a failure that says so.
    async fn commit_alone(&self, write: &mut Write) -> Written {
        if let Ok(written) = self.try_alone(write).await {
            return written;
        }
        strip_nul(write);
        match self.try_alone(write).await {
            Ok(written) => return written,
            Err(error) => tracing::error!(
                run.id = %write.lease().run_id, error = &error as &dyn std::error::Error,
                "the database refuses what a run has to write"
            ),
        }
        if let Write::Finish(finished) = write {
            finished.status = RunStatus::Failed;
            finished.output = None;
            for record in finished.records.iter_mut().map(Sealed::unseal) {
                (record.input, record.output) = (None, None);
            }
            finished.error = Some(RunError {
                kind: "output".to_owned(),
                message: "the result could not be stored".to_owned(),
                step: None,
            });
            if let Ok(written) = self.try_alone(write).await {
                return written;
            }
        }
        Written::Refused
    }

    async fn try_alone(&self, write: &Write) -> Result<Written, StoreError> {
        let one = std::slice::from_ref(write);
        let held = self.commit_together(one).await?;
        Ok(answers(one, &held)[0])
    }

    /// Writes all in one transaction; returns the runs whose leases held. Fails only for what is
    /// wrong with the writes: a database that is away is waited for.
    async fn commit_together(&self, writes: &[Write]) -> Result<HashSet<RunId>, StoreError> {
        let last: Vec<_> =
            writes.iter().filter(|write| write.is_last()).map(Write::lease).collect();
        let groups = Groups::of(writes, self.holding.over_with(&last));
        let mut outage = Outage::new("write results");
        loop {
            match in_time("write results", self.conn.with(async |conn| groups.write(conn).await))
                .await
            {
                Ok(held) => {
                    outage.over();
                    self.holding.ended(&last);
                    return Ok(held);
                }
                Err(error) if error.is_transient() => {
                    self.ctx.metrics.worker().errors.with_label_values(&["database"]).inc();
                    tokio::time::sleep(outage.pause_after(&error)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn answers(writes: &[Write], held: &HashSet<RunId>) -> Vec<Written> {
    let answer = |write: &Write| {
        if held.contains(&write.lease().run_id) { Written::Done } else { Written::Stale }
    };
    writes.iter().map(answer).collect()
}

/// The writes of a batch by statement.
#[derive(Default)]
struct Groups<'a> {
    begun: Vec<Lease>,
    checkpoints: Vec<(Lease, Vec<&'a Sealed>)>,
    put_back: Vec<Lease>,
    requeued: Vec<&'a Requeued>,
    released: Vec<Lease>,
    /// The steps of those.
    kept: Vec<(Lease, Vec<&'a Sealed>)>,
    finished: Vec<&'a Finished>,
    /// The leases of whose runs none is left then.
    over: Vec<LeaseToken>,
}

impl<'a> Groups<'a> {
    fn of(writes: &'a [Write], over: Vec<LeaseToken>) -> Self {
        let mut groups = Self { over, ..Self::default() };
        for write in writes {
            match write {
                Write::Begin(lease) => groups.begun.push(*lease),
                Write::Checkpoint(lease, records) => {
                    groups.checkpoints.push((*lease, records.iter().collect()));
                }
                Write::PutBack(lease) => groups.put_back.push(*lease),
                Write::Release(lease, records) => {
                    groups.kept.push((*lease, records.iter().collect()));
                    groups.released.push(*lease);
                }
                Write::Requeue(requeued) => groups.requeued.push(requeued),
                Write::Finish(finished) => groups.finished.push(finished),
            }
        }
        groups
    }

    async fn write(&self, conn: &mut PgConnection) -> Result<HashSet<RunId>, StoreError> {
        // One statement is a transaction by itself; its begin and commit would be two more trips.
        let others = !self.put_back.is_empty()
            || !self.requeued.is_empty()
            || !self.released.is_empty()
            || (self.finished.is_empty() && !self.over.is_empty());
        let single =
            [&self.begun.is_empty(), &self.checkpoints.is_empty(), &self.finished.is_empty()];
        if !others && single.iter().filter(|empty| !***empty).count() == 1 {
            return self.write_on(conn).await;
        }
        let mut tx = conn.begin().await.map_err(StoreError::while_trying("begin to commit"))?;
        let held = self.write_on(&mut tx).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit results"))?;
        Ok(held)
    }

    async fn write_on(&self, conn: &mut PgConnection) -> Result<HashSet<RunId>, StoreError> {
        let mut held = HashSet::new();
        if !self.begun.is_empty() {
            held.extend(queue::begin(conn, &self.begun).await?);
        }
        if !self.checkpoints.is_empty() {
            held.extend(queue::checkpoint(conn, &self.checkpoints).await?);
        }
        if !self.put_back.is_empty() {
            queue::put_back(conn, &self.put_back).await?;
            held.extend(self.put_back.iter().map(|lease| lease.run_id)); // there is nothing to lose
        }
        if !self.requeued.is_empty() {
            held.extend(queue::requeue(conn, &self.requeued).await?);
        }
        if !self.released.is_empty() {
            held.extend(queue::keep_steps(conn, &self.kept).await?);
            queue::release(conn, &self.released).await?;
        }
        if !self.finished.is_empty() {
            held.extend(queue::finish(conn, &self.finished, &self.over).await?);
        } else if !self.over.is_empty() {
            queue::end_leases(conn, &self.over).await?;
        }
        Ok(held)
    }
}

/// Removes NUL characters, which JSON may hold and Postgres does not keep.
fn strip_nul(write: &mut Write) {
    if let Write::Finish(finished) = write {
        finished.output.iter_mut().for_each(strip_nul_value);
        if let Some(error) = &mut finished.error {
            error.message = error.message.replace('\0', "");
        }
    }
    for record in write.records_mut().iter_mut().map(Sealed::unseal) {
        record.input.iter_mut().for_each(strip_nul_value);
        record.output.iter_mut().for_each(strip_nul_value);
        if let Some(error) = &mut record.error {
            error.message = error.message.replace('\0', "");
        }
    }
}

fn strip_nul_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace('\0', ""),
        Value::Array(items) => items.iter_mut().for_each(strip_nul_value),
        Value::Object(fields) => {
            if fields.keys().any(|name| name.contains('\0')) {
                *fields = std::mem::take(fields)
                    .into_iter()
                    .map(|(name, value)| (name.replace('\0', ""), value))
                    .collect();
            }
            fields.values_mut().for_each(strip_nul_value);
        }
        _ => {}
    }
}
