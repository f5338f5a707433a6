//! `POST /runs/batch`: many runs at once, all of them or none.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::agent::Agent;
use orchestrator_engine::id::{self, RunId, TaskId};
use orchestrator_engine::pipeline::Pipeline;
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::run::Trigger;
use orchestrator_engine::store::queue::{self, NewWork};
use orchestrator_engine::store::runnable::{self, Runnable};
use orchestrator_engine::store::tool_catalogue;
use orchestrator_engine::tool::Catalogue;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use super::super::tasks::{Accepted, check_payload, delay_of};
use crate::auth::{Caller, RunsWrite};
use crate::body::{SentBatch, too_much};
use crate::change::{Answer, Begun, Change};
use crate::openapi::PayloadFields;
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;
use crate::{time, trace};

/// The most runs of a batch.
pub const RUNS_MAX: usize = 1_000;
/// How far ahead a run can be put, in days; that of `orchestrator.enqueue` too.
const AHEAD_MAX_DAYS: i64 = 3_660;
/// The longest dedupe key, in characters.
const KEY_MAX: usize = 200;
/// Said of a key that is longer, or empty.
pub(super) const KEY_RULE: &str = "must have 1 to 200 characters";
/// Said of a key without a window.
pub(super) const WINDOW_RULE: &str = "must be at least 1 where there is a dedupe_key";
/// After so many mistakes nobody reads on.
const MISTAKES_MAX: usize = 20;

/// The runs to make.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRuns {
    /// 1 to 1,000.
    runs: Vec<NewRunOf>,
}

/// A run of a task, or of a payload without one.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRunOf {
    /// Id or name of the task.
    #[serde(default)]
    task: Option<String>,
    /// In place of `task`: what to do.
    #[serde(default)]
    #[schema(value_type = Option<PayloadFields>)]
    payload: Option<Value>,
    /// Parameters over those of the task or payload.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    params: Option<Map<String, Value>>,
    /// 1 (first) to 9; default the task's, or 5.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 9)]
    priority: Option<i16>,
    /// Not to be started before; default at once.
    #[serde(default, deserialize_with = "time::optional")]
    run_at: Option<DateTime<Utc>>,
    /// In place of `run_at`: not to be started for so long.
    #[serde(default)]
    delay_seconds: Option<u64>,
    /// It ends `expired` when it was not started so many seconds after it might have; default the task's.
    #[serde(default)]
    #[schema(minimum = 1)]
    expires_after_seconds: Option<u32>,
    /// A second run with this key inside the window is not made; default the task's.
    #[serde(default)]
    dedupe_key: Option<String>,
    /// The window of `dedupe_key`; default the task's.
    #[serde(default)]
    dedupe_window_seconds: Option<u32>,
}

/// What became of a batch.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AcceptedRuns {
    /// One entry for each run asked for, in the same order.
    items: Vec<Accepted>,
}

/// Start up to 1,000 runs at once, of tasks or of payloads without one: all of them, or none.
///
/// Each is what `run_now` or `POST /runs` would make. Dedupe keys hold inside the batch, too.
#[utoipa::path(
    post, path = "/runs/batch", tag = "runs", request_body = NewRuns,
    responses((status = 202, description = "Queued.", body = AcceptedRuns),
              (status = 422, description = "What is wrong, with pointers; none was made.", body = ProblemDocument))
)]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller<RunsWrite>,
    SentBatch(sent): SentBatch<NewRuns>,
) -> Result<Answer, Problem> {
    let new = sent.body.runs;
    if !(1..=RUNS_MAX).contains(&new.len()) {
        let message = format!("must have 1 to {RUNS_MAX} entries, not {}", new.len());
        return Err(Problem::invalid_at("/runs", message));
    }
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let against = Against::read(change.conn(), &caller, &new).await?;
    let work = against.work(new, &caller.agent, change.now, api.options.data_max_bytes)?;
    let owners: Vec<_> =
        work.iter().map(|one| (one.agent_id, one.task.map(|(id, _)| id), one.waits())).collect();
    let queued = queue::enqueue_batch(change.conn(), work).await?;
    let made: Vec<_> = queued
        .iter()
        .zip(owners)
        .filter(|(one, _)| !one.deduplicated)
        .map(|(one, (owner, task, waits))| (owner, task, one.run_id, waits))
        .collect();
    if let Some(first) = queued.first() {
        let detail = json!({"runs": queued.len(), "deduplicated": queued.len() - made.len()});
        change.audit("run.create_batch", first.run_id, detail).await?;
    }
    let accepted =
        |one: &queue::Enqueued| Accepted { run_id: one.run_id, deduplicated: one.deduplicated };
    let items = queued.iter().map(accepted).collect();
    let answer = Answer::new(StatusCode::ACCEPTED, &AcceptedRuns { items })?;
    let answer = change.finish(answer).await?;
    // Who a new run waits for is let in by its key; no run of a task waits for one of these.
    api.let_many_in(made.iter().filter(|made| made.3).map(|made| (made.0, None))).await;
    for (_, task, run, _) in &made {
        trace::made(&api, *run, *task, Trigger::RunNow);
    }
    api.tell_runs("run.queued", made.into_iter().map(|(owner, task, run, _)| (owner, task, run)));
    Ok(answer)
}

/// What the runs of a batch are checked against.
struct Against {
    tasks: Vec<Runnable>,
    /// Which of `tasks` a reference may mean.
    named: HashMap<String, Vec<usize>>,
    catalogue: Catalogue,
}

impl Against {
    async fn read(
        conn: &mut PgConnection,
        caller: &Caller<RunsWrite>,
        new: &[NewRunOf],
    ) -> Result<Self, Problem> {
        let (mut ids, mut names) = (Vec::new(), Vec::new());
        for reference in new.iter().filter_map(|one| one.task.as_ref()) {
            match reference.parse::<uuid::Uuid>() {
                Ok(id) => ids.push(id),
                Err(_) => names.push(reference.clone()),
            }
        }
        ids.sort_unstable();
        ids.dedup();
        names.sort_unstable();
        names.dedup();
        let tasks = runnable::find(conn, &ids, &names, caller.sees()).await?;
        let mut by_reference: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, task) in tasks.iter().enumerate() {
            by_reference.insert(task.id.to_string(), vec![index]);
            if let Some(name) = task.name.as_ref().filter(|_| !task.is_canceled) {
                by_reference.entry(name.clone()).or_default().push(index);
            }
        }
        let catalogue = if new.iter().any(|one| one.payload.is_some()) {
            tool_catalogue::catalogue(conn).await?
        } else {
            Catalogue::default()
        };
        Ok(Self { tasks, named: by_reference, catalogue })
    }

    /// The runs to put into the queue, or everything that is wrong with them.
    fn work(
        &self,
        new: Vec<NewRunOf>,
        caller: &Agent,
        now: DateTime<Utc>,
        data_max_bytes: usize,
    ) -> Result<Vec<NewWork>, Problem> {
        let mut known = Known::default();
        let mut work = Vec::with_capacity(new.len());
        let mut problems = Vec::new();
        for (index, one) in new.into_iter().enumerate() {
            match self.one(one, caller, now, data_max_bytes, &mut known) {
                Ok(one) => work.push(one),
                Err(found) => {
                    let place = format!("/runs/{index}");
                    problems.extend(found.into_iter().map(|entry| entry.under(&place)));
                }
            }
            if problems.len() >= MISTAKES_MAX {
                break;
            }
        }
        if problems.is_empty() { Ok(work) } else { Err(Problem::invalid(problems)) }
    }

    fn one(
        &self,
        new: NewRunOf,
        caller: &Agent,
        now: DateTime<Utc>,
        data_max_bytes: usize,
        known: &mut Known,
    ) -> Result<NewWork, Vec<Entry>> {
        let mut problems = Vec::new();
        let priority = new.priority;
        let mut require = |fine: bool, pointer: &str, message: &str| {
            if !fine {
                problems.push(Entry::new(pointer, message));
            }
        };
        require(
            priority.is_none_or(|priority| (1..=9).contains(&priority)),
            "/priority",
            "must be 1 (first) to 9",
        );
        require(
            new.expires_after_seconds != Some(0),
            "/expires_after_seconds",
            "must be at least 1 second, or null",
        );
        require(
            new.run_at.is_none() || new.delay_seconds.is_none(),
            "/delay_seconds",
            "must be left out where there is a run_at",
        );
        require(new.dedupe_key.as_deref().is_none_or(key_fits), "/dedupe_key", KEY_RULE);
        let start = match (new.run_at, new.delay_seconds) {
            (Some(at), _) => at.max(now),
            (None, delay) => now + delay_of(delay.unwrap_or(0)),
        };
        let pointer = if new.run_at.is_some() { "/run_at" } else { "/delay_seconds" };
        require(
            start - now <= TimeDelta::days(AHEAD_MAX_DAYS),
            pointer,
            "must be at most 3660 days ahead",
        );
        if let Some(params) = &new.params {
            problems.extend(too_much(params, "/params", data_max_bytes));
        }
        let what = match (&new.task, &new.payload) {
            (Some(reference), None) => self.task(reference).map(What::Task),
            (None, Some(payload)) => {
                known.payload(payload, &self.catalogue, &caller.scopes).map(What::Payload)
            }
            _ => Err(vec![Entry::new("", "must have either task or payload")]),
        };
        let what = match what {
            Ok(what) => what,
            Err(found) => {
                problems.extend(found);
                return Err(problems);
            }
        };
        if let Some(params) = &new.params {
            problems.extend(known.params_problems(&what, params));
        }
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let spec = what.task().map(|task| &task.spec);
        let window = new.dedupe_window_seconds.or(spec.map(|spec| spec.dedupe_window_seconds));
        let window = seconds(window.unwrap_or(0));
        if new.dedupe_key.is_some() && window.is_zero() {
            problems.push(Entry::new("/dedupe_window_seconds", WINDOW_RULE));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let dedupe_key = new.dedupe_key.or_else(|| spec.and_then(|spec| spec.dedupe_key.clone()));
        let run_id = RunId::new(now, &mut id::rng());
        let plain = match what {
            What::Task(task) => {
                let of = (task.id, task.revision);
                NewWork::of_task(run_id, task.agent_id, of, &task.spec, Trigger::RunNow, start)
            }
            What::Payload(payload) => NewWork::of_payload(run_id, caller.id, payload, start),
        };
        Ok(NewWork {
            priority: priority.unwrap_or(plain.priority),
            delay: (start - now).to_std().unwrap_or_default(),
            nominal_at: Some(start).filter(|start| *start > now),
            expires_after: new.expires_after_seconds.map(seconds).or(plain.expires_after),
            params: new.params.map(Value::Object),
            dedupe: dedupe_key.filter(|_| !window.is_zero()).map(|key| (key, window)),
            ..plain
        })
    }

    fn task(&self, reference: &str) -> Result<&Runnable, Vec<Entry>> {
        let wrong = |message: String| Err(vec![Entry::new("/task", message)]);
        // Ids are written in many ways.
        let id = reference.parse::<uuid::Uuid>().map(|id| id.to_string());
        match self.named.get(id.as_deref().unwrap_or(reference)).map_or(&[][..], Vec::as_slice) {
            [] => wrong(format!("there is no task {reference:?}")),
            [index] => match &self.tasks[*index] {
                task if task.is_canceled => wrong("is canceled: it runs no more".to_owned()),
                task if task.spec.merging().is_any() => wrong(
                    "has singleton or debounce_seconds: start it by run_now, one at a time"
                        .to_owned(),
                ),
                task => Ok(task),
            },
            _ => wrong(format!("several agents have a task named {reference:?}: use the id")),
        }
    }
}

/// What a run is to do.
enum What<'a> {
    Task(&'a Runnable),
    /// As [`check_payload`] gives it back.
    Payload(Value),
}

impl<'a> What<'a> {
    fn task(&self) -> Option<&'a Runnable> {
        match self {
            Self::Task(task) => Some(task),
            Self::Payload(_) => None,
        }
    }
}

/// What was found out about earlier runs of the batch: most are of one task, or of one payload.
#[derive(Default)]
struct Known {
    payloads: HashMap<String, Result<Value, Vec<Entry>>>,
    pipelines: HashMap<TaskId, Option<Pipeline>>,
}

impl Known {
    fn payload(
        &mut self,
        payload: &Value,
        catalogue: &Catalogue,
        scopes: &[String],
    ) -> Result<Value, Vec<Entry>> {
        let checked = self.payloads.entry(payload.to_string()).or_insert_with(|| {
            check_payload(payload, catalogue, scopes)
                .map_err(|found| found.into_iter().map(|entry| entry.under("/payload")).collect())
        });
        checked.clone()
    }

    fn params_problems(&mut self, what: &What<'_>, params: &Map<String, Value>) -> Vec<Entry> {
        let problems = match what {
            What::Task(task) => {
                let pipeline = self
                    .pipelines
                    .entry(task.id)
                    .or_insert_with(|| Pipeline::load(&task.spec.payload).ok());
                pipeline.as_ref().map(|pipeline| pipeline.params_problems(params))
            }
            What::Payload(payload) => {
                Pipeline::load(payload).ok().map(|pipeline| pipeline.params_problems(params))
            }
        };
        problems.into_iter().flatten().map(|entry| entry.under("/params")).collect()
    }
}
/// Whether a run can have `key` as its dedupe key.
pub(super) fn key_fits(key: &str) -> bool {
    !key.is_empty() && key.chars().take(KEY_MAX + 1).count() <= KEY_MAX
}
