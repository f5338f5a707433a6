//! The executor: walks a pipeline, resumes it behind its checkpoints, decides what a failure means.
//!
//! Before a tool is called, everything done so far is durable. So after a crash at any point, a step
//! whose result was not yet kept is done again, and only that one.
//!
//! Which records of earlier attempts mean "done": `succeeded`, `skipped`, and a `failed` one *with an
//! output*: the executor gives a failed step an output (`{"error": …}`, what later steps see) in the
//! moment it decides that the run goes on without it. A failed record without one is tried again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::expr::EvalError;
use super::scope::error_json;
use super::step::{Called, Failure, bounded, call, shorten};
use super::{
    Condition, Handler, Journal, JournalError, Outcome, Pipeline, Redactor, Retry, RunContext,
    Scope, Step, backoff,
};
use crate::clock::Clock;
use crate::run::{RunError, RunInfo, StepRecord, StepStatus};
use crate::tool::{ToolCall, ToolCaller};

/// Runs `pipeline` to its end, or to the first step that fails for now, and says how it went.
///
/// Steps that `ctx.records` show as done are not done again. `cancel` ends the run soon: the tool
/// that is on is told to stop, and no further step begins.
pub async fn execute(
    pipeline: &Pipeline,
    ctx: RunContext,
    caller: &dyn ToolCaller,
    journal: &dyn Journal,
    clock: &dyn Clock,
    cancel: CancellationToken,
) -> Outcome {
    let mut run = Execution::new(pipeline, ctx, caller, journal, clock, cancel);
    let end = run.walk(&pipeline.steps, None, true).await;
    let records = run.pending;
    match end {
        Ok(()) => Outcome::Succeeded { output: run.output, records },
        Err(End::Failed { error, retry }) => Outcome::Failed { error, retry, records },
        Err(End::Canceled) => Outcome::Canceled { records },
        Err(End::Stopped(error)) => Outcome::Stopped { error },
    }
}

/// Why a walk ended before its last step.
enum End {
    Failed { error: RunError, retry: Retry },
    Canceled,
    Stopped(JournalError),
}

/// What earlier attempts left of one step.
struct Earlier {
    /// The highest attempt number.
    attempts: i32,
    /// How many attempts count against the step's own `retry`: not those that were canceled.
    used: i32,
    /// The record of the highest attempt.
    last: StepRecord,
}

/// Where a step stands when the executor comes to it.
enum Resumed {
    /// It is done; with its output when it succeeded.
    Done(Option<Json>),
    /// It is to be done, as attempt number `attempt`; `used` attempts count against its `retry`.
    Open { attempt: i32, used: i32 },
}

struct Execution<'a> {
    info: RunInfo,
    max_attempts: i32,
    jitter: f64,
    data_max_bytes: usize,
    /// `None`: nothing in the pipeline is evaluated.
    scope: Option<Scope>,
    /// Whether an expression reads the outputs of steps: else they are not kept for it.
    reads_steps: bool,
    secrets: Arc<BTreeMap<String, String>>,
    redactor: Redactor,
    earlier: HashMap<String, Earlier>,
    /// Done, not yet durable.
    pending: Vec<StepRecord>,
    output: Json,
    caller: &'a dyn ToolCaller,
    journal: &'a dyn Journal,
    clock: &'a dyn Clock,
    cancel: CancellationToken,
}

impl<'a> Execution<'a> {
    fn new(
        pipeline: &Pipeline,
        ctx: RunContext,
        caller: &'a dyn ToolCaller,
        journal: &'a dyn Journal,
        clock: &'a dyn Clock,
        cancel: CancellationToken,
    ) -> Self {
        let found = |name: &String| Some((name.clone(), ctx.secrets.get(name)?));
        let secrets: BTreeMap<_, _> = pipeline.secrets.iter().filter_map(found).collect();
        let scope = pipeline.has_expressions.then(|| {
            let mut params = ctx.params;
            for (name, default) in pipeline.params() {
                if !params.contains_key(name) {
                    params.insert(name.clone(), default.clone());
                }
            }
            Scope::new(&params, ctx.event.as_ref(), ctx.last.as_ref(), Some(&ctx.info))
        });
        Self {
            info: ctx.info,
            max_attempts: ctx.max_attempts,
            jitter: ctx.jitter,
            data_max_bytes: ctx.data_max_bytes,
            scope,
            reads_steps: pipeline.reads("steps"),
            redactor: Redactor::new(&secrets),
            secrets: Arc::new(secrets),
            earlier: collect(ctx.records),
            pending: Vec::new(),
            output: Json::Null,
            caller,
            journal,
            clock,
            cancel,
        }
    }

    /// Does `steps` in order. `error` is what their expressions see under that name; `is_top` steps
    /// give the run's output.
    fn walk<'s>(
        &'s mut self,
        steps: &'s [Step],
        error: Option<&'s RunError>,
        is_top: bool,
    ) -> BoxFuture<'s, Result<(), End>> {
        Box::pin(async move {
            for step in steps {
                let output = self.step(step, error).await?;
                if is_top && let Some(output) = output {
                    self.output = output;
                }
            }
            Ok(())
        })
    }

    /// Does one step; returns its output when it succeeded, now or in an earlier attempt.
    async fn step(&mut self, step: &Step, error: Option<&RunError>) -> Result<Option<Json>, End> {
        let (attempt, used) = match self.resume(step).await? {
            Resumed::Done(output) => return Ok(output),
            Resumed::Open { attempt, used } => (attempt, used),
        };
        if self.cancel.is_cancelled() {
            return Err(End::Canceled);
        }
        let now = self.clock.now();
        let scope = self.scope.as_ref().map(|scope| {
            let scope = scope.clone().at(now);
            match error {
                Some(error) => scope.with_error(error),
                None => scope,
            }
        });
        let mut record = StepRecord {
            path: step.path.clone(),
            attempt,
            id: step.id.clone(),
            uses: Some(step.uses.clone()),
            status: StepStatus::Running,
            started_at: now,
            finished_at: None,
            input: None,
            output: None,
            error: None,
        };
        match is_wanted(step, scope.as_ref()) {
            Ok(true) => {}
            Ok(false) => {
                record.status = StepStatus::Skipped;
                record.finished_at = Some(now);
                self.pending.push(record);
                self.publish(step, &Json::Null);
                return Ok(None);
            }
            Err(failure) => return self.failed(step, record, failure, used).await,
        }
        let input = match self.input(step, scope.as_ref()) {
            Ok((input, shown)) => {
                record.input = Some(shown);
                input
            }
            Err(failure) => return self.failed(step, record, failure, used).await,
        };
        self.perform(step, record, input, used).await
    }

    /// What earlier attempts have left to do of the step.
    async fn resume(&mut self, step: &Step) -> Result<Resumed, End> {
        let Some(Earlier { attempts, used, last }) = self.earlier.remove(&step.path) else {
            return Ok(Resumed::Open { attempt: 1, used: 0 });
        };
        match last.status {
            StepStatus::Succeeded => {
                let output = last.output.unwrap_or_default();
                self.publish(step, &output);
                return Ok(Resumed::Done(Some(output)));
            }
            StepStatus::Skipped => {
                self.publish(step, &Json::Null);
                return Ok(Resumed::Done(None));
            }
            StepStatus::Failed if last.output.is_some() => {
                let error = last.error.unwrap_or_else(|| unknown_error(step));
                return self.go_on(step, &error).await.map(Resumed::Done);
            }
            StepStatus::Running => {
                if let Some(end) = self.abandoned(step, last, used).await {
                    return end.map(Resumed::Done);
                }
            }
            StepStatus::Failed | StepStatus::Canceled => {}
        }
        Ok(Resumed::Open { attempt: attempts.saturating_add(1), used })
    }

    /// Makes what is done durable, calls the tool and records what came of it.
    async fn perform(
        &mut self,
        step: &Step,
        record: StepRecord,
        input: Json,
        used: i32,
    ) -> Result<Option<Json>, End> {
        if !self.pending.is_empty() {
            let records = std::mem::take(&mut self.pending);
            self.journal.checkpoint(records).await.map_err(End::Stopped)?;
        }
        let record = Arc::new(record);
        self.journal.started(&record);
        let request = ToolCall {
            address: step.uses.clone(),
            input,
            timeout: step.timeout,
            idempotency_key: format!("{}/{}", self.info.id, step.path),
            run_id: self.info.id,
            trace: None, // whoever traces the run puts it in
            cancel: self.cancel.child_token(),
        };
        let called = call(self.caller, request, &self.cancel).await;
        self.journal.ended();
        let mut record = Arc::unwrap_or_clone(record);
        let result = match called {
            Called::Answered(result) => result.map_err(Failure::from).and_then(|output| {
                bounded(&output, self.data_max_bytes, "output", "the tool's output")?;
                Ok(output)
            }),
            Called::Canceled => {
                record.status = StepStatus::Canceled;
                record.finished_at = Some(self.clock.now());
                self.pending.push(record);
                return Err(End::Canceled);
            }
        };
        match result {
            Ok(mut output) => {
                self.redactor.json(&mut output);
                record.status = StepStatus::Succeeded;
                record.finished_at = Some(self.clock.now());
                record.output = Some(output.clone());
                self.pending.push(record);
                self.publish(step, &output);
                Ok(Some(output))
            }
            Err(failure) => self.failed(step, record, failure, used).await,
        }
    }

    /// Resolves the input: what the tool gets, and what may be shown of it.
    fn input(&self, step: &Step, scope: Option<&Scope>) -> Result<(Json, Json), Failure> {
        let empty = || Failure::lasting("definition", "the pipeline was compiled without a scope");
        if step.input.is_constant() {
            let input = step.input.resolve(&minijinja::Value::UNDEFINED).map_err(expression)?;
            bounded(&input, self.data_max_bytes, "input", "`with`")?;
            let mut shown = input.clone();
            self.redactor.json(&mut shown);
            return Ok((input, shown));
        }
        let scope = scope.ok_or_else(empty)?;
        let real = scope.clone().with_secrets(&self.secrets, true).to_value();
        let input = step.input.resolve(&real).map_err(expression)?;
        bounded(&input, self.data_max_bytes, "input", "`with`, once it is resolved,")?;
        let mut shown = if step.uses_secrets {
            let masked = scope.clone().with_secrets(&self.secrets, false).to_value();
            step.input.masked(&input, &masked)
        } else {
            input.clone()
        };
        self.redactor.json(&mut shown);
        Ok((input, shown))
    }

    /// Records a failure and decides what follows: another try later, the end of the run, or, when
    /// all tries are used, what the step's `on_error` says.
    async fn failed(
        &mut self,
        step: &Step,
        mut record: StepRecord,
        failure: Failure,
        used: i32,
    ) -> Result<Option<Json>, End> {
        let retry = self.retry(step, &failure, used.saturating_add(1));
        let mut error = failure.error;
        error.step = Some(step.path.clone());
        self.redactor.text(&mut error.message);
        shorten(&mut error.message);
        record.status = StepStatus::Failed;
        record.finished_at = Some(self.clock.now());
        record.error = Some(error.clone());
        if retry != Retry::Never || matches!(step.on_error, Handler::Fail) {
            self.pending.push(record);
            return Err(End::Failed { error, retry });
        }
        record.output = Some(json!({"error": error_json(&error)}));
        self.pending.push(record);
        self.go_on(step, &error).await
    }

    /// Whether another try may follow after `used` tries of the step.
    fn retry(&self, step: &Step, failure: &Failure, used: i32) -> Retry {
        if !failure.is_transient {
            return Retry::Never;
        }
        match step.retry {
            Some(retry) if used < i32::from(retry.max_attempts) => {
                let delay = backoff(retry.backoff, used, self.jitter);
                Retry::Step { delay: failure.retry_after.map_or(delay, |asked| asked.max(delay)) }
            }
            None if self.info.attempt < self.max_attempts => {
                Retry::Run { retry_after: failure.retry_after }
            }
            _ => Retry::Never,
        }
    }

    /// Goes on behind a step that has failed for good, by way of its `on_error` list.
    async fn go_on(&mut self, step: &Step, error: &RunError) -> Result<Option<Json>, End> {
        self.publish(step, &json!({"error": error_json(error)}));
        match &step.on_error {
            Handler::Steps(steps) => self.walk(steps, Some(error), false).await?,
            Handler::Fail | Handler::Continue => {}
        }
        Ok(None)
    }

    /// A worker died while it did the step: closes its record. When that was the last try of the
    /// step's own `retry`, the step has failed, and what follows is returned.
    async fn abandoned(
        &mut self,
        step: &Step,
        record: StepRecord,
        used: i32,
    ) -> Option<Result<Option<Json>, End>> {
        let failure =
            Failure::passing("lease_lost", "the worker that was doing this step ended before it");
        if step.retry.is_some_and(|retry| used >= i32::from(retry.max_attempts)) {
            return Some(self.failed(step, record, failure, used - 1).await);
        }
        self.pending.push(StepRecord {
            status: StepStatus::Failed,
            finished_at: Some(self.clock.now()),
            error: Some(RunError { step: Some(step.path.clone()), ..failure.error }),
            ..record
        });
        None
    }

    /// Lets later expressions see `output`.
    fn publish(&self, step: &Step, output: &Json) {
        if self.reads_steps
            && let Some(scope) = &self.scope
        {
            scope.set_step(&step.names, output);
        }
    }
}

fn is_wanted(step: &Step, scope: Option<&Scope>) -> Result<bool, Failure> {
    match (&step.condition, scope) {
        (Condition::Always, _) => Ok(true),
        (Condition::Never, _) => Ok(false),
        (Condition::When(text), Some(scope)) => text.is_true(&scope.to_value()).map_err(expression),
        (Condition::When(_), None) => {
            Err(Failure::lasting("definition", "the pipeline was compiled without a scope"))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn expression(error: EvalError) -> Failure {
    Failure::lasting("expression", error.to_string())
}

fn unknown_error(step: &Step) -> RunError {
    RunError {
        kind: "tool_failed".to_owned(),
        message: "the step failed".to_owned(),
        step: Some(step.path.clone()),
    }
}

/// The records of earlier attempts, by path.
fn collect(records: Vec<StepRecord>) -> HashMap<String, Earlier> {
    let mut earlier: HashMap<String, Earlier> = HashMap::with_capacity(records.len());
    for record in records {
        let counts = matches!(record.status, StepStatus::Failed | StepStatus::Running);
        match earlier.get_mut(&record.path) {
            None => {
                let attempts = record.attempt;
                let used = i32::from(counts);
                earlier.insert(record.path.clone(), Earlier { attempts, used, last: record });
            }
            Some(known) => {
                known.used += i32::from(counts);
                if record.attempt > known.attempts {
                    known.attempts = record.attempt;
                    known.last = record;
                }
            }
        }
    }
    earlier
}
