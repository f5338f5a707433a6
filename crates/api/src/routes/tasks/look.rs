//! Reading tasks: the list, one, its occurrences, its revisions.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::explain::left_out;
use orchestrator_engine::schedule::Schedule;
use orchestrator_engine::store::task::{TaskFilter, TaskRow};
use orchestrator_engine::store::{StoreError, agent, ledger, task};
use orchestrator_engine::task::TaskStatus;

use super::compiled;
use super::wire::{Occurrence, Task, TaskRevision};
use crate::auth::{Caller, TasksRead};
use crate::page::{List, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::routes::feed;
use crate::state::Api;

/// How far back and ahead occurrences are shown when nobody says.
const AROUND: TimeDelta = TimeDelta::days(7);
/// The longest stretch of time whose occurrences are shown.
const STRETCH_MAX: TimeDelta = TimeDelta::days(3660);

/// The most times without a row that are looked at for one page.
const LOOKED_AT_MAX: usize = 10_000;

/// List tasks, the newest first.
#[utoipa::path(
    get, path = "/tasks", tag = "tasks",
    params(
        ("status" = Option<String>, Query, description = "active, paused, completed or canceled."),
        ("schedule_kind" = Option<String>, Query, description = "cron, rrule, interval, once, event, condition or manual."),
        ("created_by" = Option<String>, Query, description = "Name or id of the owner."),
        ("q" = Option<String>, Query, description = "Part of the name or title."),
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<Task>),
              (status = 400, description = "A parameter is wrong.", body = ProblemDocument))
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller<TasksRead>,
    mut query: Query,
) -> Result<Json<List<Task>>, Problem> {
    let mut filter = TaskFilter {
        agent_id: caller.sees(),
        status: query.parsed("status"),
        schedule_kind: query.parsed("schedule_kind"),
        text: query.text("q"),
    };
    let created_by = query.text("created_by");
    let page = query.page();
    query.done()?;
    let mut conn = api.conn().await?;
    if let Some(name) = created_by {
        let wanted = match agent::get(&mut conn, &name).await {
            Ok(agent) => Some(agent.id),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        // Nobody's tasks, or those of somebody else: an empty list either way.
        let Some(wanted) = wanted.filter(|id| caller.sees().is_none_or(|own| own == *id)) else {
            return Ok(Json(List { items: Vec::new(), next_cursor: None }));
        };
        filter.agent_id = Some(wanted);
    }
    let rows = task::list(&mut conn, &filter, page.cursor, page.ask()).await?;
    Ok(Json(page.of(rows, |row| row.id.to_string(), Task::from)))
}

/// Show a task.
#[utoipa::path(
    get, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Id or name.")),
    responses((status = 200, description = "The task.", body = Task, headers(("ETag" = String))),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
pub(super) async fn show(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksRead>,
    query: Query,
) -> Result<Response, Problem> {
    if let Some(reference) = feed::task_in(&reference) {
        return feed::of_task(&api, &caller, reference, query).await;
    }
    let mut conn = api.conn().await?;
    let id = task::find(&mut conn, &reference, caller.sees()).await?;
    let shown = Task::from(task::get(&mut conn, id).await?);
    let etag = format!("\"{}\"", shown.version);
    Ok((StatusCode::OK, [(header::ETAG, etag)], Json(shown)).into_response())
}

/// Show what became of a task's times, and what is planned.
///
/// In order of time, the earliest first: past times from the ledger, then future ones as `planned`.
#[utoipa::path(
    get, path = "/tasks/{id}/occurrences", tag = "tasks",
    params(
        ("id" = String, Path, description = "Id or name."),
        ("from" = Option<String>, Query, description = "Not before; default seven days ago."),
        ("to" = Option<String>, Query, description = "Before; default in seven days."),
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<Occurrence>),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
pub(super) async fn occurrences(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksRead>,
    mut query: Query,
) -> Result<Json<List<Occurrence>>, Problem> {
    let now = api.clock.now();
    let from = query.time("from").unwrap_or(now - AROUND);
    let to = query.time("to").unwrap_or(from.max(now) + AROUND);
    let page = query.page::<DateTime<Utc>>();
    if to <= from || to - from > STRETCH_MAX {
        query.refuse(
            "to",
            format!("must be after from, by at most {} days", STRETCH_MAX.num_days()),
        );
    }
    query.done()?;
    let mut conn = api.conn().await?;
    let id = task::find(&mut conn, &reference, caller.sees()).await?;
    let row = task::get(&mut conn, id).await?;
    let after = if let Some(cursor) = page.cursor {
        cursor
    } else {
        // A stretch that began before may reach into the range. The smallest step that Postgres
        // keeps before the first row: that itself is in.
        let stretch = ledger::covering(&mut conn, id, from).await?;
        stretch.map_or(from, |(row, _)| row.nominal_at) - TimeDelta::microseconds(1)
    };
    let past = ledger::list(&mut conn, id, after, to, page.ask()).await?;
    let schedule = compiled(&mut conn, &row).await?;
    drop(conn);
    let mut items: Vec<Occurrence> = past.into_iter().map(Occurrence::from).collect();
    let missing = usize::try_from(page.ask()).unwrap_or(0).saturating_sub(items.len());
    if let Ok(schedule) = schedule {
        items.extend(ahead(&row, &schedule, (after, to), now, missing));
    }
    let key =
        |item: &Occurrence| item.nominal_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    Ok(Json(page.of(items, key, |item| item)))
}

/// What the ledger does not know yet, `count` at most, after `after` and before `to`: times that have come
/// and that the schedule itself leaves out, and the next fires of an active task.
fn ahead(
    row: &TaskRow,
    schedule: &Schedule,
    (after, to): (DateTime<Utc>, DateTime<Utc>),
    now: DateTime<Utc>,
    count: usize,
) -> Vec<Occurrence> {
    let after = after.max(row.cursor_at);
    let mut items = Vec::new();
    if matches!(row.status, TaskStatus::Active | TaskStatus::Paused) {
        let came =
            std::iter::successors(schedule.next_after(after), |one| schedule.next_after(one.at))
                .take_while(|nominal| nominal.at <= now && nominal.at < to)
                .take(LOOKED_AT_MAX);
        let left_out = came.filter_map(|nominal| {
            let (disposition, reason) = left_out(&nominal)?;
            Some(not_recorded(nominal.at, disposition.to_string(), Some(reason)))
        });
        items.extend(left_out.take(count));
    }
    if row.status == TaskStatus::Active {
        items.extend(planned(row, schedule, (after, to), now, count));
    }
    items.sort_by_key(|item| item.nominal_at);
    items.truncate(count);
    items
}

/// The next fires. One run stands for all that a snooze puts off: it is of the last of them.
fn planned(
    row: &TaskRow,
    schedule: &Schedule,
    (after, to): (DateTime<Utc>, DateTime<Utc>),
    now: DateTime<Utc>,
    count: usize,
) -> Vec<Occurrence> {
    let mut begin = after + TimeDelta::microseconds(1);
    let mut so_far = u32::try_from(row.fires).unwrap_or(0);
    let mut items = Vec::new();
    if let Some(until) = row.snoozed_until.filter(|until| *until > now)
        && let Some(last) =
            schedule.last_fire_before(until, row.cursor_at + TimeDelta::microseconds(1))
    {
        if last.at >= begin {
            let reason = format!(
                "the task is snoozed until {}: it runs then, for all times that have come",
                schedule.local(until)
            );
            items.push(not_recorded(last.at, "planned".to_owned(), Some(reason)));
        }
        begin = begin.max(until);
        so_far = so_far.saturating_add(1);
    }
    let fires = schedule.preview(begin, count, so_far).fires;
    items.extend(
        fires.into_iter().map(|fire| not_recorded(fire.at, "planned".to_owned(), fire.note)),
    );
    items.retain(|item| item.nominal_at < to);
    items
}

fn not_recorded(
    nominal_at: DateTime<Utc>,
    disposition: String,
    reason: Option<String>,
) -> Occurrence {
    Occurrence { nominal_at, disposition, reason, run_id: None, until_at: None, count: 1 }
}

/// List the revisions of a task, the newest first.
#[utoipa::path(
    get, path = "/tasks/{id}/revisions", tag = "tasks",
    params(
        ("id" = String, Path, description = "Id or name."),
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<TaskRevision>),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
pub(super) async fn revisions(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksRead>,
    mut query: Query,
) -> Result<Json<List<TaskRevision>>, Problem> {
    let page = query.page();
    query.done()?;
    let mut conn = api.conn().await?;
    let id = task::find(&mut conn, &reference, caller.sees()).await?;
    let rows = task::revisions(&mut conn, id, page.cursor, page.ask()).await?;
    Ok(Json(page.of(rows, |row| row.revision.to_string(), TaskRevision::from)))
}
