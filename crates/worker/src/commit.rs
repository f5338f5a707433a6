//! Group commit: what many runs have to write goes to Postgres in one transaction.
//!
//! While one transaction is on, the next batch gathers; a lone write goes at once. Every write is
//! answered, so that a run's lease is kept until its result is durable. A database that is away is
//! waited for: nothing is dropped. A write that the database refuses does not take its neighbours
//! with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use orchestrator_boot::{Context, Outage};
use orchestrator_engine::id::{LeaseToken, RunId};
use orchestrator_engine::run::{RunError, RunStatus, StepRecord};
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::queue::{self, Finished, Lease, Requeued};
use serde_json::Value;
use sqlx::PgConnection;
use tokio::sync::{mpsc, oneshot};

use crate::held::Holding;
use crate::in_time;

/// The most writes of one transaction.
const BATCH: usize = 500;
/// Writes that may wait for their transaction; beyond that, runs wait before they go on.
const WAITING_MAX: usize = 2_000;

/// One thing to write.
#[derive(Clone, Debug)]
pub enum Write {
    /// Steps of a run that goes on.
    Checkpoint(Lease, Vec<StepRecord>),
    /// The run goes back to the queue for another try.
    Requeue(Requeued),
    /// The run goes back to the queue, as if it had not been taken.
    Release(Lease, Vec<StepRecord>),
    /// The end of the run.
    Finish(Finished),
}

impl Write {
    fn lease(&self) -> Lease {
        match self {
            Self::Checkpoint(lease, _) | Self::Release(lease, _) => *lease,
            Self::Requeue(requeued) => requeued.lease,
            Self::Finish(finished) => finished.lease,
        }
    }

    /// Whether the worker lets go of the run with it.
    fn is_last(&self) -> bool {
        !matches!(self, Self::Checkpoint(..))
    }

    fn records_mut(&mut self) -> &mut Vec<StepRecord> {
        match self {
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
    answer: oneshot::Sender<(Written, Write)>,
}

/// The door to the committer. Clones share it; it ends when the last is dropped.
#[derive(Clone)]
pub struct Committer(mpsc::Sender<Waiting>);

impl Committer {
    /// Starts the task that writes.
    #[must_use]
    pub fn start(ctx: Context, holding: Arc<Holding>) -> (Self, tokio::task::JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writer = Writer { ctx, holding };
        (Self(sender), tokio::spawn(async move { writer.commit_all(receiver).await }))
    }

    /// Writes, and waits until it is durable. Gives back what was written in the end;
    /// [`Written::Refused`] and nothing when the worker is gone.
    pub async fn write(&self, write: Write) -> (Written, Option<Write>) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(Waiting { write, answer }).await.is_err() {
            return (Written::Refused, None);
        }
        match answered.await {
            Ok((written, write)) => (written, Some(write)),
            Err(_) => (Written::Refused, None),
        }
    }
}

/// The task that writes.
struct Writer {
    ctx: Context,
    holding: Arc<Holding>,
}

impl Writer {
    async fn commit_all(&self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let metrics = self.ctx.metrics.worker();
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            metrics.commit_batch.observe(batch.len() as f64);
            let (mut writes, answers): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|one| (one.write, one.answer)).unzip();
            let written = self.commit(&mut writes).await;
            let stale = written.iter().filter(|written| **written == Written::Stale).count();
            metrics.stale_tokens.inc_by(stale as u64);
            for ((answer, written), write) in answers.into_iter().zip(written).zip(writes) {
                answer.send((written, write)).ok(); // whoever asked may be gone
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
            finished.records = Vec::new();
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
            match in_time("write results", groups.write(&self.ctx)).await {
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
    checkpoints: Vec<(Lease, Vec<StepRecord>)>,
    requeued: Vec<Requeued>,
    released: Vec<Lease>,
    finished: Vec<&'a Finished>,
    /// The leases of whose runs none is left then.
    over: Vec<LeaseToken>,
}

impl<'a> Groups<'a> {
    fn of(writes: &'a [Write], over: Vec<LeaseToken>) -> Self {
        let mut groups = Self { over, ..Self::default() };
        let mut steps: HashMap<Lease, Vec<StepRecord>> = HashMap::new();
        for write in writes {
            match write {
                Write::Checkpoint(lease, records) => {
                    merge(steps.entry(*lease).or_default(), records);
                }
                Write::Release(lease, records) => {
                    merge(steps.entry(*lease).or_default(), records);
                    groups.released.push(*lease);
                }
                Write::Requeue(requeued) => {
                    // Its records go with the others: one statement writes a row only once.
                    merge(steps.entry(requeued.lease).or_default(), &requeued.records);
                    groups.requeued.push(Requeued { records: Vec::new(), ..requeued.clone() });
                }
                Write::Finish(finished) => groups.finished.push(finished),
            }
        }
        groups.checkpoints = steps.into_iter().collect();
        groups
    }

    async fn write(&self, ctx: &Context) -> Result<HashSet<RunId>, StoreError> {
        let kinds = [
            !self.checkpoints.is_empty(),
            !self.requeued.is_empty(),
            !self.released.is_empty(),
            !self.finished.is_empty(),
        ];
        // One statement is a transaction by itself; its begin and commit would be two more trips.
        let is_one = kinds.iter().filter(|there| **there).count() == 1;
        if is_one && (!self.finished.is_empty() || self.over.is_empty()) {
            let mut conn =
                ctx.pool.acquire().await.map_err(StoreError::while_trying("reach the database"))?;
            return self.write_on(&mut conn).await;
        }
        let mut tx = ctx.pool.begin().await.map_err(StoreError::while_trying("begin to commit"))?;
        let held = self.write_on(&mut tx).await?;
        tx.commit().await.map_err(StoreError::while_trying("commit results"))?;
        Ok(held)
    }

    async fn write_on(&self, conn: &mut PgConnection) -> Result<HashSet<RunId>, StoreError> {
        let mut held = HashSet::new();
        if !self.checkpoints.is_empty() {
            held.extend(queue::checkpoint(conn, &self.checkpoints).await?);
        }
        if !self.requeued.is_empty() {
            held.extend(queue::requeue(conn, &self.requeued).await?);
        }
        if !self.released.is_empty() {
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

/// Adds `more` to `records`; of two words about one attempt at one step, the later counts.
fn merge(records: &mut Vec<StepRecord>, more: &[StepRecord]) {
    for record in more {
        let same = |one: &&mut StepRecord| one.path == record.path && one.attempt == record.attempt;
        match records.iter_mut().find(same) {
            Some(earlier) => *earlier = record.clone(),
            None => records.push(record.clone()),
        }
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
    for record in write.records_mut() {
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
