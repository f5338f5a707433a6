//! `/agents`: who may call.
//!
//! Whoever administers agents can give away no more than it has: otherwise `agents:admin` would be
//! another word for `admin`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use orchestrator_engine::agent::{Agent as Known, check_scope};
use orchestrator_engine::id::AgentId;
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::store::agent::{self, AgentRow, check_name};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{AgentsAdmin, Caller};
use crate::body::Sent;
use crate::change::{Answer, Begun, Change};
use crate::page::{List, Query};
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, patch))
}

/// An agent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Agent {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: AgentId,
    /// Its name, unique.
    name: String,
    /// What it may do.
    scopes: Vec<String>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// Since when it is refused.
    disabled_at: Option<DateTime<Utc>>,
}

impl From<AgentRow> for Agent {
    fn from(row: AgentRow) -> Self {
        let AgentRow { id, name, scopes, created_at, disabled_at } = row;
        Self { id, name, scopes, created_at, disabled_at }
    }
}

/// An agent to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAgent {
    /// Letters, digits, `-`, `_`, `.`.
    name: String,
    /// What it may do.
    scopes: Vec<String>,
}

/// What is to be changed of an agent.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
struct PatchAgent {
    /// What it may do from now on.
    scopes: Option<Vec<String>>,
    /// Whether it is refused from now on.
    disabled: Option<bool>,
}

fn check_scopes(scopes: &[String], problems: &mut Vec<Entry>) {
    for (index, scope) in scopes.iter().enumerate() {
        if let Err(message) = check_scope(scope) {
            problems.push(Entry::new(format!("/scopes/{index}"), message));
        }
    }
}

/// Refuses to touch what is beyond the caller: an agent that may do something the caller may not.
pub(super) fn within(caller: &Known, scopes: &[String]) -> Result<(), Problem> {
    match scopes.iter().find(|scope| !caller.may(scope)) {
        None => Ok(()),
        Some(scope) => Err(Problem::forbidden(format!(
            "you do not have the scope {scope} yourself, so you can neither give it nor administer \
             an agent that has it"
        ))),
    }
}

/// List agents, the newest first.
#[utoipa::path(
    get, path = "/agents", tag = "agents",
    params(
        ("limit" = Option<i64>, Query, description = "1 to 200; default 50."),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the page before."),
    ),
    responses((status = 200, description = "A page.", body = List<Agent>))
)]
async fn list(
    State(api): State<Api>,
    _: Caller<AgentsAdmin>,
    mut query: Query,
) -> Result<Json<List<Agent>>, Problem> {
    let page = query.page();
    query.done()?;
    let mut conn = api.conn().await?;
    let rows = agent::list(&mut conn, page.cursor, page.ask()).await?;
    Ok(Json(page.of(rows, |row| row.id.to_string(), Agent::from)))
}

/// Make an agent. It can call once it has a key.
#[utoipa::path(
    post, path = "/agents", tag = "agents", request_body = NewAgent,
    responses((status = 201, description = "Made.", body = Agent, headers(("Location" = String))),
              (status = 409, description = "The name is taken.", body = ProblemDocument),
              (status = 422, description = "What is wrong, with pointers.", body = ProblemDocument))
)]
async fn create(
    State(api): State<Api>,
    caller: Caller<AgentsAdmin>,
    sent: Sent<NewAgent>,
) -> Result<Answer, Problem> {
    let new = &sent.body;
    let mut problems = Vec::new();
    if let Err(message) = check_name(&new.name) {
        problems.push(Entry::new("/name", message));
    }
    check_scopes(&new.scopes, &mut problems);
    if !problems.is_empty() {
        return Err(Problem::invalid(problems));
    }
    within(&caller.agent, &new.scopes)?;
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let made = Agent::from(agent::create(change.conn(), &new.name, &new.scopes, now).await?);
    let detail = json!({"name": made.name, "scopes": made.scopes});
    change.audit("agent.create", made.id, detail).await?;
    let answer = Answer::new(StatusCode::CREATED, &made)?.location(format!("/agents/{}", made.id));
    change.finish(answer).await
}

/// Show an agent.
#[utoipa::path(
    get, path = "/agents/{id}", tag = "agents",
    params(("id" = String, Path, description = "Id or name.")),
    responses((status = 200, description = "The agent.", body = Agent),
              (status = 404, description = "None.", body = ProblemDocument))
)]
async fn show(
    State(api): State<Api>,
    Path(reference): Path<String>,
    _: Caller<AgentsAdmin>,
) -> Result<Json<Agent>, Problem> {
    let mut conn = api.conn().await?;
    Ok(Json(agent::get(&mut conn, &reference).await?.into()))
}

/// Change what an agent may do, or refuse it. A refused agent keeps its tasks.
#[utoipa::path(
    patch, path = "/agents/{id}", tag = "agents",
    params(("id" = String, Path, description = "Id or name.")),
    request_body = PatchAgent,
    responses((status = 200, description = "As it is now.", body = Agent),
              (status = 409, description = "It is the last admin.", body = ProblemDocument))
)]
async fn patch(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<AgentsAdmin>,
    sent: Sent<PatchAgent>,
) -> Result<Answer, Problem> {
    let patch = &sent.body;
    let scopes = patch.scopes.as_deref();
    let mut problems = Vec::new();
    check_scopes(scopes.unwrap_or_default(), &mut problems);
    if !problems.is_empty() {
        return Err(Problem::invalid(problems));
    }
    let mut change = Change::plain(&api, &caller).await?;
    let now = change.now;
    let before = agent::get(change.conn(), &reference).await?;
    within(&caller.agent, &before.scopes)?;
    within(&caller.agent, scopes.unwrap_or_default())?;
    let after = agent::update(change.conn(), before.id, scopes, patch.disabled, now).await?;
    let detail = json!({
        "scopes": {"before": before.scopes, "after": after.scopes},
        "disabled": after.disabled_at.is_some(),
    });
    change.audit("agent.update", after.id, detail).await?;
    let answer = Answer::new(StatusCode::OK, &Agent::from(after))?;
    change.finish(answer).await
}
