//! `GET /tasks/{id}/explain`: why a task did or did not run at some time.

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Datelike as _, NaiveDateTime, Utc};
use orchestrator_engine::explain::{self, Facts};
use orchestrator_engine::schedule::Schedule;
use orchestrator_engine::store::task::TaskRow;
use orchestrator_engine::store::{StoreError, ledger, run, task};
use orchestrator_engine::task::ScheduleKind;

use super::wire::{Explained, Occurrence};
use super::{compiled, compiled_as};
use crate::auth::{Caller, TasksRead};
use crate::page::Query;
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// The most fires that are counted to see whether `max_fires` is reached by then.
const FIRES_COUNTED: usize = 10_000;

/// Explain why a task did, did not, will or will not run at a time.
///
/// The time is an instant (`2026-12-24T07:30:00Z`) or a local time of the task (`2026-12-24T08:30`).
#[utoipa::path(
    get, path = "/tasks/{id}/explain", tag = "tasks",
    params(
        ("id" = String, Path, description = "Id or name."),
        ("at" = String, Query, description = "When: an instant, or a time on the task's wall clock."),
    ),
    responses((status = 200, description = "The answer in plain words, and the facts.", body = Explained),
              (status = 400, description = "There is no such time.", body = ProblemDocument),
              (status = 404, description = "None, or not yours.", body = ProblemDocument),
              (status = 409, description = "No clock starts this task.", body = ProblemDocument))
)]
pub(super) async fn explain(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksRead>,
    mut query: Query,
) -> Result<Json<Explained>, Problem> {
    let asked = query.text("at").map(|text| Asked::read(&text));
    if asked.is_none() {
        query.refuse("at", WANTED);
    } else if let Some(None) = asked {
        query.refuse("at", WANTED);
    }
    query.done()?;
    let asked = asked.flatten().ok_or_else(Problem::internal)?;
    let now = api.clock.now();
    let mut conn = api.conn().await?;
    let id = task::find(&mut conn, &reference, caller.sees()).await?;
    let row = task::get(&mut conn, id).await?;
    if matches!(row.spec.schedule_kind, ScheduleKind::Manual | ScheduleKind::Event) {
        return Err(Problem::conflict(format!(
            "no clock starts this task (schedule_kind {}): its runs are in GET /runs?task_id={id}",
            row.spec.schedule_kind
        )));
    }
    let current = compiled(&mut conn, &row).await?.map_err(Problem::invalid)?;
    let (at, moved) = match asked {
        Asked::Instant(at) => (at, None),
        Asked::Local(local) => current.instant_of(local),
    };
    let found = ledger::covering(&mut conn, id, at).await?;
    let revision = match &found {
        Some((_, revision)) => *revision,
        None if at > now => row.revision,
        None => task::revision_at(&mut conn, id, at).await?.unwrap_or(1),
    };
    let schedule = if revision == row.revision {
        current
    } else {
        let spec = task::revision_spec(&mut conn, id, revision).await?;
        compiled_as(&spec, row.created_at).map_err(Problem::invalid)?
    };
    let ledger_row = found.map(|(found, _)| found);
    let run = match ledger_row.as_ref().and_then(|found| found.run_id) {
        None => None,
        Some(run_id) => match run::get(&mut conn, run_id, caller.sees()).await {
            Ok(run) => Some(run),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        },
    };
    drop(conn);
    let facts = Facts {
        task: &row,
        schedule: &schedule,
        at,
        now,
        row: ledger_row.as_ref(),
        run: run.as_ref(),
        fires_before: fires_before(&row, &schedule, at),
    };
    let told = explain::explain(&facts);
    let answer = match moved {
        // The answer tells of the clock change itself where the schedule names the time.
        Some(moved) if !told.answer.contains(&moved) => format!("{moved}. {}", told.answer),
        _ => told.answer,
    };
    Ok(Json(Explained {
        at,
        local: schedule.local(at),
        verdict: told.verdict,
        answer,
        schedule: schedule.summary().to_owned(),
        revision,
        previous: schedule.last_before(at, row.created_at).map(|nominal| nominal.at),
        next: schedule.next_after(at).map(|nominal| nominal.at),
        occurrence: ledger_row.map(Occurrence::from),
        run: run.map(Into::into),
    }))
}

const WANTED: &str = "must be an instant such as 2026-12-24T07:30:00Z, or a local time of the task \
                      such as 2026-12-24T08:30";

/// A time as somebody asks for it.
enum Asked {
    Instant(DateTime<Utc>),
    Local(NaiveDateTime),
}

impl Asked {
    fn read(text: &str) -> Option<Self> {
        // A plus sign in a query means a blank; a blank may also stand for the T.
        let instant = [text.to_owned(), text.replace(' ', "+"), text.replacen(' ', "T", 1)];
        if let Some(at) =
            instant.iter().find_map(|text| text.parse::<DateTime<chrono::FixedOffset>>().ok())
        {
            let second = DateTime::from_timestamp(at.timestamp(), 0)?;
            return crate::time::bounded(second).ok().map(Self::Instant);
        }
        let text = text.replacen(' ', "T", 1);
        ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
            .iter()
            .find_map(|shape| NaiveDateTime::parse_from_str(&text, shape).ok())
            .filter(|local| (1..=9998).contains(&local.year())) // in UTC it may be the next
            .map(Self::Local)
    }
}

/// How often the task will have fired before `at`, where it may fire only so often.
fn fires_before(row: &TaskRow, schedule: &Schedule, at: DateTime<Utc>) -> i64 {
    if row.spec.max_fires.is_none() {
        return 0;
    }
    let first = schedule.next_fire_after(row.cursor_at);
    let ahead = std::iter::successors(first, |nominal| schedule.next_fire_after(nominal.at))
        .take_while(|nominal| nominal.at < at)
        .take(FIRES_COUNTED)
        .count();
    i64::from(row.fires) + i64::try_from(ahead).unwrap_or(i64::MAX)
}
