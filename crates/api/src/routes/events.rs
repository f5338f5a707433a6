//! `/events`: named messages, and what they started.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use orchestrator_engine::id::{self, AgentId, EventId, RunId, TaskId};
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::schedule::{check_event_key, check_topic};
use orchestrator_engine::store::event::{self, NewEvent};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Caller, EventsPublish, EventsRead};
use crate::body::{Sent, too_much};
use crate::change::{Answer, Begun, Change};
use crate::page::{List, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, publish)).routes(routes!(show))
}

/// An event to be published.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PublishEvent {
    /// Words joined by dots: `mail.arrived`.
    topic: String,
    /// What it carries.
    #[serde(default)]
    payload: Value,
    /// Your name for it: a second event of yours with this key is not kept.
    #[serde(default)]
    key: Option<String>,
}

/// The event that stands for what was published.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PublishedEvent {
    /// The new event, or the one that has the key.
    #[schema(value_type = uuid::Uuid)]
    event_id: EventId,
    /// Whether it is an earlier one.
    deduplicated: bool,
}

/// Publish an event: tasks that wait for its topic run.
#[utoipa::path(
    post, path = "/events", tag = "events", request_body = PublishEvent,
    responses((status = 202, description = "Kept.", body = PublishedEvent,
               headers(("Location" = String))),
              (status = 422, description = "What is wrong, with pointers.", body = ProblemDocument))
)]
async fn publish(
    State(api): State<Api>,
    caller: Caller<EventsPublish>,
    sent: Sent<PublishEvent>,
) -> Result<Answer, Problem> {
    check(&sent.body, api.options.data_max_bytes)?;
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let new = NewEvent {
        id: EventId::new(change.now, &mut id::rng()),
        topic: sent.body.topic,
        payload: sent.body.payload,
        key: sent.body.key,
        agent_id: Some(caller.agent.id),
        stream_id: None,
        received_at: change.now,
    };
    let published = event::publish(change.conn(), &new).await?;
    let detail = json!({"topic": new.topic, "deduplicated": published.deduplicated});
    change.audit("event.publish", published.event_id, detail).await?;
    let body =
        PublishedEvent { event_id: published.event_id, deduplicated: published.deduplicated };
    let answer = Answer::new(StatusCode::ACCEPTED, &body)?
        .location(format!("/events/{}", published.event_id));
    let answer = change.finish(answer).await?;
    if !published.deduplicated {
        let count = &api.metrics.process().events;
        count.with_label_values(&["in"]).inc();
        if api.streams.add_event(new.id, &new.topic, &new.payload).await {
            count.with_label_values(&["out"]).inc();
        }
    }
    Ok(answer)
}

fn check(event: &PublishEvent, data_max_bytes: usize) -> Result<(), Problem> {
    let mut problems = Vec::new();
    problems.extend(too_much(&event.payload, "/payload", data_max_bytes));
    if let Err(message) = check_topic(&event.topic) {
        problems.push(Entry::new("/topic", message));
    }
    if let Some(Err(message)) = event.key.as_deref().map(check_event_key) {
        problems.push(Entry::new("/key", message));
    }
    if problems.is_empty() { Ok(()) } else { Err(Problem::invalid(problems)) }
}

/// An event.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Event {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: EventId,
    /// Its topic.
    topic: String,
    /// What it carries.
    payload: Value,
    /// The sender's name for it.
    key: Option<String>,
    /// Who published it; null: another program, through the stream.
    #[schema(value_type = Option<uuid::Uuid>)]
    agent_id: Option<AgentId>,
    /// When it was received.
    received_at: DateTime<Utc>,
    /// When its runs were made.
    consumed_at: Option<DateTime<Utc>>,
}

impl From<event::Event> for Event {
    fn from(row: event::Event) -> Self {
        Self {
            id: row.id,
            topic: row.topic,
            payload: row.payload,
            key: row.key,
            agent_id: row.agent_id,
            received_at: row.received_at,
            consumed_at: row.consumed_at,
        }
    }
}

/// An event and what it started.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct EventDetail {
    #[serde(flatten)]
    event: Event,
    /// The runs it started, or that stand for those it would have started; at most one of each task.
    runs: Vec<StartedRun>,
}

/// A run that an event started, or that stands for it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct StartedRun {
    #[schema(value_type = uuid::Uuid)]
    task_id: TaskId,
    #[schema(value_type = uuid::Uuid)]
    run_id: RunId,
}

/// List events, the newest first.
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(
        ("topic" = Option<String>, Query, description = "Exactly this topic."),
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<Event>))
)]
async fn list(
    State(api): State<Api>,
    _: Caller<EventsRead>,
    mut query: Query,
) -> Result<Json<List<Event>>, Problem> {
    let topic = query.text("topic");
    let page = query.page();
    query.done()?;
    let mut conn = api.conn().await?;
    let rows = event::list(&mut conn, topic.as_deref(), page.cursor, page.ask()).await?;
    Ok(Json(page.of(rows, |row| row.id.to_string(), Event::from)))
}

/// Show an event and the runs it started.
#[utoipa::path(
    get, path = "/events/{id}", tag = "events",
    params(("id" = String, Path, description = "Id.")),
    responses((status = 200, description = "The event.", body = EventDetail),
              (status = 404, description = "None.", body = ProblemDocument))
)]
async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
    _: Caller<EventsRead>,
) -> Result<Json<EventDetail>, Problem> {
    let id: EventId = id.parse().map_err(|_| Problem::no_such("event", &id))?;
    let mut conn = api.conn().await?;
    let (row, started) = event::get(&mut conn, id).await?;
    let runs =
        started.into_iter().map(|one| StartedRun { task_id: one.task_id, run_id: one.run_id });
    Ok(Json(EventDetail { event: row.into(), runs: runs.collect() }))
}
