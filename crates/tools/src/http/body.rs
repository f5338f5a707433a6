//! Bodies: what is sent, and reading what comes back without ever holding more than the limit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use reqwest::Response;
use serde_json::{Map, Value};

/// What a step sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// What they are, when the step does not say.
    pub(crate) content_type: Option<HeaderValue>,
}

impl Sent {
    /// The body of a request; at most one of the three may be given.
    pub(crate) fn new(
        json: Option<Value>,
        form: Option<Map<String, Value>>,
        text: Option<String>,
    ) -> Result<Self, String> {
        match (json, form, text) {
            (None, None, None) => Ok(Self::default()),
            (Some(json), None, None) => Ok(Self {
                bytes: json.to_string().into(),
                content_type: Some(HeaderValue::from_static("application/json")),
            }),
            (None, Some(form), None) => {
                let mut text = url::form_urlencoded::Serializer::new(String::new());
                for (name, value) in pairs("form", &form)? {
                    text.append_pair(name, &value);
                }
                Ok(Self {
                    bytes: text.finish().into(),
                    content_type: Some(HeaderValue::from_static(
                        "application/x-www-form-urlencoded",
                    )),
                })
            }
            (None, None, Some(text)) => Ok(Self {
                bytes: text.into(),
                content_type: Some(HeaderValue::from_static("text/plain; charset=utf-8")),
            }),
            _ => Err("give only one of json, form and body".to_owned()),
        }
    }
}

/// The names and values of a query or a form: a list gives one pair for each of its values.
pub(crate) fn pairs<'a>(
    what: &str,
    map: &'a Map<String, Value>,
) -> Result<Vec<(&'a str, String)>, String> {
    let mut pairs = Vec::new();
    for (name, value) in map {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            single => std::slice::from_ref(single),
        };
        for value in values {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Array(_) | Value::Object(_) => {
                    return Err(format!(
                        "{what}: {name} is neither a text nor a number nor a list"
                    ));
                }
            };
            pairs.push((name.as_str(), text));
        }
    }
    Ok(pairs)
}

/// What was read of a body.
pub(crate) enum Read {
    /// All of it.
    Whole(Vec<u8>),
    /// Its beginning; there is more than the limit.
    Cut(Vec<u8>),
}

/// Reads at most `max` bytes and stops there.
pub(crate) async fn read(mut response: Response, max: usize) -> Result<Read, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = max - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            return Ok(Read::Cut(bytes));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Read::Whole(bytes))
}

/// The parts of a result that come from the body: `body` as text, or base64 with `body_base64`, and
/// `json` when the other side says that it is JSON and it is.
pub(crate) fn parts(bytes: Vec<u8>, headers: &HeaderMap) -> [(&'static str, Value); 3] {
    let json = if is_json(headers) { serde_json::from_slice(&bytes).ok() } else { None };
    let (text, encoded) = match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (BASE64.encode(error.as_bytes()), true),
    };
    [
        ("json", json.unwrap_or_default()),
        ("body", Value::String(text)),
        ("body_base64", Value::Bool(encoded)),
    ]
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(kind.as_str(), "application/json" | "text/json") || kind.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_takes_texts_numbers_and_lists() {
        let map = json!({"q": "a b", "n": 3, "tag": ["x", "y"], "none": null});
        let found = pairs("query", map.as_object().unwrap()).unwrap();

        assert_eq!(
            found,
            [("n", "3"), ("q", "a b"), ("tag", "x"), ("tag", "y")].map(|(k, v)| (k, v.to_owned()))
        );
        assert!(pairs("query", json!({"o": {}}).as_object().unwrap()).is_err());
    }

    #[test]
    fn what_is_not_text_comes_as_base64_and_says_so() {
        let [_, body, encoded] = parts(vec![0xff, 0xfe], &HeaderMap::new());

        assert_eq!((body.1, encoded.1), (json!("//4="), json!(true)));
    }

    #[test]
    fn json_is_known_by_its_content_type() {
        for (kind, is) in [
            ("application/json; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/html", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            assert_eq!(is_json(&headers), is, "{kind}");
        }
    }

    #[test]
    fn two_bodies_are_one_too_many() {
        assert!(Sent::new(Some(json!({})), None, Some("x".to_owned())).is_err());
    }
}
