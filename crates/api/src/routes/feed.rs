//! `/calendar.ics` and `/tasks/{id}.ics`: planned runs for calendar programs; `/calendar/token`: what
//! lets such a program in.
//!
//! Calendar programs send no headers of one's choice, so a token may stand in the URL of these two
//! routes. It opens nothing else, reads only, and is never written into a log.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::feed::{self, Entry, Timed};
use orchestrator_engine::id::{FeedTokenId, TaskId};
use orchestrator_engine::schedule::calendar::Calendars;
use orchestrator_engine::schedule::{Fire, Schedule, ScheduleSpec};
use orchestrator_engine::store::calendar::{self, CalendarCache};
use orchestrator_engine::store::feed::{self as store, FeedTask, FiredRow, TokenRow};
use orchestrator_engine::store::task;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::calendars::MEDIA_TYPE;
use crate::auth::{Caller, TasksRead};
use crate::body::Sent;
use crate::change::{Answer, Begun, Change};
use crate::page::{List, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// The most tasks of a feed.
const TASKS_MAX: i64 = 500;
/// The most entries of a feed.
const ENTRIES_MAX: usize = 2_000;
/// The most planned entries of one task in a feed of all: those of a year, where it is daily.
const ENTRIES_OF_ONE_MAX: usize = 366;
/// How many days ahead a feed looks when nobody says.
const DAYS_DEFAULT: i64 = 60;
/// How many days ahead a feed may look.
const DAYS_MAX: i64 = 366;
/// How far back a feed looks.
const BACK: TimeDelta = TimeDelta::days(7);
/// What the path of a feed ends in.
const SUFFIX: &str = ".ics";

/// Its routes. That of one task's feed is `GET /tasks/{id}`, which hands it over: the router knows no
/// parameter that ends in the middle of a segment.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(OfOneTask::openapi())
        .routes(routes!(all))
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

#[derive(utoipa::OpenApi)]
#[openapi(paths(one))]
struct OfOneTask;

/// The task whose feed `reference`, the last part of a path, asks for.
pub(super) fn task_in(reference: &str) -> Option<&str> {
    reference.strip_suffix(SUFFIX).filter(|task| !task.is_empty())
}

/// The feed token of a request that may come in with one: to read a feed, without another way of
/// saying who it is.
pub(crate) fn secret(request: &Request) -> Option<String> {
    let path = request.uri().path();
    let of_task = |path: &str| {
        let last = path.strip_prefix("/tasks/");
        last.is_some_and(|last| !last.contains('/') && task_in(last).is_some())
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads
        || request.headers().contains_key(header::AUTHORIZATION)
        || !(path == "/calendar.ics" || of_task(path))
    {
        return None;
    }
    let query: Vec<(String, String)> =
        serde_urlencoded::from_str(request.uri().query().unwrap_or_default()).ok()?;
    query.into_iter().find(|(name, _)| name == "token").map(|(_, secret)| secret)
}

/// Planned runs of all your active tasks as an iCalendar file, for calendar programs to subscribe to.
///
/// At most 500 tasks and 2,000 entries, the nearest, and 366 of one task; besides those to come, those
/// that fired in the last seven days. `POST /calendar/token` makes the token for programs that send no headers.
#[utoipa::path(
    get, path = "/calendar.ics", tag = "calendars",
    params(("days" = Option<i64>, Query, description = "How far ahead: 1 to 366; default 60."),
           ("token" = Option<String>, Query, description = "A feed token, in place of the header.")),
    responses((status = 200, description = "The file.", body = String, content_type = "text/calendar"),
              (status = 401, description = "Nobody's token.", body = ProblemDocument))
)]
async fn all(
    State(api): State<Api>,
    caller: Caller<TasksRead>,
    query: Query,
) -> Result<Response, Problem> {
    answer(&api, &caller, None, query).await
}

/// Planned runs of one task as an iCalendar file; see `/calendar.ics`.
///
/// A task whose name ends in `.ics` is reached by its id.
#[utoipa::path(
    get, path = "/tasks/{id}.ics", tag = "calendars",
    params(("id" = String, Path, description = "Id or name of the task."),
           ("days" = Option<i64>, Query, description = "How far ahead: 1 to 366; default 60."),
           ("token" = Option<String>, Query, description = "A feed token, in place of the header.")),
    responses((status = 200, description = "The file.", body = String, content_type = "text/calendar"),
              (status = 401, description = "Nobody's token.", body = ProblemDocument),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
#[expect(dead_code, reason = "describes what `GET /tasks/{id}` hands over to `of_task`")]
fn one() {}

/// The feed of the task that `reference` names.
pub(super) async fn of_task(
    api: &Api,
    caller: &Caller<TasksRead>,
    reference: &str,
    query: Query,
) -> Result<Response, Problem> {
    let mut conn = api.conn().await?;
    let id = task::find(&mut conn, reference, caller.sees()).await?;
    drop(conn);
    answer(api, caller, Some(id), query).await
}

async fn answer(
    api: &Api,
    caller: &Caller<TasksRead>,
    only: Option<TaskId>,
    mut query: Query,
) -> Result<Response, Problem> {
    let days = query.parsed::<i64>("days").unwrap_or(DAYS_DEFAULT);
    if !(1..=DAYS_MAX).contains(&days) {
        query.refuse("days", format!("must be a whole number from 1 to {DAYS_MAX}"));
    }
    query.text("token");
    query.done()?;
    let now = api.clock.now();
    let mut conn = api.conn().await?;
    let tasks = store::tasks(&mut conn, caller.sees(), only, TASKS_MAX).await?;
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    let limit = i64::try_from(ENTRIES_MAX).unwrap_or(i64::MAX);
    let fired = store::fired(&mut conn, &ids, now - BACK, now, limit).await?;
    let mut cache = CalendarCache::default();
    let mut known = Vec::with_capacity(tasks.len());
    for task in tasks {
        let spec = ScheduleSpec::from(&task.spec);
        let calendars = calendar::of_schedule(&mut conn, task.agent_id, &spec, &mut cache).await?;
        known.push((task, calendars));
    }
    drop(conn);
    let name = match (&only, known.first()) {
        (Some(_), Some((task, _))) => task.spec.title.clone(),
        _ => "Orchestrator".to_owned(),
    };
    let to = now + TimeDelta::days(days);
    // Thousands of times of hard rules may take a second: not on a thread that serves others.
    let most = if only.is_some() { ENTRIES_MAX } else { ENTRIES_OF_ONE_MAX };
    let file = tokio::task::spawn_blocking(move || drawn(&name, known, fired, now, (to, most)))
        .await
        .map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a feed panicked");
            Problem::internal()
        })?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], file).into_response())
}

/// The file; `most` planned times of one task before `to`.
fn drawn(
    name: &str,
    tasks: Vec<(FeedTask, Calendars)>,
    fired: Vec<FiredRow>,
    now: DateTime<Utc>,
    (to, most): (DateTime<Utc>, usize),
) -> String {
    let compiled: Vec<(FeedTask, Schedule)> = tasks
        .into_iter()
        .filter_map(|(task, calendars)| {
            let spec = ScheduleSpec::from(&task.spec);
            let schedule = Schedule::compile_with(&spec, task.created_at, &calendars).ok()?;
            Some((task, schedule))
        })
        .collect();
    let active: Vec<&(FeedTask, Schedule)> =
        compiled.iter().filter(|(task, _)| task.is_active).collect();
    let timed: Vec<Timed<'_>> = active
        .iter()
        .map(|(task, schedule)| {
            let put_off = put_off(task, schedule, now);
            let from = task.cursor_at + TimeDelta::microseconds(1);
            let so_far = u32::try_from(task.fires).unwrap_or(0);
            Timed {
                schedule,
                from: put_off.map_or(from, |until| until.max(from)),
                fires: so_far.saturating_add(put_off.is_some().into()),
                most,
            }
        })
        .collect();
    let planned = feed::upcoming(&timed, to, ENTRIES_MAX);
    let mut entries: Vec<Entry> =
        planned.into_iter().map(|(place, fire)| to_come(active[place], fire)).collect();
    entries.extend(active.iter().filter_map(|(task, schedule)| {
        let at = put_off(task, schedule, now).filter(|at| *at < to)?;
        Some(entry(task, schedule, at, Some("The task is snoozed until then".to_owned())))
    }));
    entries.extend(fired.into_iter().filter_map(|row| {
        let of = compiled.iter().find(|(task, _)| task.id == row.task_id)?;
        Some(past(of, &row))
    }));
    entries.sort_by_key(|entry| (entry.at - now).abs());
    entries.truncate(ENTRIES_MAX);
    entries.sort_by_key(|entry| (entry.at, entry.task));
    feed::write(name, &entries)
}

/// When the one run begins that stands for all times a snooze puts off.
fn put_off(task: &FeedTask, schedule: &Schedule, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let until = task.snoozed_until.filter(|until| *until > now)?;
    let from = task.cursor_at + TimeDelta::microseconds(1);
    schedule.last_fire_before(until, from).map(|_| until)
}

fn to_come((task, schedule): &(FeedTask, Schedule), fire: Fire) -> Entry {
    entry(task, schedule, fire.at, fire.note)
}

fn past((task, schedule): &(FeedTask, Schedule), row: &FiredRow) -> Entry {
    let run = row.run_id.map_or_else(String::new, |run| format!(": run {run}"));
    entry(task, schedule, row.nominal_at, Some(format!("{}{run}", row.disposition)))
}

fn entry(task: &FeedTask, schedule: &Schedule, at: DateTime<Utc>, note: Option<String>) -> Entry {
    let mut about: Vec<String> = note.into_iter().collect();
    about.push(schedule.summary().to_owned());
    if !task.spec.description.is_empty() {
        about.push(task.spec.description.clone());
    }
    let title = task.spec.title.clone();
    Entry { task: task.id, at, title, about, changed_at: task.updated_at }
}

/// A feed token, without its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct FeedToken {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: FeedTokenId,
    /// How it begins, to tell tokens apart.
    hint: String,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<TokenRow> for FeedToken {
    fn from(TokenRow { id, hint, created_at }: TokenRow) -> Self {
        Self { id, hint, created_at }
    }
}

/// A feed token just made.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CreatedFeedToken {
    #[serde(flatten)]
    row: FeedToken,
    /// The token itself, this one time; null when the request is repeated.
    #[schema(value_type = Option<String>)]
    token: String,
    /// Where the feed is, from the root of this server, with the token; null when the request is
    /// repeated.
    #[schema(value_type = Option<String>)]
    url: String,
}

/// What the making of a feed token takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
struct NewFeedToken {}

/// Make a token that reads your feeds and nothing else. It is shown this once.
#[utoipa::path(
    post, path = "/calendar/token", tag = "calendars", request_body = NewFeedToken,
    responses((status = 201, description = "Made.", body = CreatedFeedToken),
              (status = 409, description = "You have many already.", body = ProblemDocument))
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<TasksRead>,
    sent: Sent<NewFeedToken>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let (row, token) = store::create_token(change.conn(), caller.agent.id, now).await?;
    change.audit("feed_token.create", row.id, json!({"hint": row.hint})).await?;
    let url = format!("/calendar.ics?token={token}");
    let location = format!("/calendar/token/{}", row.id);
    let body = CreatedFeedToken { row: row.into(), token, url };
    let answer = Answer::new(StatusCode::CREATED, &body)?.location(location);
    change.finish_secret(answer, &["token", "url"]).await
}

/// List your feed tokens, the newest first, without their secrets. The list is short and comes whole.
#[utoipa::path(
    get, path = "/calendar/token", tag = "calendars",
    responses((status = 200, description = "All of them.", body = List<FeedToken>))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<TasksRead>,
) -> Result<Json<List<FeedToken>>, Problem> {
    let mut conn = api.conn().await?;
    let rows = store::tokens(&mut conn, caller.agent.id).await?;
    Ok(Json(List { items: rows.into_iter().map(FeedToken::from).collect(), next_cursor: None }))
}

/// Refuse a feed token from now on.
#[utoipa::path(
    delete, path = "/calendar/token/{id}", tag = "calendars",
    params(("id" = String, Path, description = "Id of the token.")),
    responses((status = 204, description = "Refused from now on."),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
async fn revoke(
    State(api): State<Api>,
    Path(id): Path<String>,
    caller: Caller<TasksRead>,
) -> Result<Answer, Problem> {
    let id: FeedTokenId = id.parse().map_err(|_| Problem::no_such("feed token", &id))?;
    let mut change = Change::plain(&api, &caller).await?;
    let row = store::revoke_token(change.conn(), caller.agent.id, id).await?;
    change.audit("feed_token.revoke", row.id, json!({"hint": row.hint})).await?;
    change.finish(Answer::nothing()).await
}
