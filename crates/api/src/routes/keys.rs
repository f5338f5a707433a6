//! `/agents/{id}/keys`: how agents prove who they are.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use orchestrator_engine::id::KeyId;
use orchestrator_engine::store::agent::{self, KeyRow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::agents::within;
use crate::auth::{AgentsAdmin, Caller};
use crate::body::Sent;
use crate::change::{Answer, Begun, Change};
use crate::page::List;
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// Its routes.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// A key, without its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Key {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: KeyId,
    /// How it begins, to tell keys apart.
    hint: String,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// Since when it is refused.
    revoked_at: Option<DateTime<Utc>>,
}

impl From<KeyRow> for Key {
    fn from(row: KeyRow) -> Self {
        let KeyRow { id, hint, created_at, revoked_at } = row;
        Self { id, hint, created_at, revoked_at }
    }
}

/// A key just made.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CreatedKey {
    #[serde(flatten)]
    row: Key,
    /// The key itself, this one time; null when the request is repeated.
    #[schema(value_type = Option<String>)]
    key: String,
}

/// What the making of a key takes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
struct NewKey {}

/// List an agent's keys, the newest first, without their secrets. The list is short and comes whole.
#[utoipa::path(
    get, path = "/agents/{id}/keys", tag = "agents",
    params(("id" = String, Path, description = "Id or name of the agent.")),
    responses((status = 200, description = "All of them.", body = List<Key>))
)]
async fn list(
    State(api): State<Api>,
    Path(reference): Path<String>,
    _: Caller<AgentsAdmin>,
) -> Result<Json<List<Key>>, Problem> {
    let mut conn = api.conn().await?;
    let owner = agent::get(&mut conn, &reference).await?;
    let items = agent::keys(&mut conn, owner.id).await?.into_iter().map(Key::from).collect();
    Ok(Json(List { items, next_cursor: None }))
}

/// Make a key for an agent. It is shown this once.
#[utoipa::path(
    post, path = "/agents/{id}/keys", tag = "agents",
    params(("id" = String, Path, description = "Id or name of the agent.")),
    request_body = NewKey,
    responses((status = 201, description = "Made.", body = CreatedKey),
              (status = 409, description = "It has many already.", body = ProblemDocument))
)]
async fn create(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<AgentsAdmin>,
    sent: Sent<NewKey>,
) -> Result<Answer, Problem> {
    let mut change = match Change::begin(&api, &caller, &sent.hash).await? {
        Begun::New(change) => change,
        Begun::Before(answer) => return Ok(answer),
    };
    let now = change.now;
    let owner = agent::get(change.conn(), &reference).await?;
    within(&caller.agent, &owner.scopes)?;
    let made = agent::create_key(change.conn(), owner.id, now).await?;
    let detail = json!({"agent_id": owner.id, "hint": made.row.hint});
    change.audit("key.create", made.row.id, detail).await?;
    let location = format!("/agents/{}/keys/{}", owner.id, made.row.id);
    let body = CreatedKey { row: made.row.into(), key: made.secret };
    let answer = Answer::new(StatusCode::CREATED, &body)?.location(location);
    change.finish_secret(answer, &["key"]).await
}

/// Refuse a key from now on, and every token made from it.
#[utoipa::path(
    delete, path = "/agents/{id}/keys/{key_id}", tag = "agents",
    params(("id" = String, Path, description = "Id or name of the agent."),
           ("key_id" = String, Path, description = "Id of the key.")),
    responses((status = 204, description = "Refused from now on."),
              (status = 404, description = "None.", body = ProblemDocument))
)]
async fn revoke(
    State(api): State<Api>,
    Path((reference, key)): Path<(String, String)>,
    caller: Caller<AgentsAdmin>,
) -> Result<Answer, Problem> {
    let key: KeyId = key.parse().map_err(|_| Problem::no_such("key", &key))?;
    let mut change = Change::plain(&api, &caller).await?;
    let now = change.now;
    let owner = agent::get(change.conn(), &reference).await?;
    within(&caller.agent, &owner.scopes)?;
    let revoked = agent::revoke_key(change.conn(), owner.id, key, now).await?;
    let detail = json!({"agent_id": owner.id, "hint": revoked.hint});
    change.audit("key.revoke", key, detail).await?;
    change.finish(Answer::nothing()).await
}
