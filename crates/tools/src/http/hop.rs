//! What is sent: the first request as the step describes it, and those that redirects ask for.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use orchestrator_engine::tool::ToolCall;
use orchestrator_engine::trace::TRACEPARENT;
use reqwest::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::body::{self, Sent};
use super::{BODY_DEFAULT_BYTES, BODY_MAX_BYTES};

/// The header by which a receiver recognises a repetition (draft-ietf-httpapi-idempotency-key).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

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
pub(super) struct Hop {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: bytes::Bytes,
}

/// What makes an answer a success, and how it is read.
pub(super) struct Wish {
    pub(super) statuses: Option<Vec<u16>>,
    pub(super) max_bytes: usize,
    pub(super) follow: bool,
}

impl Wish {
    /// Whether a status is a success.
    pub(super) fn accepts(&self, status: StatusCode) -> bool {
        match &self.statuses {
            Some(statuses) => statuses.contains(&status.as_u16()),
            // Who does not follow redirects wants to see them.
            None => status.is_success() || (!self.follow && status.is_redirection()),
        }
    }
}

/// The first hop, and what is wished of the answer.
pub(super) fn prepare(call: ToolCall) -> Result<(Hop, Wish), String> {
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
    if let Some(place) = call.trace.and_then(|place| HeaderValue::try_from(place.to_string()).ok())
    {
        headers.entry(TRACEPARENT).or_insert(place);
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
pub(super) fn location(response: &Response) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    response.headers().get(header::LOCATION)?.to_str().ok().map(str::to_owned)
}

/// The hop that a redirect asks for. Another origin gets none of the step's headers but those that
/// say nothing of who asks: any of them may be a credential.
pub(super) fn redirected(from: Hop, status: StatusCode, location: &str) -> Result<Hop, String> {
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
            HeaderName::from_static(TRACEPARENT),
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
