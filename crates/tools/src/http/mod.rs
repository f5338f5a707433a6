//! `http.request`: one HTTP request to a public host, or to one the operator allows.
//!
//! Redirects are followed here and not in the client, so that every hop is checked like the first
//! one. [`guard`] decides what may be reached, [`body`] reads and writes bodies.

pub(crate) mod body;
pub mod guard;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use orchestrator_engine::clock::Clock;
use orchestrator_engine::tool::{ERROR_TEXT_MAX, ToolCall, ToolError, ToolSpec};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use self::body::{Read, Sent};
use self::guard::{AllowList, Denied, Guard, Lookup, SystemLookup};
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

/// The header by which a receiver recognises a repetition (draft-ietf-httpapi-idempotency-key).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    query: Map<String, Value>,
    json: Option<Value>,
    form: Option<Map<String, Value>>,
    body: Option<String>,
    expect_status: Option<OneOrMany>,
    max_bytes: Option<usize>,
    follow_redirects: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u16),
    Many(Vec<u16>),
}

/// What is sent in one hop.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: bytes::Bytes,
}

/// What makes an answer a success, and how it is read.
struct Wish {
    statuses: Option<Vec<u16>>,
    max_bytes: usize,
    follow: bool,
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

impl Wish {
    fn accepts(&self, status: StatusCode) -> bool {
        match &self.statuses {
            Some(statuses) => statuses.contains(&status.as_u16()),
            // Who does not follow redirects wants to see them.
            None => status.is_success() || (!self.follow && status.is_redirection()),
        }
    }
}

/// The first hop, and what is wished of the answer.
fn prepare(call: ToolCall) -> Result<(Hop, Wish), String> {
    let input: Input = serde_json::from_value(call.input).map_err(|error| error.to_string())?;
    // The text is not quoted: it may hold a password.
    let mut url = Url::parse(&input.url).map_err(|error| format!("url: {error}"))?;
    check_scheme(&url)?;
    if !input.query.is_empty() {
        let pairs = body::pairs("query", &input.query)?;
        url.query_pairs_mut().extend_pairs(pairs);
    }
    let method = input.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| "method: not one of HTTP")?;
    if method == Method::CONNECT {
        return Err("method: CONNECT makes tunnels, not requests".to_owned());
    }
    let sent = Sent::new(input.json, input.form, input.body)?;

    let mut headers = HeaderMap::new();
    for (name, value) in &input.headers {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("headers: {name:?} cannot be the name of a header"))?;
        if matches!(key, header::HOST | header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            return Err(format!("headers: {name} follows from the request and cannot be set"));
        }
        let value = HeaderValue::from_str(&text)
            .map_err(|_| format!("headers: the value of {name} has characters a header cannot"))?;
        headers.insert(key, value);
    }
    if let Some(kind) = sent.content_type {
        headers.entry(header::CONTENT_TYPE).or_insert(kind);
    }
    if !matches!(method, Method::GET | Method::HEAD)
        && let Ok(key) = HeaderValue::from_str(&call.idempotency_key)
    {
        headers.entry(IDEMPOTENCY_KEY).or_insert(key);
    }
    let wish = Wish {
        statuses: input.expect_status.map(|expected| match expected {
            OneOrMany::One(status) => vec![status],
            OneOrMany::Many(statuses) => statuses,
        }),
        max_bytes: input.max_bytes.unwrap_or(BODY_DEFAULT_BYTES).min(BODY_MAX_BYTES),
        follow: input.follow_redirects.unwrap_or(true),
    };
    Ok((Hop { method, url, headers, body: sent.bytes }, wish))
}

fn check_scheme(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "http" | "https" => Ok(()),
        other => Err(format!("url: {other}: is not http: or https:")),
    }
}

/// Where a redirect points to; `None` when the answer is none (RFC 9110 §15.4).
fn location(response: &Response) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    response.headers().get(header::LOCATION)?.to_str().ok().map(str::to_owned)
}

/// The hop that a redirect asks for. Another origin gets none of the step's headers but those that
/// say nothing of who asks: any of them may be a credential.
fn redirected(from: Hop, status: StatusCode, location: &str) -> Result<Hop, String> {
    let url = from.url.join(location).map_err(|_| "a redirect to what is no URL".to_owned())?;
    check_scheme(&url).map_err(|reason| format!("a redirect was not followed: {reason}"))?;
    if from.url.scheme() == "https" && url.scheme() == "http" {
        return Err("a redirect from https to http was not followed".to_owned());
    }
    let mut hop = Hop { url, ..from };
    if hop.url.origin() != from.url.origin() {
        let kept = [
            header::ACCEPT,
            header::ACCEPT_LANGUAGE,
            header::CONTENT_TYPE,
            header::USER_AGENT,
            IDEMPOTENCY_KEY,
        ];
        hop.headers = hop
            .headers
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .filter(|(name, _)| kept.contains(name))
            .collect();
    }
    let to_get = match status.as_u16() {
        303 => hop.method != Method::HEAD,
        301 | 302 => hop.method == Method::POST,
        _ => false,
    };
    if to_get {
        hop.method = Method::GET;
        hop.body = bytes::Bytes::new();
        hop.headers.remove(header::CONTENT_TYPE);
        hop.headers.remove(IDEMPOTENCY_KEY);
    }
    Ok(hop)
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
