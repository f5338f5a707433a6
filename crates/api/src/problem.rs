//! What a caller is told when a request is refused or failed: RFC 9457 problem documents.
//!
//! A [`Problem`] travels to the outermost layer ([`crate::frame`]) as an extension of its response;
//! only there the request's id and path are known, and only there it is written as JSON.
//!
//! To add a type: a constructor here, with a slug that stays for ever, and a row in `docs/api.md`.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::store::StoreError;
use serde::Serialize;

/// What a problem document is sent as.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One mistake in what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Mistake {
    /// RFC 6901 JSON pointer into the body; empty for the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The query parameter, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl From<Entry> for Mistake {
    fn from(entry: Entry) -> Self {
        Self { pointer: Some(entry.pointer), parameter: None, message: entry.message }
    }
}

/// Why a request was refused or failed.
#[derive(Clone, Debug)]
pub struct Problem {
    slug: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: Option<String>,
    errors: Vec<Mistake>,
    headers: Vec<(HeaderName, String)>,
}

/// The document as it is sent.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// Which kind of problem it is; a stable path.
    #[schema(example = "/problems/validation")]
    pub r#type: String,
    /// The kind, in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The path that was asked.
    pub instance: String,
    /// The request, as it stands in the logs.
    pub request_id: String,
    /// Every mistake in what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Mistake>,
}

impl Problem {
    fn new(status: StatusCode, slug: &'static str, title: &'static str) -> Self {
        Self { slug, title, status, detail: None, errors: Vec::new(), headers: Vec::new() }
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 422: the JSON is well formed, and these places in it are wrong.
    #[must_use]
    pub fn invalid(entries: Vec<Entry>) -> Self {
        let count = entries.len();
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation", "The request is not valid")
                .detail(match &entries[..] {
                    [one] => one.to_string(),
                    _ => format!("{count} things are wrong; errors names each"),
                });
        problem.errors = entries.into_iter().map(Into::into).collect();
        problem
    }

    /// 422 with one mistake.
    pub fn invalid_at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![Entry::new(pointer, message)])
    }

    /// 400: query parameters are wrong.
    #[must_use]
    pub fn parameters(mistakes: Vec<Mistake>) -> Self {
        let mut problem =
            Self::new(StatusCode::BAD_REQUEST, "bad-parameter", "A query parameter is not valid");
        problem.detail = mistakes.first().map(|first| {
            format!("{}: {}", first.parameter.as_deref().unwrap_or_default(), first.message)
        });
        problem.errors = mistakes;
        problem
    }

    /// 400: a header is wrong.
    pub fn bad_header(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-header", "A header is not valid").detail(detail)
    }

    /// 400: the body is not JSON.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-json", "The body is not JSON").detail(detail)
    }

    /// 400: the request cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request could not be read")
            .detail(detail)
    }

    /// 401: nobody is known by what was sent, or nothing was.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who are you?")
            .detail(detail)
            .header(header::WWW_AUTHENTICATE, "Bearer realm=\"orchestrator\"")
    }

    /// The same where a name and a key may be sent as HTTP Basic (RFC 6749 §5.2).
    #[must_use]
    pub fn with_basic_challenge(mut self) -> Self {
        self.headers.retain(|(name, _)| name != header::WWW_AUTHENTICATE);
        self.header(header::WWW_AUTHENTICATE, "Basic realm=\"orchestrator\"")
    }

    /// 401 of a bearer token that is not, or no longer, good (RFC 6750 §3.1).
    #[must_use]
    pub fn invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who are you?")
            .detail("the key or token is unknown, revoked or expired, or its agent is disabled")
            .header(
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"orchestrator\", error=\"invalid_token\"",
            )
    }

    /// 403: the caller lacks a scope.
    #[must_use]
    pub fn missing_scope(scope: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "missing-scope", "You may not do that")
            .detail(format!("this needs the scope {scope}"))
            .header(
                header::WWW_AUTHENTICATE,
                format!(
                    "Bearer realm=\"orchestrator\", error=\"insufficient_scope\", scope=\"{scope}\""
                ),
            )
    }

    /// 403 for another reason.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "You may not do that").detail(detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "No such thing").detail(detail)
    }

    /// 404 of an object.
    #[must_use]
    pub fn no_such(what: &str, id: &str) -> Self {
        Self::not_found(format!("no {what} {id}"))
    }

    /// 409: the object is in a state that does not allow it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "It cannot be done now").detail(detail)
    }

    /// 409: the idempotency key was used for another request.
    #[must_use]
    pub fn key_reused() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "idempotency-key-reused",
            "The Idempotency-Key was used for another request",
        )
        .detail("a repetition must have the same method, path and body; else use a new key")
    }

    /// 412: the object was changed meanwhile.
    #[must_use]
    pub fn stale(version: i32) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "stale", "It was changed meanwhile")
            .detail(format!("it is at version {version}: read it again, then change that"))
            .header(header::ETAG, format!("\"{version}\""))
    }

    /// 413.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large")
            .detail(format!("at most {limit} bytes are taken"))
    }

    /// 415.
    #[must_use]
    pub fn media_type(wanted: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body's media type is not understood",
        )
        .detail(format!("send Content-Type: {wanted}"))
    }

    /// 429.
    #[must_use]
    pub fn rate_limited(retry_after: Duration) -> Self {
        let seconds = whole_seconds(retry_after).max(1);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "Too many requests")
            .detail(format!("come again in {seconds} s"))
            .header(header::RETRY_AFTER, seconds.to_string())
    }

    /// 503: the database is out of reach or at its limit.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The server cannot do it now")
            .detail("the same request may succeed in a moment")
            .header(header::RETRY_AFTER, "2")
    }

    /// 503: it took too long. What was asked may have been done, if it was given up at its commit.
    #[must_use]
    pub fn timeout() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "The server took too long")
            .detail(
                "it may have been done all the same; send it again with the same Idempotency-Key",
            )
            .header(header::RETRY_AFTER, "5")
    }

    /// 500. The cause is logged where this is made, and not told.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The server failed")
    }

    /// What stands for an answer that the framework made by itself.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::not_found("there is no such route; see /docs"),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method-not-allowed", "The route has no such method")
                    .detail("the header Allow says which it has")
            }
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(crate::body::MAX_BYTES),
            status if status.is_client_error() => {
                Self::new(status, "bad-request", "The request could not be read")
            }
            _ => Self::internal(),
        }
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The document, for the request it belongs to.
    #[must_use]
    pub fn document(self, instance: &str, request_id: &str) -> ProblemDocument {
        ProblemDocument {
            r#type: format!("/problems/{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
            instance: instance.to_owned(),
            request_id: request_id.to_owned(),
            errors: self.errors,
        }
    }

    /// Its headers, apart from those of the document.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// `duration` rounded up: a caller that waits so long is not early.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what, id } => Self::no_such(what, &id),
            StoreError::Conflict(detail) => Self::conflict(detail),
            StoreError::Stale { current, .. } => Self::stale(current),
            StoreError::Database { .. } => {
                // Logged here and nowhere else: this is where the error ends its way up.
                tracing::error!(error = &error as &dyn std::error::Error, "request failed");
                if error.is_transient() { Self::unavailable() } else { Self::internal() }
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_failure_tells_the_caller_nothing_inside() {
        let secret = sqlx::Error::Configuration("password=hunter2".into());
        let problem = Problem::from(StoreError::while_trying("look up a run")(secret));

        let told = serde_json::to_value(problem.document("/runs", "r1")).expect("plain data");

        assert_eq!(
            told,
            serde_json::json!({
                "type": "/problems/internal", "title": "The server failed", "status": 500,
                "instance": "/runs", "request_id": "r1",
            })
        );
    }

    #[test]
    fn a_database_out_of_reach_is_a_reason_to_come_again() {
        let problem = Problem::from(StoreError::while_trying("x")(sqlx::Error::PoolTimedOut));

        let mut headers = HeaderMap::new();
        problem.write_headers(&mut headers);

        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(headers.contains_key(header::RETRY_AFTER));
    }
}
