//! Reading the body of a request: its size, its media type, its JSON, and what is wrong in it.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, Limited};
use orchestrator_engine::pipeline::expr::{DEPTH_MAX, TooMuch, too_much as measured};
use orchestrator_engine::problem::{Problem as Entry, pointer_token};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::problem::Problem;
use crate::read;
use crate::state::Api;

/// The largest body taken, in bytes, unless `RUN_DATA_MAX_BYTES` asks for more.
pub const MAX_BYTES: usize = orchestrator_engine::config::BODY_MAX_BYTES;

/// The largest body of a batch, in bytes: a thousand runs with 8 kB each.
pub const BATCH_MAX_BYTES: usize = 8 * 1024 * 1024;

/// What stands around the largest value that a run may be given.
const AROUND_DATA_BYTES: usize = 64 * 1024;

/// The largest body taken where a run may be given `data_max_bytes`.
#[must_use]
pub const fn max_bytes(data_max_bytes: usize) -> usize {
    if data_max_bytes > MAX_BYTES { data_max_bytes + AROUND_DATA_BYTES } else { MAX_BYTES }
}

/// The mistake of giving a run more than `max` bytes of JSON, or JSON that is too deep; `None`: it is none.
#[must_use]
pub fn too_much(value: &impl Serialize, pointer: &str, max: usize) -> Option<Entry> {
    let message = match measured(value, max)? {
        TooMuch::Bytes(bytes) => {
            format!("is {bytes} bytes of JSON, but must be at most {max} (RUN_DATA_MAX_BYTES)")
        }
        TooMuch::Depth => format!("is nested deeper than {DEPTH_MAX}"),
    };
    Some(Entry::new(pointer, message))
}

/// A JSON body, read as `T`. No body at all counts as `{}`.
pub struct Sent<T> {
    /// What was sent.
    pub body: T,
    /// Stands for the whole request: SHA-256 of method, path, query and body.
    pub hash: Vec<u8>,
}

impl<T: DeserializeOwned> FromRequest<Api> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        Self::read(request, max_bytes(api.options.data_max_bytes)).await
    }
}

/// The body of a request that carries many things at once: the same as [`Sent`], but larger.
pub struct SentBatch<T>(pub Sent<T>);

impl<T: DeserializeOwned> FromRequest<Api> for SentBatch<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let max = max_bytes(api.options.data_max_bytes).max(BATCH_MAX_BYTES);
        Sent::read(request, max).await.map(Self)
    }
}

impl<T: DeserializeOwned> Sent<T> {
    async fn read(request: Request, max: usize) -> Result<Self, Problem> {
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", request.method(), request.uri()));
        let (parts, body) = request.into_parts();
        let bytes = all_bytes(&parts.headers, body, max).await?;
        hash.update(&bytes);
        let value = json(&parts.headers, &bytes)?;
        let body = read::exact(value).map_err(Problem::invalid)?;
        Ok(Self { body, hash: hash.finalize().to_vec() })
    }
}

/// A body of `text/calendar`, as it was sent.
pub struct SentCalendar(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for SentCalendar {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if media_type(&parts.headers) != "text/calendar" {
            return Err(Problem::media_type("text/calendar"));
        }
        Ok(Self(all_bytes(&parts.headers, body, MAX_BYTES).await?))
    }
}

/// The whole body, if it is no larger than `max` bytes.
pub(crate) async fn all_bytes(
    headers: &HeaderMap,
    body: axum::body::Body,
    max: usize,
) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if announced.is_some_and(|length| length > max) {
        return Err(Problem::too_large(max));
    }
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::too_large(max))
        }
        Err(_) => Err(Problem::bad_request("the body broke off")),
    }
}

fn json(headers: &HeaderMap, bytes: &[u8]) -> Result<Value, Problem> {
    if bytes.is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let media_type = media_type(headers);
    if media_type != "application/json" && !media_type.ends_with("+json") {
        return Err(Problem::media_type("application/json"));
    }
    parse(bytes)
}

/// The media type without its parameters, in lower case; empty when there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .unwrap_or_default()
}

/// JSON, at most 128 levels deep, without NUL characters, which Postgres cannot keep.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Problem::malformed(format!("it is not UTF-8: byte {} is wrong", error.valid_up_to()))
    })?;
    let value =
        serde_json::from_str(text).map_err(|error| Problem::malformed(error.to_string()))?;
    let mut nuls = Vec::new();
    find_nuls(&value, &mut String::new(), &mut nuls);
    if nuls.is_empty() { Ok(value) } else { Err(Problem::invalid(nuls)) }
}

fn find_nuls(value: &Value, pointer: &mut String, found: &mut Vec<Entry>) {
    let wrong = |pointer: &str| Entry::new(pointer, "must not hold the character U+0000");
    let length = pointer.len();
    match value {
        Value::String(text) if text.contains('\0') => found.push(wrong(pointer)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointer.push('/');
                pointer.push_str(&index.to_string());
                find_nuls(item, pointer, found);
                pointer.truncate(length);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if name.contains('\0') {
                    found.push(wrong(pointer));
                    continue;
                }
                pointer.push('/');
                pointer.push_str(&pointer_token(name));
                find_nuls(field, pointer, found);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_is_too_deep_or_broken_is_refused_with_its_position() {
        for bytes in [&b"{\"a\":"[..], b"[1,]", b"\xff\xfe", "[".repeat(200).as_bytes()] {
            let problem = parse(bytes).unwrap_err();
            assert_eq!(problem.status(), axum::http::StatusCode::BAD_REQUEST);
        }
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let told = parse(deep.as_bytes()).unwrap_err().document("/", "r").detail.unwrap();
        assert_eq!(told, "recursion limit exceeded at line 1 column 128");
    }

    #[test]
    fn a_nul_character_is_found_wherever_it_stands() {
        let told = parse(br#"{"a":[{"b/c":"x\u0000"}],"d\u0000":1}"#).unwrap_err();
        let errors = told.document("/", "r").errors;

        let pointers: Vec<_> = errors.iter().filter_map(|e| e.pointer.as_deref()).collect();
        assert_eq!(pointers, ["/a/0/b~1c", ""]);
    }
}
