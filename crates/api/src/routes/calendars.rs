//! `/calendars`: named dates on which schedules rest.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDate, Utc};
use orchestrator_engine::id::{AgentId, CalendarId, TaskId};
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::schedule::calendar::{self as ics, Reading};
use orchestrator_engine::store::agent;
use orchestrator_engine::store::calendar::{self, CalendarRow, User};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Caller, TasksRead, TasksWrite};
use crate::body::{Sent, SentCalendar};
use crate::change::{Answer, Begun, Change};
use crate::page::{List, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// What an iCalendar file is sent as.
pub const MEDIA_TYPE: &str = "text/calendar; charset=utf-8";

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, put, delete))
        .routes(routes!(dates))
}

/// A calendar: dates on which nothing fires, for tasks that name it in `exclude`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Calendar {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: CalendarId,
    /// What tasks call it: `calendar:<name>` in `exclude`.
    name: String,
    /// Counts the uploads; the entity tag.
    version: i32,
    /// How many events of the file exclude a date.
    events: i32,
    /// How many dates it excludes.
    dates: i32,
    /// The earliest of them.
    #[schema(value_type = String, format = Date)]
    first: NaiveDate,
    /// The latest of them.
    #[schema(value_type = String, format = Date)]
    last: NaiveDate,
    /// The tasks that name it, at most a hundred.
    used_by: Vec<UsedBy>,
    /// The name of the agent that owns it.
    created_by: String,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was last replaced.
    updated_at: DateTime<Utc>,
}

/// A task that names a calendar.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct UsedBy {
    /// The task.
    #[schema(value_type = uuid::Uuid)]
    id: TaskId,
    /// Its name.
    name: Option<String>,
}

impl From<User> for UsedBy {
    fn from(User { id, name }: User) -> Self {
        Self { id, name }
    }
}

/// A date of a calendar.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CalendarDate {
    /// The date.
    #[schema(value_type = String, format = Date)]
    date: NaiveDate,
    /// What its event is called; empty where nobody says.
    name: String,
}

/// A calendar for clients that send JSON only.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCalendar {
    /// A slug, unique among your calendars.
    #[schema(example = "de-holidays")]
    name: String,
    /// The iCalendar file.
    ics: String,
}

async fn shown(conn: &mut PgConnection, row: CalendarRow) -> Result<Calendar, Problem> {
    let used_by = calendar::users(conn, row.agent_id, &row.name).await?;
    Ok(Calendar {
        id: row.id,
        name: row.name,
        version: row.version,
        events: row.events,
        dates: row.dates,
        first: row.first,
        last: row.last,
        used_by: used_by.into_iter().map(UsedBy::from).collect(),
        created_by: row.owner,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// Whose calendars are meant: those of the agent that `agent` names, or the caller's own.
async fn owner<S>(
    conn: &mut PgConnection,
    caller: &Caller<S>,
    named: Option<String>,
) -> Result<AgentId, Problem> {
    let own = |name: &String| *name == caller.agent.name || *name == caller.agent.id.to_string();
    let Some(named) = named.filter(|name| !own(name)) else { return Ok(caller.agent.id) };
    if !caller.agent.is_admin() {
        return Err(Problem::forbidden("only an admin sees and changes the calendars of others"));
    }
    Ok(agent::get(conn, &named).await?.id)
}

/// List calendars, the newest first: your own; an admin's list has everybody's.
#[utoipa::path(
    get, path = "/calendars", tag = "calendars",
    params(
        ("agent" = Option<String>, Query, description = "Only those of this agent."),
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<Calendar>),
              (status = 404, description = "There is no such agent.", body = ProblemDocument))
)]
async fn list(
    State(api): State<Api>,
    caller: Caller<TasksRead>,
    mut query: Query,
) -> Result<Json<List<Calendar>>, Problem> {
    let named = query.text("agent");
    let page = query.page();
    query.done()?;
    let mut conn = api.conn().await?;
    let of = match named {
        None => caller.sees(),
        named => Some(owner(&mut conn, &caller, named).await?),
    };
    let rows = calendar::list(&mut conn, of, page.cursor, page.ask()).await?;
    let mut calendars = Vec::with_capacity(rows.len());
    for row in rows {
        calendars.push(shown(&mut conn, row).await?);
    }
    Ok(Json(page.of(calendars, |row| row.id.to_string(), |row| row)))
}

/// Show a calendar; with `Accept: text/calendar`, the file as it was uploaded.
#[utoipa::path(
    get, path = "/calendars/{name}", tag = "calendars",
    params(("name" = String, Path, description = "Its name."),
           ("agent" = Option<String>, Query, description = "Whose, where an admin asks.")),
    responses((status = 200, description = "The calendar.", body = Calendar, headers(("ETag" = String))),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
async fn show(
    State(api): State<Api>,
    Path(name): Path<String>,
    caller: Caller<TasksRead>,
    headers: HeaderMap,
    mut query: Query,
) -> Result<Response, Problem> {
    let named = query.text("agent");
    query.done()?;
    let mut conn = api.conn().await?;
    let owner = owner(&mut conn, &caller, named).await?;
    let row = calendar::get(&mut conn, owner, &name).await?;
    let etag = format!("\"{}\"", row.version);
    let wants_file = headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|accept| accept.contains("text/calendar")));
    let mut response = if wants_file {
        let file = calendar::file(&mut conn, row.id).await?;
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], file).into_response()
    } else {
        Json(shown(&mut conn, row).await?).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, header::HeaderValue::from_static("Accept"));
    if let Ok(etag) = etag.parse() {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

/// Show the dates of a calendar, the earliest first. They come whole: there are at most 20,000.
#[utoipa::path(
    get, path = "/calendars/{name}/dates", tag = "calendars",
    params(("name" = String, Path, description = "Its name."),
           ("from" = Option<String>, Query, description = "Not before this date."),
           ("to" = Option<String>, Query, description = "Not after this date."),
           ("agent" = Option<String>, Query, description = "Whose, where an admin asks.")),
    responses((status = 200, description = "The dates.", body = List<CalendarDate>),
              (status = 404, description = "None, or not yours.", body = ProblemDocument))
)]
async fn dates(
    State(api): State<Api>,
    Path(name): Path<String>,
    caller: Caller<TasksRead>,
    mut query: Query,
) -> Result<Json<List<CalendarDate>>, Problem> {
    let from = date(&mut query, "from").unwrap_or(NaiveDate::MIN);
    let to = date(&mut query, "to").unwrap_or(NaiveDate::MAX);
    let named = query.text("agent");
    query.done()?;
    let mut conn = api.conn().await?;
    let owner = owner(&mut conn, &caller, named).await?;
    let id = calendar::get(&mut conn, owner, &name).await?.id;
    let found = calendar::dates(&mut conn, id).await?;
    let wanted = found.dates().iter().filter(|(date, _)| (from..=to).contains(date));
    let items = wanted.map(|(date, name)| CalendarDate { date: *date, name: name.clone() });
    Ok(Json(List { items: items.collect(), next_cursor: None }))
}

fn date(query: &mut Query, name: &'static str) -> Option<NaiveDate> {
    let text = query.text(name)?;
    let date = text.parse().ok();
    if date.is_none() {
        query.refuse(name, "must be a date such as 2026-12-24");
    }
    date
}

/// Make a calendar from an iCalendar file, or replace it.
///
/// Every date that one of its events covers is excluded, repeated events from five years before to
/// thirty years after today. Tasks that name it follow the new dates at once; what is in their ledgers
/// already stays as it is.
#[utoipa::path(
    put, path = "/calendars/{name}", tag = "calendars",
    params(("name" = String, Path, description = "Its name."),
           ("agent" = Option<String>, Query, description = "Whose, where an admin asks."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body(content = String, content_type = "text/calendar"),
    responses(
        (status = 200, description = "Replaced.", body = Calendar, headers(("ETag" = String))),
        (status = 201, description = "Made.", body = Calendar, headers(("Location" = String), ("ETag" = String))),
        (status = 412, description = "Replaced meanwhile.", body = ProblemDocument),
        (status = 413, description = "More than 1 MiB.", body = ProblemDocument),
        (status = 422, description = "Which event, which line, what is wrong.", body = ProblemDocument),
    )
)]
async fn put(
    State(api): State<Api>,
    Path(name): Path<String>,
    caller: Caller<TasksWrite>,
    mut query: Query,
    SentCalendar(sent): SentCalendar,
) -> Result<Answer, Problem> {
    let named = query.text("agent");
    query.done()?;
    let text = ics::text_of(&sent).map_err(|said| Problem::invalid_at("", said))?.to_owned();
    if let Err(said) = ics::check_name(&name) {
        return Err(Problem::not_found(format!("no calendar is called {name:?}: a name {said}")));
    }
    let file = read(&api, text, "").await?;
    let mut change = Change::plain(&api, &caller).await?;
    let owner = owner(change.conn(), &caller, named).await?;
    keep(&api, &caller, change, owner, &name, &file).await
}

/// Make a calendar: as `PUT /calendars/{name}`, for clients that send JSON only.
#[utoipa::path(
    post, path = "/calendars", tag = "calendars",
    params(("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body = NewCalendar,
    responses(
        (status = 200, description = "Replaced.", body = Calendar),
        (status = 201, description = "Made.", body = Calendar),
        (status = 422, description = "Which event, which line, what is wrong.", body = ProblemDocument),
    )
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<TasksWrite>,
    sent: Sent<NewCalendar>,
) -> Result<Answer, Problem> {
    let NewCalendar { name, ics: text } = sent.body;
    let wrong = |said| Problem::invalid_at("/ics", said);
    ics::check_name(&name).map_err(|said| Problem::invalid_at("/name", said))?;
    let text = ics::text_of(text.as_bytes()).map_err(wrong)?.to_owned();
    let file = read(&api, text, "/ics").await?;
    let change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    keep(&api, &caller, change, caller.agent.id, &name, &file).await
}

/// A file, and what it came to.
struct Understood {
    text: String,
    reading: Reading,
}

/// Reads a file, which stands at `pointer` of what was sent. A large one may take a second: not on a
/// thread that serves others, and not in a transaction.
async fn read(api: &Api, text: String, pointer: &str) -> Result<Understood, Problem> {
    let today = api.clock.now().date_naive();
    let (reading, text) = tokio::task::spawn_blocking(move || (ics::read(&text, today), text))
        .await
        .map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "reading a calendar panicked");
            Problem::internal()
        })?;
    let reading = reading.map_err(|said| {
        Problem::invalid(said.into_iter().map(|one| Entry::new(pointer, one)).collect())
    })?;
    Ok(Understood { text, reading })
}

/// Keeps the file as the calendar `name`.
async fn keep(
    api: &Api,
    caller: &Caller<TasksWrite>,
    mut change: Change,
    owner: AgentId,
    name: &str,
    file: &Understood,
) -> Result<Answer, Problem> {
    let now = change.now;
    let only_at = caller.if_match.as_deref();
    let Understood { text, reading } = file;
    let (is_new, touched) =
        calendar::put(change.conn(), owner, name, text, reading, only_at, now).await?;
    let row = calendar::get(change.conn(), owner, name).await?;
    let action = if is_new { "calendar.create" } else { "calendar.update" };
    let detail = json!({"name": name, "owner": owner, "dates": row.dates, "tasks": touched});
    change.audit(action, row.id, detail).await?;
    let shown = shown(change.conn(), row).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut answer = Answer::new(status, &shown)?.etag(shown.version);
    if is_new {
        answer = answer.location(format!("/calendars/{name}"));
    }
    let answer = change.finish(answer).await?;
    if touched > 0 {
        api.streams.wake_scheduler().await;
    }
    Ok(answer)
}

/// Delete a calendar that no task names.
#[utoipa::path(
    delete, path = "/calendars/{name}", tag = "calendars",
    params(("name" = String, Path, description = "Its name."),
           ("agent" = Option<String>, Query, description = "Whose, where an admin asks."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    responses((status = 204, description = "Deleted."),
              (status = 404, description = "None, or not yours.", body = ProblemDocument),
              (status = 409, description = "Tasks name it; the answer says which.", body = ProblemDocument))
)]
async fn delete(
    State(api): State<Api>,
    Path(name): Path<String>,
    caller: Caller<TasksWrite>,
    mut query: Query,
) -> Result<Answer, Problem> {
    let named = query.text("agent");
    query.done()?;
    let mut change = Change::plain(&api, &caller).await?;
    let owner = owner(change.conn(), &caller, named).await?;
    let row = calendar::get(change.conn(), owner, &name).await?;
    caller.check_version(row.version)?;
    calendar::delete(change.conn(), owner, &name).await?;
    change.audit("calendar.delete", row.id, json!({"name": name, "owner": owner})).await?;
    change.finish(Answer::nothing()).await
}
