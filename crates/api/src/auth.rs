//! Who calls, and whether they may.
//!
//! [`authenticate`] stands before every route that is not public: it recognises the key or token,
//! counts the request, and hands the caller on. A handler names the scope it needs in the type of
//! its argument: `caller: Caller<TasksWrite>`.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use orchestrator_engine::agent::Agent;
use orchestrator_engine::id::AgentId;
use orchestrator_engine::store::idempotency;

use crate::callers::Recognised;
use crate::client::Client;
use crate::frame::RequestId;
use crate::problem::Problem;
use crate::routes::feed;
use crate::state::Api;

/// The longest key or token looked at, in bytes.
const SECRET_MAX: usize = 512;

/// A scope, as a type.
pub trait Scope: Send + Sync + 'static {
    /// Its name; `None`: whoever is known may.
    const NAME: Option<&'static str>;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $type:ident = $name:expr,)+) => {
        $($(#[$doc])*
        pub enum $type {}
        impl Scope for $type {
            const NAME: Option<&'static str> = $name;
        })+
    };
}

scopes! {
    /// Whoever is known.
    Known = None,
    /// Reads tasks.
    TasksRead = Some("tasks:read"),
    /// Changes tasks.
    TasksWrite = Some("tasks:write"),
    /// Reads runs.
    RunsRead = Some("runs:read"),
    /// Starts, ends and retries runs.
    RunsWrite = Some("runs:write"),
    /// Publishes events.
    EventsPublish = Some("events:publish"),
    /// Reads events.
    EventsRead = Some("events:read"),
    /// Says who may call.
    AgentsAdmin = Some("agents:admin"),
    /// Reads who did what.
    AuditRead = Some("audit:read"),
    /// Everything.
    Admin = Some("admin"),
}

/// Who a request comes from, as an extension of it.
#[derive(Clone)]
struct Identity(Arc<Agent>);

/// Who calls, known to have the scope `S`, and what the request says besides its body.
pub struct Caller<S> {
    /// The agent.
    pub agent: Arc<Agent>,
    /// The request's id.
    pub request_id: String,
    /// Where it comes from.
    pub client: Option<Client>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// `If-Match`: versions that the change may be made to; `None`: any.
    pub if_match: Option<Vec<i32>>,
    scope: PhantomData<S>,
}

impl<S> Caller<S> {
    /// Whose objects the caller sees: its own, or with `None` everybody's.
    #[must_use]
    pub fn sees(&self) -> Option<AgentId> {
        if self.agent.is_admin() { None } else { Some(self.agent.id) }
    }

    /// Refuses a change of something that is not at a version named in `If-Match` (RFC 9110 §13.1.1).
    ///
    /// # Errors
    ///
    /// 412.
    pub fn check_version(&self, version: i32) -> Result<(), Problem> {
        match &self.if_match {
            Some(wanted) if !wanted.contains(&version) => Err(Problem::stale(version)),
            _ => Ok(()),
        }
    }
}

impl<S: Scope> FromRequestParts<Api> for Caller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Some(Identity(agent)) = parts.extensions.get::<Identity>().cloned() else {
            // A route outside the layer by mistake: refuse rather than let anybody in.
            return Err(Problem::unauthorized("send Authorization: Bearer <key or token>"));
        };
        if let Some(scope) = S::NAME
            && !agent.may(scope)
        {
            api.metrics.api().refused.with_label_values(&["forbidden"]).inc();
            return Err(Problem::missing_scope(scope));
        }
        Ok(Self {
            agent,
            request_id: parts
                .extensions
                .get::<RequestId>()
                .map_or_else(String::new, |id| id.0.clone()),
            client: parts.extensions.get().copied(),
            idempotency_key: idempotency_key(&parts.headers)?,
            if_match: if_match(&parts.headers)?,
            scope: PhantomData,
        })
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    let fine = (1..=idempotency::KEY_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if fine {
        return Ok(Some(key.to_owned()));
    }
    Err(Problem::bad_header(format!(
        "Idempotency-Key: must have 1 to {} visible ASCII characters",
        idempotency::KEY_MAX
    )))
}

/// The versions that `If-Match` names; `None` where it is missing or `*`. A weak tag never matches
/// (RFC 9110 §13.1.1), so it stands for no version.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<i32>>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let wrong = || {
        Problem::bad_header("If-Match: must be * or entity tags such as \"3\", as ETag gave them")
    };
    let tags: Option<Vec<Option<i32>>> = text
        .split(',')
        .map(|tag| {
            let tag = tag.trim();
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let opaque = strong.strip_prefix('"')?.strip_suffix('"')?;
            Some(if tag.starts_with("W/") { None } else { opaque.parse().ok() })
        })
        .collect();
    Ok(Some(tags.ok_or_else(wrong)?.into_iter().flatten().collect()))
}

/// Recognises the caller of every route behind it, and counts the request against its rate limit.
pub async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let client = request.extensions().get().copied();
    let known = match feed::secret(&request) {
        Some(secret) => recognise_feed(&api, &secret).await,
        None => recognise(&api, request.headers()).await,
    };
    let (agent, decision) = match known {
        Ok(known) => known,
        Err(problem) => return failed(&api, client, problem).into_response(),
    };
    let mut response = match &decision {
        Some(decision) if !decision.allowed => {
            api.metrics.api().refused.with_label_values(&["rate_limited"]).inc();
            Problem::rate_limited(decision.retry_after).into_response()
        }
        _ => {
            request.extensions_mut().insert(Identity(agent));
            next.run(request).await
        }
    };
    if let Some(decision) = &decision {
        api.limits.write_headers(response.headers_mut(), decision);
    }
    response
}

/// Counts a failure to say who one is; too many are answered as such.
pub(crate) fn failed(api: &Api, client: Option<Client>, problem: Problem) -> Problem {
    if problem.status() != axum::http::StatusCode::UNAUTHORIZED {
        return problem;
    }
    let decision = api.limits.count_failure(client);
    let reason = if decision.allowed { "unauthorized" } else { "rate_limited" };
    api.metrics.api().refused.with_label_values(&[reason]).inc();
    if decision.allowed { problem } else { Problem::rate_limited(decision.retry_after) }
}

async fn recognise(api: &Api, headers: &HeaderMap) -> Result<Recognised, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(Problem::unauthorized("send Authorization: Bearer <key or token>"));
    };
    let text = value.to_str().unwrap_or_default();
    let (scheme, secret) = text.split_once(' ').unwrap_or((text, ""));
    let secret = secret.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || secret.is_empty() || secret.len() > SECRET_MAX {
        return Err(Problem::unauthorized("send Authorization: Bearer <key or token>"));
    }
    api.callers.ask(secret.to_owned()).await?
}

/// Whoever made the feed token; it opens nothing but what [`feed::secret`] looks at.
async fn recognise_feed(api: &Api, secret: &str) -> Result<Recognised, Problem> {
    let mut conn = api.conn().await?;
    let found = if secret.len() > SECRET_MAX {
        None
    } else {
        orchestrator_engine::store::feed::authenticate(&mut conn, secret).await?
    };
    drop(conn);
    let agent = found.ok_or_else(Problem::invalid_token)?;
    let decision = api.limits.count_agents(&[agent.id]).await.pop().flatten();
    Ok((Arc::new(agent), decision))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, value.parse().unwrap());
        headers
    }

    #[test]
    fn if_match_names_versions_and_weak_tags_match_none() {
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), None);
        assert_eq!(if_match(&headers("*")).unwrap(), None);
        assert_eq!(if_match(&headers("\"3\", \"4\"")).unwrap(), Some(vec![3, 4]));
        assert_eq!(if_match(&headers("W/\"3\"")).unwrap(), Some(vec![]));
        assert_eq!(if_match(&headers("\"abc\"")).unwrap(), Some(vec![]));
        assert!(if_match(&headers("3")).is_err());
    }
}
