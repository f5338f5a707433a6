//! `/auth/token`: a short-lived token for a key (OAuth 2.0 client credentials, RFC 6749 §4.4).
//!
//! The one POST that makes something and takes no `Idempotency-Key`: a repetition makes another token and
//! harms nothing, and keeping the answer would mean keeping the token.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::agent::{self, Caller, TOKEN_PREFIX};
use orchestrator_engine::store::audit::{self, NewAudit};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::failed;
use crate::body;
use crate::client;
use crate::frame::RequestId;
use crate::problem::{Problem, ProblemDocument};
use crate::read;
use crate::state::Api;

/// Its route.
pub fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(token))
}

/// Who asks. Fields that OAuth knows and we do not are passed over (RFC 6749 §3.2).
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
struct TokenRequest {
    /// `client_credentials`.
    #[serde(default)]
    #[schema(required = true, value_type = String)]
    grant_type: Option<String>,
    /// Name or id of the agent; or in HTTP Basic.
    #[serde(default)]
    client_id: Option<String>,
    /// One of its keys; or in HTTP Basic.
    #[serde(default)]
    client_secret: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[expect(clippy::struct_field_names, reason = "the names of RFC 6749 §5.1")]
struct AccessToken {
    /// Send it as `Authorization: Bearer …`.
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// For how many seconds it is good.
    expires_in: u64,
    /// What its agent may do, separated by blanks.
    scope: String,
}

/// Get a short-lived token for a key.
#[utoipa::path(
    post, path = "/auth/token", tag = "agents", security(()),
    request_body(content(
        (TokenRequest = "application/x-www-form-urlencoded"), (TokenRequest = "application/json"))),
    responses((status = 200, description = "The token.", body = AccessToken),
              (status = 401, description = "Unknown, or not its key.", body = ProblemDocument),
              (status = 429, description = "Too many failures.", body = ProblemDocument))
)]
async fn token(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    let client = request.extensions().get().copied();
    let request_id = request.extensions().get::<RequestId>().cloned();
    let (parts, sent) = request.into_parts();
    let bytes = body::all_bytes(&parts.headers, sent, body::MAX_BYTES).await?;
    let asked = read_request(&parts.headers, &bytes)?;
    if asked.grant_type.as_deref() != Some("client_credentials") {
        return Err(Problem::invalid_at("/grant_type", "must be client_credentials"));
    }
    let Some(caller) = recognise(&api, &asked).await? else {
        let refused = Problem::unauthorized("no agent of this name or id has this key")
            .with_basic_challenge();
        return Err(failed(&api, client, refused));
    };
    let lifetime = api.options.token_lifetime;
    let now = api.clock.now();
    let doing = "make an access token";
    let mut tx = api.pool.begin().await.map_err(StoreError::while_trying(doing))?;
    let access_token = agent::issue_token(&mut tx, caller.key_id, lifetime, now).await?;
    let row = NewAudit {
        at: now,
        agent_id: Some(caller.agent.id),
        action: "token.issue",
        object_kind: "key",
        object_id: &caller.key_id.to_string(),
        request_id: request_id.as_ref().map(|id| id.0.as_str()),
        detail: client::in_detail(json!({}), client),
    };
    audit::record(&mut tx, &row).await?;
    tx.commit().await.map_err(StoreError::while_trying(doing))?;
    let made = AccessToken {
        access_token,
        token_type: "Bearer",
        expires_in: lifetime.as_secs(),
        scope: caller.agent.scopes.join(" "),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(made)).into_response())
}

fn read_request(headers: &HeaderMap, bytes: &[u8]) -> Result<TokenRequest, Problem> {
    let mut asked: TokenRequest = match body::media_type(headers).as_str() {
        _ if bytes.is_empty() => TokenRequest::default(),
        "application/x-www-form-urlencoded" => serde_urlencoded::from_bytes(bytes)
            .map_err(|_| Problem::bad_request("the form is not of the form name=value&…"))?,
        "application/json" => read::exact(body::parse(bytes)?).map_err(Problem::invalid)?,
        _ => {
            return Err(Problem::media_type(
                "application/x-www-form-urlencoded or application/json",
            ));
        }
    };
    if let Some((id, secret)) = basic(headers) {
        asked.client_id = Some(id);
        asked.client_secret = Some(secret);
    }
    Ok(asked)
}

/// User and password of HTTP Basic (RFC 7617), where they are sent.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::prelude::BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// Whose key it is, if it is the key of whom the request names. A token makes no further token:
/// it would live for ever.
async fn recognise(api: &Api, asked: &TokenRequest) -> Result<Option<Caller>, Problem> {
    let (Some(id), Some(secret)) = (&asked.client_id, &asked.client_secret) else {
        return Ok(None);
    };
    if secret.starts_with(TOKEN_PREFIX) {
        return Ok(None);
    }
    let mut conn = api.conn().await?;
    let found = agent::authenticate(&mut conn, &[secret], api.clock.now()).await?.pop().flatten();
    Ok(found.filter(|caller| caller.agent.name == *id || caller.agent.id.to_string() == *id))
}
