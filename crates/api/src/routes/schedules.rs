//! `/schedules/preview`: what a schedule would do.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::schedule::calendar::Calendars;
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store::calendar::{self, CalendarCache};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Caller, Known};
use crate::body::Sent;
use crate::openapi::PreviewFields;
use crate::problem::{Problem, ProblemDocument};
use crate::read;
use crate::state::Api;
use crate::time;

/// The most fires of one preview.
const COUNT_MAX: u64 = 1_000;
/// How many fires when nobody says.
const COUNT_DEFAULT: u64 = 10;

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(preview))
}

/// What a schedule will do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Preview {
    /// The schedule in plain words.
    summary: String,
    /// The fires at or after `from`, in order, no instant twice.
    fires: Vec<Fire>,
    /// Whether nothing comes after the last of them.
    exhausted: bool,
}

/// One time at which a schedule fires.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Fire {
    /// The instant, in UTC.
    at: DateTime<Utc>,
    /// The same on the wall clock of the zone, with its offset.
    local: String,
    /// Why a clock change, an exclusion or jitter touches it.
    note: Option<String>,
}

/// Show what a schedule would do, without making a task.
#[utoipa::path(
    post, path = "/schedules/preview", tag = "schedules", request_body = PreviewFields,
    responses((status = 200, description = "The fires.", body = Preview),
              (status = 422, description = "What is wrong, with pointers.", body = ProblemDocument))
)]
async fn preview(
    State(api): State<Api>,
    caller: Caller<Known>,
    sent: Sent<Map<String, Value>>,
) -> Result<Json<Preview>, Problem> {
    let now = api.clock.now();
    let mut declared = sent.body;
    let mut problems = Vec::new();
    let count = take_count(&mut declared, &mut problems);
    let from = take_from(&mut declared, &mut problems).unwrap_or(now);
    api.options.fill_in_zone(&mut declared);
    let stand_ins = [("schedule_kind", json!("manual"))];
    let (spec, mistakes) = read::tolerant::<ScheduleSpec>(Value::Object(declared), &stand_ins);
    let readable = mistakes.is_empty();
    problems.extend(mistakes);
    let schedule = match spec {
        Some(spec) if readable => {
            let calendars = calendars(&api, &caller, &spec).await?;
            Schedule::compile_with(&spec, now, &calendars).map_err(|found| {
                problems.extend(found);
            })
        }
        _ => Err(()),
    };
    match schedule {
        Ok(schedule) if problems.is_empty() => Ok(Json(show(&schedule, from, count).await?)),
        _ => Err(Problem::invalid(problems)),
    }
}

/// The caller's calendars that the schedule names.
async fn calendars(
    api: &Api,
    caller: &Caller<Known>,
    spec: &ScheduleSpec,
) -> Result<Calendars, Problem> {
    if spec.calendars().is_empty() {
        return Ok(Calendars::default());
    }
    let mut conn = api.conn().await?;
    let mut cache = CalendarCache::default();
    Ok(calendar::of_schedule(&mut conn, caller.agent.id, spec, &mut cache).await?)
}

fn take_count(declared: &mut Map<String, Value>, problems: &mut Vec<Entry>) -> u64 {
    match declared.remove("count") {
        None | Some(Value::Null) => COUNT_DEFAULT,
        Some(count) => {
            count.as_u64().filter(|count| (1..=COUNT_MAX).contains(count)).unwrap_or_else(|| {
                let message = format!("must be a whole number from 1 to {COUNT_MAX}");
                problems.push(Entry::new("/count", message));
                COUNT_DEFAULT
            })
        }
    }
}

fn take_from(
    declared: &mut Map<String, Value>,
    problems: &mut Vec<Entry>,
) -> Option<DateTime<Utc>> {
    let given = declared.remove("from").filter(|given| !given.is_null())?;
    let from = time::read(given.as_str().unwrap_or_default());
    from.map_err(|said| problems.push(Entry::new("/from", said))).ok()
}

/// A thousand fires of a hard rule may take a second: not on a thread that serves others.
async fn show(schedule: &Schedule, from: DateTime<Utc>, count: u64) -> Result<Preview, Problem> {
    let schedule = schedule.clone();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let summary = schedule.summary().to_owned();
    let preview = tokio::task::spawn_blocking(move || schedule.preview(from, count, 0))
        .await
        .map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a preview panicked");
            Problem::internal()
        })?;
    let fires = preview.fires.into_iter().map(|fire| Fire {
        at: fire.at,
        local: fire.local,
        note: fire.note,
    });
    Ok(Preview { summary, fires: fires.collect(), exhausted: preview.exhausted })
}
