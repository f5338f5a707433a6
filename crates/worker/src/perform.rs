//! Working on one run: from its lease to what is to be written about it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use orchestrator_engine::agent::grants;
use orchestrator_engine::id::{self, AgentId};
use orchestrator_engine::metrics::REASONS;
use orchestrator_engine::pipeline::{
    self, Journal, JournalError, Outcome, Retry, RunContext, backoff,
};
use orchestrator_engine::run::{RunError, RunStatus, StepRecord, StepStatus};
use orchestrator_engine::store::queue::{Finished, Lease, Leased, Past, Requeued, Sealed};
use orchestrator_engine::store::{StoreError, agent, execution, reach};
use rand::RngExt as _;
use serde_json::Value;
use tracing::Instrument as _;

use crate::commit::{Write, Written};
use crate::definitions::{Definition, DefinitionError};
use crate::held::{Held, Why};
use crate::slot::Slot;
use crate::trace::{self, TracedTools};
use crate::{Worker, in_time};

/// How long a run waits before it is tried again after the database failed under it.
const AFTER_OUTAGE: Duration = Duration::from_secs(1);

/// Works on `run` and says what is to be written; `None` when another worker has it.
pub(crate) async fn perform(
    worker: &Worker,
    held: &Arc<Held>,
    slot: &Slot,
    run: Leased,
) -> Option<Write> {
    let Some(traced) = worker.tracer.begin(&worker.ctx, &run) else {
        return caught(worker, held, slot, run).await;
    };
    let around = trace::log_span(&run);
    let write = caught(worker, held, slot, run).instrument(around).await;
    match &write {
        Some(write) => traced.steps(&worker.ctx, write.records()),
        None => worker.tracer.end(&worker.ctx, held.lease, "lease_lost", Some("lease_lost".into())),
    }
    write
}

async fn caught(worker: &Worker, held: &Arc<Held>, slot: &Slot, run: Leased) -> Option<Write> {
    let lease = run.lease;
    // Boxed because it is large and would be moved about.
    let attempt = Box::pin(attempt(worker, held, slot, run));
    let caught = AssertUnwindSafe(attempt).catch_unwind().await;
    caught.unwrap_or_else(|_| {
        tracing::error!(run.id = %lease.run_id, "a run made the worker panic");
        let why = "the worker failed while working on the run; this is its fault";
        Some(without_steps(worker, held, RunStatus::Failed, "panic", why))
    })
}

async fn attempt(worker: &Worker, held: &Arc<Held>, slot: &Slot, mut run: Leased) -> Option<Write> {
    let lease = run.lease;
    if run.cancel_requested {
        return Some(canceled(worker, held, Vec::new()));
    }
    if run.expired {
        let why = "it was not started in time (expires_after_seconds)";
        return Some(without_steps(worker, held, RunStatus::Expired, "expired", why));
    }
    if let Some(why) = &run.unreadable {
        return Some(without_steps(worker, held, RunStatus::Failed, "input", why));
    }
    // What brought a worker down before may do so again: from now on its attempts count.
    if run.ahead && run.past != Past::Fresh && !begin(worker, lease).await {
        return None;
    }
    let definition = match worker.definitions.get(&worker.ctx.pool, &run).await {
        Ok(definition) => definition,
        Err(DefinitionError::Store(error)) if error.is_transient() => {
            return Some(after_outage(held, &error));
        }
        Err(error) => {
            let why = error.to_string();
            return Some(without_steps(worker, held, RunStatus::Failed, "definition", &why));
        }
    };
    if run.ahead
        && run.past == Past::Fresh
        && !definition.is_harmless
        && !begin(worker, lease).await
    {
        return None;
    }
    if definition.asks_for_scopes {
        match missing_scope(worker, run.agent_id, &definition).await {
            Ok(None) => {}
            Ok(Some(scope)) => {
                let why =
                    format!("needs the scope {scope}, which the owner of the run does not have");
                return Some(without_steps(worker, held, RunStatus::Failed, "refused", &why));
            }
            Err(error) => return Some(not_begun(worker, held, &error)),
        }
    }
    let mut prepared = match prepare(worker, &mut run, &definition).await {
        Ok(prepared) => prepared,
        Err(error) => return Some(not_begun(worker, held, &error)),
    };
    if run.info.attempt > definition.max_attempts {
        let error = fault(
            "lease_lost",
            &format!("its worker was lost in the last of {} attempts", definition.max_attempts),
        );
        let records = prepared.interrupted;
        let end = finished(worker, held, RunStatus::Failed, Some(error), records);
        return Some(Write::Finish(Finished { in_attempt: false, ..end }));
    }
    let unsent = std::mem::take(&mut prepared.interrupted);
    let journal = RunJournal {
        worker,
        held,
        slot: definition.is_harmless.then_some(slot),
        records: Mutex::new(Records { kept: Vec::new(), unsent }),
    };
    let outcome = run_attempt(worker, held, &definition, prepared.context, &journal).await;
    if definition.is_harmless {
        worker.pace.note();
    }
    conclude(worker, held, &definition, run.info.attempt, outcome, journal.all())
}

/// A scope that the run needs and its owner has not, or no longer.
async fn missing_scope(
    worker: &Worker,
    owner: AgentId,
    definition: &Definition,
) -> Result<Option<String>, StoreError> {
    let needed = definition.pipeline.scopes_by(|tool| {
        let catalogue = worker.catalogue.borrow();
        catalogue.iter().find(|spec| spec.address == tool)?.scope.clone()
    });
    if needed.is_empty() {
        return Ok(None);
    }
    let owner = in_time("read the scopes of an agent", async {
        let mut conn = reach(&worker.ctx.pool).await?;
        agent::get(&mut conn, &owner.to_string()).await
    })
    .await?;
    Ok(needed.into_iter().find(|scope| !grants(&owner.scopes, scope)))
}

/// Notes that a run leased ahead is begun; `false` when its lease is lost.
async fn begin(worker: &Worker, lease: Lease) -> bool {
    worker.committer.write(Write::Begin(lease)).await.0 == Written::Done
}

/// Walks the pipeline, for no longer than an attempt may take.
async fn run_attempt(
    worker: &Worker,
    held: &Arc<Held>,
    definition: &Definition,
    context: RunContext,
    journal: &RunJournal<'_>,
) -> Outcome {
    let traced = worker.tracer.find(&worker.ctx, held.lease);
    let traced = traced.map(|traced| TracedTools { tools: Arc::clone(&worker.tools), traced });
    let walk = pipeline::execute(
        &definition.pipeline,
        context,
        traced.as_ref().map_or(&*worker.tools, |tools| tools),
        journal,
        &*worker.ctx.clock,
        held.stop.clone(),
    );
    tokio::pin!(walk);
    tokio::select! {
        biased; // a run that ends at once costs no timer
        outcome = &mut walk => return outcome,
        () = tokio::time::sleep(definition.timeout) => held.stop(Why::Timeout),
    }
    walk.await
}

/// What is read before an attempt begins.
struct Prepared {
    context: RunContext,
    /// Steps that were on when an earlier worker was lost, now marked as failed.
    interrupted: Vec<Sealed>,
}

async fn prepare(
    worker: &Worker,
    run: &mut Leased,
    definition: &Definition,
) -> Result<Prepared, StoreError> {
    let asks_last = definition.pipeline.reads("last");
    let (mut records, last) = if run.past != Past::Fresh || asks_last {
        in_time("read what a run has done", read_past(worker, run, asks_last)).await?
    } else {
        (Vec::new(), None)
    };
    let mut interrupted = Vec::new();
    for record in records.iter_mut().filter(|record| record.status == StepStatus::Running) {
        record.status = StepStatus::Failed;
        record.finished_at = Some(worker.ctx.clock.now());
        record.error = Some(RunError {
            step: Some(record.path.clone()),
            ..fault("lease_lost", "its worker was lost while the step was on")
        });
        interrupted.push(Sealed::now(record.clone()));
    }
    let params = match run.params.take() {
        Some(Value::Object(params)) => params,
        _ => serde_json::Map::new(),
    };
    let context = RunContext {
        info: run.info.clone(),
        max_attempts: definition.max_attempts,
        params,
        event: run.event.take(),
        last,
        secrets: Arc::clone(&worker.secrets),
        records,
        data_max_bytes: worker.ctx.settings.run_data_max_bytes,
        jitter: id::rng().random(),
    };
    Ok(Prepared { context, interrupted })
}

/// The steps that were done in earlier attempts, and how the run of the task before went.
async fn read_past(
    worker: &Worker,
    run: &Leased,
    asks_last: bool,
) -> Result<(Vec<StepRecord>, Option<Value>), StoreError> {
    let pool = &worker.ctx.pool;
    let mut conn = reach(pool).await?;
    let records = match run.past {
        Past::Fresh => Vec::new(),
        _ => execution::step_records(&mut conn, &[run.lease.run_id]).await?,
    };
    let last = match run.info.task_id {
        Some(task) if asks_last => execution::last_run(&mut conn, task).await?,
        _ => None,
    };
    Ok((records.into_iter().map(|(_, record)| record).collect(), last))
}

/// What is to be written of an attempt that ended with `outcome`.
fn conclude(
    worker: &Worker,
    held: &Arc<Held>,
    definition: &Definition,
    attempt: i32,
    outcome: Outcome,
    earlier: Vec<Sealed>,
) -> Option<Write> {
    let all = |records: Vec<StepRecord>| {
        let mut all = earlier;
        all.extend(records.into_iter().map(Sealed::from));
        all
    };
    match outcome {
        Outcome::Succeeded { output, records } => {
            let records = all(records);
            let mut end = finished(worker, held, RunStatus::Succeeded, None, records);
            end.output = Some(output);
            Some(Write::Finish(end))
        }
        Outcome::Failed { error, retry, records } => {
            Some(failed(worker, held, definition, attempt, error, retry, all(records)))
        }
        Outcome::Canceled { records } => match held.why() {
            Some(Why::LeaseLost) => None,
            Some(Why::Timeout) => {
                let error = fault(
                    "run_timeout",
                    &format!(
                        "the attempt did not end within timeout_seconds ({})",
                        definition.timeout.as_secs()
                    ),
                );
                let retry = Retry::Run { retry_after: None };
                Some(failed(worker, held, definition, attempt, error, retry, all(records)))
            }
            Some(Why::Canceled) => Some(canceled(worker, held, all(records))),
            Some(Why::Shutdown) | None => Some(Write::Release(held.lease, all(records))),
        },
        Outcome::Stopped { error: JournalError::LeaseLost } => None,
        Outcome::Stopped { error: JournalError::Unavailable(reason) } => {
            let error = fault("output", &reason);
            let records = all(Vec::new());
            Some(Write::Finish(finished(worker, held, RunStatus::Failed, Some(error), records)))
        }
    }
}

fn failed(
    worker: &Worker,
    held: &Held,
    definition: &Definition,
    attempt: i32,
    error: RunError,
    retry: Retry,
    records: Vec<Sealed>,
) -> Write {
    worker.ctx.metrics.worker().errors.with_label_values(&[reason(&error.kind)]).inc();
    let (delay, counts) = match retry {
        Retry::Step { delay } => (delay, false),
        Retry::Run { retry_after } if attempt < definition.max_attempts => {
            let wait = backoff(definition.backoff, attempt, id::rng().random());
            (wait.max(retry_after.unwrap_or_default().min(pipeline::BACKOFF_MAX)), true)
        }
        Retry::Run { .. } | Retry::Never => {
            return Write::Finish(finished(worker, held, RunStatus::Failed, Some(error), records));
        }
    };
    Write::Requeue(Requeued { lease: held.lease, delay, counts, error, records })
}

/// The label for an error's kind: kinds are ours, but labels must stay bounded whatever happens.
fn reason(kind: &str) -> &str {
    if REASONS.contains(&kind) { kind } else { "tool_failed" }
}

fn canceled(worker: &Worker, held: &Held, records: Vec<Sealed>) -> Write {
    let error = fault("canceled", "it was canceled on request");
    Write::Finish(finished(worker, held, RunStatus::Canceled, Some(error), records))
}

/// When what an attempt needs to begin could not be read: an outage passes, everything else would come again.
fn not_begun(worker: &Worker, held: &Held, error: &StoreError) -> Write {
    if error.is_transient() {
        return after_outage(held, error);
    }
    tracing::error!(
        run.id = %held.lease.run_id, error = error as &dyn std::error::Error,
        "what is known of a run cannot be read"
    );
    let why = "what is known of the run cannot be read; the log says why";
    without_steps(worker, held, RunStatus::Failed, "database", why)
}

fn after_outage(held: &Held, error: &StoreError) -> Write {
    tracing::debug!(
        run.id = %held.lease.run_id, error = error as &dyn std::error::Error,
        "a run is put back: the database failed before it began"
    );
    Write::Requeue(Requeued {
        lease: held.lease,
        delay: AFTER_OUTAGE,
        counts: false,
        error: fault("database", "the database failed before the attempt began"),
        records: Vec::new(),
    })
}

/// The end of a run that did nothing in this attempt.
fn without_steps(worker: &Worker, held: &Held, status: RunStatus, kind: &str, why: &str) -> Write {
    Write::Finish(finished(worker, held, status, Some(fault(kind, why)), Vec::new()))
}

fn finished(
    worker: &Worker,
    held: &Held,
    status: RunStatus,
    error: Option<RunError>,
    records: Vec<Sealed>,
) -> Finished {
    Finished {
        lease: held.lease,
        status,
        finished_at: worker.ctx.clock.now(),
        output: None,
        error,
        records,
        in_attempt: true,
        records_are_all: !held.has_rows,
    }
}

fn fault(kind: &str, message: &str) -> RunError {
    RunError { kind: kind.to_owned(), message: message.to_owned(), step: None }
}

/// The journal of one attempt: checkpoints go through the group commit.
struct RunJournal<'a> {
    worker: &'a Worker,
    held: &'a Arc<Held>,
    /// What a quick run leaves to others while it waits. One that calls others out there keeps its own:
    /// it might wait long for the next, with its time running.
    slot: Option<&'a Slot>,
    records: Mutex<Records>,
}

/// Step records of this attempt, but for those that the pipeline still has.
struct Records {
    /// Durable for as long as the lease lasts.
    kept: Vec<Sealed>,
    /// They go with the first checkpoint, or with the end.
    unsent: Vec<Sealed>,
}

impl RunJournal<'_> {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(self) -> Vec<Sealed> {
        let Records { mut kept, unsent } =
            self.records.into_inner().unwrap_or_else(PoisonError::into_inner);
        kept.extend(unsent);
        kept
    }
}

impl Journal for RunJournal<'_> {
    fn checkpoint(&self, records: Vec<StepRecord>) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut all = std::mem::take(&mut self.records().unsent);
        all.extend(records.into_iter().map(Sealed::now));
        async move {
            let write = Write::Checkpoint(self.held.lease, all);
            let writing = self.worker.committer.write(write);
            let (written, write) = match self.slot {
                Some(slot) => slot.leave_for(writing).await,
                None => writing.await,
            };
            self.records().kept.extend(write.into_iter().flat_map(Write::into_records));
            match written {
                Written::Done => Ok(()),
                Written::Stale => {
                    self.held.stop(Why::LeaseLost);
                    Err(JournalError::LeaseLost)
                }
                Written::Refused => {
                    Err(JournalError::Unavailable("a step's record could not be stored".to_owned()))
                }
            }
        }
        .boxed()
    }

    fn started(&self, record: &Arc<StepRecord>) {
        self.held.set_step(Some(Arc::clone(record)));
    }

    fn ended(&self) {
        self.held.set_step(None);
    }
}
