//! One change by a caller: what it does, the record of who did it, and the answer kept for its
//! repetition share one transaction, so that all of them happen or none.

use std::fmt::Display;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use orchestrator_engine::id::AgentId;
use orchestrator_engine::store::StoreError;
use orchestrator_engine::store::audit::{self, NewAudit};
use orchestrator_engine::store::idempotency::{self, Claim};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};

use crate::auth::Caller;
use crate::client::{self, Client};
use crate::problem::Problem;
use crate::state::Api;

/// Says that the answer is that of an earlier request with the same key.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The answer to a change.
#[derive(Clone, Debug)]
pub struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Value,
}

impl Answer {
    /// An answer with a body.
    ///
    /// # Errors
    ///
    /// 500 when the body cannot be written as JSON, which none of ours can fail at.
    pub fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_value(body).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "an answer is not JSON");
            Problem::internal()
        })?;
        Ok(Self { status, headers: Vec::new(), body })
    }

    /// 204.
    #[must_use]
    pub fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, headers: Vec::new(), body: Value::Null }
    }

    /// Where the object is.
    #[must_use]
    pub fn location(self, path: impl Display) -> Self {
        self.header(header::LOCATION, path)
    }

    /// Which version of the object it is.
    #[must_use]
    pub fn etag(self, version: i32) -> Self {
        self.header(header::ETAG, format!("\"{version}\""))
    }

    fn header(mut self, name: HeaderName, value: impl Display) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// As it is kept, without the fields named, which are told only once.
    fn kept(&self, secrets: &[&str]) -> idempotency::Answer {
        let mut body = self.body.clone();
        if let Some(object) = body.as_object_mut() {
            object.extend(secrets.iter().map(|field| ((*field).to_owned(), Value::Null)));
        }
        let headers: serde_json::Map<_, _> =
            self.headers.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        idempotency::Answer { status: self.status.as_u16(), body, headers: headers.into() }
    }

    fn replayed(kept: idempotency::Answer) -> Self {
        let headers = kept.headers.as_object().into_iter().flatten();
        let answer = Self {
            status: StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK),
            headers: headers
                .filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str()?.to_owned())))
                .collect(),
            body: kept.body,
        };
        answer.header(REPLAYED, "true")
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = if self.status == StatusCode::NO_CONTENT {
            self.status.into_response()
        } else {
            (self.status, Json(self.body)).into_response()
        };
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

/// What [`Change::begin`] found.
pub enum Begun {
    /// The change is to be made.
    New(Change),
    /// It was made before, by the same request; this was the answer.
    Before(Answer),
}

/// A change being made. Dropped without [`Change::finish`], it never happened.
pub struct Change {
    tx: Transaction<'static, Postgres>,
    agent: AgentId,
    request_id: String,
    client: Option<Client>,
    key: Option<String>,
    /// The time of everything in it.
    pub now: DateTime<Utc>,
}

impl Change {
    /// Begins the change that a POST asks for; `hash` stands for the request. With an
    /// `Idempotency-Key`, waits for a twin that is at work.
    ///
    /// # Errors
    ///
    /// 409 when the key was used for another request; 503 without a database.
    pub async fn begin<S>(api: &Api, caller: &Caller<S>, hash: &[u8]) -> Result<Begun, Problem> {
        let mut change = Self::plain(api, caller).await?;
        let Some(key) = &caller.idempotency_key else { return Ok(Begun::New(change)) };
        let claim =
            idempotency::claim(&mut change.tx, caller.agent.id, key, hash, change.now).await?;
        match claim {
            Claim::New => {
                change.key = Some(key.clone());
                Ok(Begun::New(change))
            }
            Claim::Answered(kept) => Ok(Begun::Before(Answer::replayed(kept))),
            Claim::Different => Err(Problem::key_reused()),
        }
    }

    /// Begins a change whose repetition does no harm by itself (PATCH, DELETE).
    ///
    /// # Errors
    ///
    /// 503 without a database.
    pub async fn plain<S>(api: &Api, caller: &Caller<S>) -> Result<Self, Problem> {
        let tx = api.pool.begin().await.map_err(StoreError::while_trying("begin a transaction"))?;
        Ok(Self {
            tx,
            agent: caller.agent.id,
            request_id: caller.request_id.clone(),
            client: caller.client,
            key: None,
            now: api.clock.now(),
        })
    }

    /// The connection of its transaction.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Records what was done. `action` is `noun.verb`; `detail` holds no secrets and no payloads.
    ///
    /// # Errors
    ///
    /// 503 without a database.
    pub async fn audit(
        &mut self,
        action: &str,
        id: impl Display + Send,
        detail: Value,
    ) -> Result<(), Problem> {
        let object_kind = action.split('.').next().unwrap_or(action);
        let row = NewAudit {
            at: self.now,
            agent_id: Some(self.agent),
            action,
            object_kind,
            object_id: &id.to_string(),
            request_id: Some(&self.request_id),
            detail: client::in_detail(detail, self.client),
        };
        Ok(audit::record(&mut self.tx, &row).await?)
    }

    /// Keeps the answer for a repetition, and commits.
    ///
    /// # Errors
    ///
    /// 503 without a database; nothing has happened then, as far as can be known.
    pub async fn finish(self, answer: Answer) -> Result<Answer, Problem> {
        self.end(answer, &[]).await
    }

    /// As [`Change::finish`], for an answer with a secret in `fields`: a repetition gets null there,
    /// because the secret is told once and kept nowhere.
    ///
    /// # Errors
    ///
    /// As [`Change::finish`].
    pub async fn finish_secret(self, answer: Answer, fields: &[&str]) -> Result<Answer, Problem> {
        self.end(answer, fields).await
    }

    async fn end(mut self, answer: Answer, secrets: &[&str]) -> Result<Answer, Problem> {
        if let Some(key) = &self.key {
            idempotency::keep(&mut self.tx, self.agent, key, &answer.kept(secrets)).await?;
        }
        self.tx.commit().await.map_err(StoreError::while_trying("commit a change"))?;
        Ok(answer)
    }
}
