//! Telling what became of runs: to metrics, to the log, and to whoever watches.

use std::time::Duration;

use orchestrator_boot::Context;
use orchestrator_engine::id::{AgentId, RunId, TaskId};
use orchestrator_engine::run::{RunStatus, StepStatus};
use orchestrator_engine::store::queue::{Leased, Sealed};
use orchestrator_engine::streams::Lifecycle;

use crate::Worker;
use crate::after::Ended;
use crate::commit::{Write, Written};

/// Which run is spoken of.
pub(crate) struct Subject {
    run: RunId,
    task: Option<TaskId>,
    agent: AgentId,
    attempt: i32,
    serial: bool,
    concurrency_key: Option<String>,
    resumed_after: Duration,
}

impl Subject {
    pub(crate) fn of(run: &Leased) -> Self {
        Self {
            run: run.lease.run_id,
            task: run.info.task_id,
            agent: run.agent_id,
            attempt: run.info.attempt,
            serial: run.serial,
            concurrency_key: run.concurrency_key.clone(),
            resumed_after: run.waited,
        }
    }

    /// The run of a task that ended for good with `write`.
    pub(crate) fn ended(&self, write: &Write) -> Option<Ended> {
        let (Write::Finish(finished), Some(task)) = (write, self.task) else { return None };
        Some(Ended {
            run: self.run,
            task,
            agent: self.agent,
            status: finished.status,
            serial: self.serial,
            concurrency_key: self.concurrency_key.clone(),
        })
    }

    fn lifecycle(&self, ctx: &Context, kind: &'static str) -> Lifecycle {
        Lifecycle {
            kind,
            agent_id: self.agent,
            task_id: self.task,
            run_id: Some(self.run),
            at: ctx.clock.now(),
        }
    }
}

/// Runs were leased and begin now.
pub(crate) fn started(worker: &Worker, leased: &[Leased]) {
    for run in leased {
        worker.teller.tell(|| Subject::of(run).lifecycle(&worker.ctx, "run.started"));
    }
}

/// An attempt ended with `write`, which took `took` and was `written`.
pub(crate) fn ended(
    worker: &Worker,
    subject: &Subject,
    write: &Write,
    written: Written,
    took: Duration,
) {
    let ctx = &worker.ctx;
    match written {
        Written::Done => {}
        Written::Stale => return lost(ctx, subject),
        Written::Refused => {
            tracing::error!(run.id = %subject.run, "what became of the run could not be written; it will be tried again when the lease has lapsed");
            return;
        }
    }
    let metrics = ctx.metrics.worker();
    metrics.attempt_seconds.observe(took.as_secs_f64());
    let kind = match write {
        Write::Begin(_) | Write::Checkpoint(..) | Write::PutBack(_) => return,
        Write::Release(_, records) => {
            steps(ctx, records);
            metrics.leases_returned.inc();
            "run.released"
        }
        Write::Requeue(requeued) => {
            steps(ctx, &requeued.records);
            tracing::warn!(
                run.id = %subject.run, attempt = subject.attempt, error.kind = requeued.error.kind,
                wait_s = requeued.delay.as_secs_f64(),
                "run {} will be tried again in {:.1} s: {}",
                subject.run, requeued.delay.as_secs_f64(), requeued.error.message
            );
            "run.retrying"
        }
        Write::Finish(finished) => {
            steps(ctx, &finished.records);
            metrics.run_seconds.observe((took + subject.resumed_after).as_secs_f64());
            let status = finished.status;
            ctx.metrics.process().runs_finished.with_label_values(&[status.as_str()]).inc();
            if let Some(error) = &finished.error {
                tracing::warn!(
                    run.id = %subject.run, attempt = subject.attempt, error.kind = error.kind,
                    step = error.step, "run {} {status}: {}", subject.run, error.message
                );
            }
            match status {
                RunStatus::Succeeded => "run.succeeded",
                RunStatus::Canceled => "run.canceled",
                RunStatus::Expired => "run.expired",
                _ => "run.failed",
            }
        }
    };
    worker.teller.tell(|| subject.lifecycle(ctx, kind));
}

/// Another worker has the run: what this one did is dropped.
pub(crate) fn lost(ctx: &Context, subject: &Subject) {
    ctx.metrics.worker().errors.with_label_values(&["lease_lost"]).inc();
    tracing::warn!(run.id = %subject.run, attempt = subject.attempt,
        "the lease was lost: another worker has the run, or it has ended");
}

/// Counts the steps that ended, and what language models charged.
pub(crate) fn steps(ctx: &Context, records: &[Sealed]) {
    let metrics = ctx.metrics.worker();
    for record in records.iter().filter(|record| record.status != StepStatus::Running) {
        let tool = record.uses.as_deref().unwrap_or("control");
        metrics.steps.with_label_values(&[tool, record.status.as_str()]).inc();
        if tool != "llm.chat" {
            continue;
        }
        let usage = record.output.as_ref().and_then(|output| output.get("usage"));
        for (kind, field) in [("input", "prompt_tokens"), ("output", "completion_tokens")] {
            let tokens = usage.and_then(|usage| usage.get(field)?.as_u64()).unwrap_or(0);
            metrics.llm_tokens.with_label_values(&[kind]).inc_by(tokens);
        }
    }
}
