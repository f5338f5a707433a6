//! `http.request`: one HTTP request to a public host, or to one the operator allows.
//!
//! Redirects are followed here and not in the client, so that every hop is checked like the first
//! one. [`guard`] decides what may be reached, `hop` what is sent, `body` reads and writes bodies.

pub(crate) mod body;
pub mod guard;
mod hop;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use http::HeaderMap;
use orchestrator_engine::clock::Clock;
use orchestrator_engine::config::AllowList;
use orchestrator_engine::tool::{ERROR_TEXT_MAX, ToolCall, ToolError, ToolSpec};
use reqwest::{Client, Response};
use serde_json::{Map, Value, json};
use url::Url;

use self::body::Read;
use self::guard::{Denied, Guard, Lookup, SystemLookup};
use self::hop::{Hop, Wish, location, prepare, redirected};
use crate::failure::{self, busy, cause, chain, refused, unreachable};
use crate::registry::{Tool, builtin};

const ADDRESS: &str = "http.request";

/// The most redirects that are followed.
pub const REDIRECTS_MAX: u32 = 5;

/// The largest body that a step may ask for, in bytes.
pub const BODY_MAX_BYTES: usize = 10 * 1024 * 1024;

/// The largest body when the step does not say.
pub const BODY_DEFAULT_BYTES: usize = 1024 * 1024;

/// How long a connection may take to come up, of the call's whole time.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How we introduce ourselves.
pub(crate) const USER_AGENT: &str = concat!("orchestrator/", env!("CARGO_PKG_VERSION"));

/// What the catalogue says of `http.request`.
#[must_use]
pub fn spec() -> ToolSpec {
    let scalar = json!({"type": ["string", "number", "boolean", "null"]});
    let values = json!({
        "type": "object",
        "additionalProperties": {"anyOf": [scalar, {"type": "array", "items": scalar}]},
    });
    let input = json!({
        "type": "object",
        "properties": {
            "method": {"type": "string", "pattern": "^[A-Za-z]{1,16}$", "default": "GET"},
            "url": {"type": "string", "minLength": 1, "maxLength": 8192},
            "headers": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
            "query": values,
            "json": {"description": "A body of any JSON value."},
            "form": values,
            "body": {"type": "string", "description": "A body of text."},
            "expect_status": {
                "description": "The statuses that count as success; any other fails. Default: 2xx.",
                "anyOf": [
                    {"type": "integer", "minimum": 100, "maximum": 599},
                    {"type": "array", "items": {"type": "integer", "minimum": 100, "maximum": 599}, "minItems": 1},
                ],
            },
            "max_bytes": {
                "type": "integer", "minimum": 1, "maximum": BODY_MAX_BYTES, "default": BODY_DEFAULT_BYTES,
                "description": "The largest answer accepted.",
            },
            "follow_redirects": {"type": "boolean", "default": true},
        },
        "required": ["url"],
        "additionalProperties": false,
    });
    let output = json!({
        "type": "object",
        "properties": {
            "status": {"type": "integer"},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            "json": {"description": "The body, when it is JSON; otherwise null."},
            "body": {"type": "string"},
            "body_base64": {"type": "boolean", "description": "Whether body is base64: it was no text."},
            "url": {"type": "string", "description": "Where the answer came from, after redirects."},
            "elapsed_ms": {"type": "integer"},
        },
        "required": ["status", "headers", "json", "body", "body_base64", "url", "elapsed_ms"],
    });
    let description = "Makes an HTTP request to a public host and returns status, headers and body. \
        Requests other than GET and HEAD carry an Idempotency-Key, the same at every attempt.";
    ToolSpec {
        output_schema: Some(output),
        ..builtin(ADDRESS, description, input, 30, Some("tool:http"))
    }
}

/// `http.request`.
pub struct HttpRequest {
    /// One client for each port that the allow list names, and one (`None`) for all others: a
    /// resolver is told the name, not the port.
    clients: HashMap<Option<u16>, (Guard, Client)>,
    clock: Arc<dyn Clock>,
}

impl HttpRequest {
    /// # Errors
    ///
    /// When the HTTP client cannot be made: no TLS provider, or no root certificates.
    pub fn new(allow: AllowList, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        Self::with_lookup(allow, &(Arc::new(SystemLookup) as Arc<dyn Lookup>), clock)
    }

    fn with_lookup(
        allow: AllowList,
        lookup: &Arc<dyn Lookup>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, reqwest::Error> {
        let allow = Arc::new(allow);
        let mut clients = HashMap::new();
        for port in std::iter::once(None).chain(allow.ports().map(Some)) {
            let guard = Guard::new(Arc::clone(&allow), Arc::clone(lookup), port);
            let client = Client::builder()
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                // A proxy would resolve names behind the guard's back.
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .dns_resolver(guard.clone())
                .build()?;
            clients.insert(port, (guard, client));
        }
        Ok(Self { clients, clock })
    }

    async fn run(&self, call: ToolCall) -> Result<Value, ToolError> {
        let started = Instant::now();
        let (mut hop, wish) = prepare(call).map_err(|reason| refused(ADDRESS, reason))?;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(&hop).await?;
            let target = if wish.follow { location(&response) } else { None };
            match target {
                Some(target) => {
                    hop = redirected(hop, response.status(), &target)
                        .map_err(|reason| refused(ADDRESS, reason))?;
                }
                None => return self.answer(response, &hop, &wish, started).await,
            }
        }
        Err(refused(ADDRESS, format!("more than {REDIRECTS_MAX} redirects")))
    }

    async fn send(&self, hop: &Hop) -> Result<Response, ToolError> {
        let port = hop.url.port_or_known_default();
        let (guard, client) = self
            .clients
            .get(&port)
            .or_else(|| self.clients.get(&None))
            .expect("there is always one");
        guard.check_literal(&hop.url).map_err(|denied| refused(ADDRESS, denied.to_string()))?;
        client
            .request(hop.method.clone(), hop.url.clone())
            .headers(hop.headers.clone())
            .body(hop.body.clone())
            .send()
            .await
            .map_err(|error| failed(&hop.url, error))
    }

    async fn answer(
        &self,
        response: Response,
        hop: &Hop,
        wish: &Wish,
        started: Instant,
    ) -> Result<Value, ToolError> {
        let (status, headers) = (response.status(), response.headers().clone());
        if !wish.accepts(status) {
            let (Read::Whole(said) | Read::Cut(said)) =
                body::read(response, ERROR_TEXT_MAX).await.unwrap_or(Read::Whole(Vec::new()));
            if status.is_success() {
                return Err(refused(ADDRESS, format!("status {status} is not an expected one")));
            }
            return Err(failure::status(ADDRESS, status, &headers, &said, self.clock.now()));
        }
        let bytes = match body::read(response, wish.max_bytes).await {
            Ok(Read::Whole(bytes)) => bytes,
            Ok(Read::Cut(_)) => {
                let max = wish.max_bytes;
                let hint =
                    format!("the answer is larger than {max} bytes; ask for more with max_bytes");
                return Err(refused(ADDRESS, hint));
            }
            Err(error) => return Err(failed(&hop.url, error)),
        };
        let mut output = Map::new();
        output.insert("status".to_owned(), status.as_u16().into());
        output.insert("headers".to_owned(), lower_case(&headers));
        for (name, part) in body::parts(bytes, &headers) {
            output.insert(name.to_owned(), part);
        }
        output.insert("url".to_owned(), without_user(&hop.url).into());
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        output.insert("elapsed_ms".to_owned(), elapsed_ms.into());
        Ok(Value::Object(output))
    }
}

impl Tool for HttpRequest {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        self.run(call).boxed()
    }

    fn output_max_bytes(&self) -> usize {
        usize::MAX
    }
}

/// What a failure of the client means. Only the host is named: paths and queries may hold secrets.
fn failed(url: &Url, error: reqwest::Error) -> ToolError {
    if let Some(denied) = cause::<Denied>(&error) {
        return refused(ADDRESS, denied.to_string());
    }
    let host = url.host_str().unwrap_or_default();
    let connecting = error.is_connect();
    let said = chain(&error.without_url());
    if connecting {
        unreachable(ADDRESS, format!("{host}: {said}"))
    } else {
        busy(ADDRESS, format!("{host}: {said}"))
    }
}

fn lower_case(headers: &HeaderMap) -> Value {
    let mut map = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        map.insert(name.as_str().to_owned(), values.join(", ").into());
    }
    Value::Object(map)
}

fn without_user(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs without a host, which HTTP does not have.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}
