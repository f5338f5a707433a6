//! `POST /tasks/{id}/backfill`: runs for times that have passed without one.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use orchestrator_engine::backfill::{self, Fate, Known, Planned};
use orchestrator_engine::id::{self, RunId};
use orchestrator_engine::run::Trigger;
use orchestrator_engine::schedule::Schedule;
use orchestrator_engine::store::queue::{self, Held, NewWork};
use orchestrator_engine::store::task::TaskRow;
use orchestrator_engine::store::{ledger, task};
use orchestrator_engine::task::{ScheduleKind, TaskStatus};
use serde_json::json;
use sqlx::PgConnection;

use super::wire::{Backfill, Backfilled, BackfilledTime};
use super::{compiled, compiled_as, held, tell};
use crate::auth::{Caller, RunsWrite};
use crate::body::Sent;
use crate::change::{Answer, Begun, Change};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;
use crate::trace;

/// Make up for times that have passed.
///
/// Every time of the schedule in force, from `from` on and before `to`, gets a run, but for those that
/// ran and those that were not to run (`exclude`, `dst_gap: skip`). The ledger says `backfilled` of
/// them then. The runs begin at the rate of missed runs (`CATCH_UP_RATE`).
#[utoipa::path(
    post, path = "/tasks/{id}/backfill", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body = Backfill,
    responses((status = 200, description = "What would be done (`dry_run`).", body = Backfilled),
              (status = 202, description = "Queued.", body = Backfilled),
              (status = 409, description = "Canceled, or no clock starts it.", body = ProblemDocument),
              (status = 422, description = "The range is wrong or too long.", body = ProblemDocument))
)]
pub(super) async fn backfill(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<RunsWrite>,
    sent: Sent<Backfill>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let Backfill { from, to, dry_run } = sent.body;
    if to <= from {
        return Err(Problem::invalid_at("/to", "must be after from"));
    }
    if to > now {
        return Err(Problem::invalid_at(
            "/to",
            format!("must not be in the future (it is {now}): times to come run by themselves"),
        ));
    }
    let row = held(change.conn(), &caller, &reference).await?;
    if row.status == TaskStatus::Canceled {
        return Err(Problem::conflict("the task is canceled: it runs no more"));
    }
    if matches!(row.spec.schedule_kind, ScheduleKind::Manual | ScheduleKind::Event) {
        return Err(Problem::conflict(format!(
            "no clock starts this task (schedule_kind {}): there are no times to make up for",
            row.spec.schedule_kind
        )));
    }
    let schedule = compiled(change.conn(), &row).await?.map_err(Problem::invalid)?;
    let rows = Rows::read(change.conn(), &row, from, to).await?;
    let known = rows.known();
    let planned = backfill::plan(&schedule, &known, from, to, row.cursor_at)
        .map_err(|said| Problem::invalid_at("/from", said))?;
    let made: BTreeMap<DateTime<Utc>, (RunId, String)> = planned
        .iter()
        .filter_map(|one| match &one.fate {
            Fate::Run(before) => {
                let run = RunId::new(now, &mut id::rng());
                Some((one.at, (run, reason(&caller.agent.name, before.as_deref()))))
            }
            Fate::Leave(_) => None,
        })
        .collect();
    let items = planned.into_iter().map(|one| item(&schedule, one, &made, dry_run)).collect();
    let answer = Backfilled { dry_run, runs: made.len(), items };
    if dry_run || made.is_empty() {
        let status = if dry_run { StatusCode::OK } else { StatusCode::ACCEPTED };
        return change.finish(Answer::new(status, &answer)?).await;
    }
    let edit = backfill::change(&known, &made, row.revision)
        .map_err(|said| Problem::invalid_at("/from", said))?;
    ledger::replace(change.conn(), row.id, &edit.removed, edit.added, now).await?;
    let work = made.iter().map(|(at, (run, _))| work(&row, *at, *run, now)).collect();
    queue::enqueue_many(change.conn(), work).await?;
    let detail = json!({"from": from, "to": to, "runs": made.len()});
    change.audit("task.backfill", row.id, detail).await?;
    let answer = change.finish(Answer::new(StatusCode::ACCEPTED, &answer)?).await?;
    for (run, _) in made.values() {
        trace::made(&api, *run, Some(row.id), Trigger::Backfill);
    }
    tell(&api, "task.backfilled", row.agent_id, row.id).await;
    Ok(answer)
}

fn reason(who: &str, before: Option<&str>) -> String {
    match before {
        Some(before) => format!("asked for by {who}; before it was {before}"),
        None => format!("asked for by {who}"),
    }
}

fn item(
    schedule: &Schedule,
    planned: Planned,
    made: &BTreeMap<DateTime<Utc>, (RunId, String)>,
    dry_run: bool,
) -> BackfilledTime {
    let (action, reason) = match planned.fate {
        Fate::Run(before) => ("run", before),
        Fate::Leave(why) => ("leave", Some(why)),
    };
    BackfilledTime {
        nominal_at: planned.at,
        local: schedule.local(planned.at),
        action,
        reason,
        run_id: made.get(&planned.at).filter(|_| !dry_run).map(|(run, _)| *run),
    }
}

fn work(row: &TaskRow, nominal_at: DateTime<Utc>, run_id: RunId, now: DateTime<Utc>) -> NewWork {
    let of = (row.id, row.revision);
    NewWork {
        nominal_at: Some(nominal_at),
        expires_after: None,
        dedupe: None,
        held: Some(Held::CatchUp),
        ..NewWork::of_task(run_id, row.agent_id, of, &row.spec, Trigger::Backfill, now)
    }
}

/// The rows of the ledger in the range, and the schedules that they were decided by.
struct Rows {
    rows: Vec<(ledger::LedgerRow, i32)>,
    schedules: BTreeMap<i32, Option<Schedule>>,
}

impl Rows {
    async fn read(
        conn: &mut PgConnection,
        task: &TaskRow,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Self, Problem> {
        let limit = i64::try_from(backfill::TIMES_MAX).unwrap_or(i64::MAX) + 1;
        let rows = ledger::between(conn, task.id, from, to, limit).await?;
        let mut schedules = BTreeMap::new();
        for (_, revision) in &rows {
            if !schedules.contains_key(revision) {
                let spec = task::revision_spec(conn, task.id, *revision).await?;
                schedules.insert(*revision, compiled_as(&spec, task.created_at).ok());
            }
        }
        Ok(Self { rows, schedules })
    }

    fn known(&self) -> Vec<Known<'_>> {
        self.rows
            .iter()
            .map(|(row, revision)| Known {
                row,
                revision: *revision,
                schedule: self.schedules.get(revision).and_then(Option::as_ref),
            })
            .collect()
    }
}
