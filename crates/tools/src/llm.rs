//! `llm.chat`: one answer of a language model, by the protocol that OpenAI made common.
//!
//! The operator names the server, so it may be private: a model on the same machine is usual.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use orchestrator_engine::clock::Clock;
use orchestrator_engine::config::Secret;
use orchestrator_engine::tool::{ERROR_TEXT_MAX, ToolCall, ToolError, ToolSpec};
use orchestrator_engine::trace::{TRACEPARENT, TraceParent};
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::failure::{self, busy, chain, excerpt, refused, unreachable};
use crate::http::body::{self, Read};
use crate::http::{CONNECT_TIMEOUT, USER_AGENT};
use crate::registry::{Tool, builtin};
use crate::schema;

const ADDRESS: &str = "llm.chat";

/// The largest answer that is read from the server, in bytes.
pub const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Which language model to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LlmConfig {
    /// Where `/chat/completions` is: `https://api.openai.com/v1`.
    pub base_url: url::Url,
    /// Sent as `Authorization: Bearer …`; local servers need none.
    pub api_key: Option<Secret>,
    /// The model when the step names none.
    pub model: Option<String>,
}

/// What the catalogue says of `llm.chat`.
#[must_use]
pub fn spec() -> ToolSpec {
    let message = json!({
        "type": "object",
        "properties": {"role": {"type": "string"}, "content": {}},
        "required": ["role", "content"],
    });
    let input = json!({
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "prompt": {"type": "string", "description": "What to ask; or messages."},
            "messages": {"type": "array", "items": message, "minItems": 1},
            "system": {"type": "string", "description": "How the model is to behave."},
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "max_tokens": {"type": "integer", "minimum": 1},
            "schema": {"type": "object", "description": "JSON Schema of the answer wanted; it comes parsed as json."},
            "stop": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": 4}]},
        },
        "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
        "additionalProperties": false,
    });
    let output = json!({
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "json": {"description": "The answer, when a schema was given; otherwise null."},
            "model": {"type": "string"},
            "finish_reason": {"type": ["string", "null"]},
            "usage": {
                "type": "object",
                "properties": {
                    "prompt_tokens": {"type": "integer"},
                    "completion_tokens": {"type": "integer"},
                    "total_tokens": {"type": "integer"},
                },
                "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
            },
        },
        "required": ["text", "json", "model", "finish_reason", "usage"],
    });
    let description =
        "Asks a language model and returns its answer, as JSON of a given schema if wished.";
    ToolSpec {
        output_schema: Some(output),
        ..builtin(ADDRESS, description, input, 300, Some("tool:llm"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    model: Option<String>,
    prompt: Option<String>,
    messages: Option<Vec<Value>>,
    system: Option<String>,
    temperature: Option<f64>,
    max_tokens: Option<u64>,
    schema: Option<Value>,
    stop: Option<Value>,
}

/// What servers answer; each leaves out other parts.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<Choice>,
    model: Option<String>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default, rename = "prompt_tokens")]
    prompt: u64,
    #[serde(default, rename = "completion_tokens")]
    completion: u64,
    #[serde(rename = "total_tokens")]
    total: Option<u64>,
}

/// What goes with a request besides its body.
struct Sent<'a> {
    key: &'a str,
    trace: Option<TraceParent>,
}

/// `llm.chat`.
pub struct Chat {
    client: Client,
    config: Option<LlmConfig>,
    clock: Arc<dyn Clock>,
}

impl Chat {
    /// Without a `config` the tool is there, so that tasks can be written, and every call is refused.
    ///
    /// # Errors
    ///
    /// When the HTTP client cannot be made: no TLS provider, or no root certificates.
    pub fn new(config: Option<LlmConfig>, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            // The key goes to the host the operator named and to no other.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()?;
        Ok(Self { client, config, clock })
    }

    async fn run(&self, call: ToolCall) -> Result<Value, ToolError> {
        let config =
            self.config.as_ref().ok_or_else(|| refused(ADDRESS, "LLM_BASE_URL is not set"))?;
        let input: Input = serde_json::from_value(call.input)
            .map_err(|error| refused(ADDRESS, error.to_string()))?;
        let wanted = match &input.schema {
            Some(schema) => Some(
                schema::compile(schema)
                    .map_err(|reason| refused(ADDRESS, format!("schema: {reason}")))?,
            ),
            None => None,
        };
        let model = input.model.clone().or_else(|| config.model.clone()).ok_or_else(|| {
            refused(ADDRESS, "which model? Neither the step's model nor LLM_MODEL is set")
        })?;
        let sent = Sent { key: &call.idempotency_key, trace: call.trace };
        let answer = self.ask(config, sent, &request(input, &model)).await?;
        let usage = answer.usage.unwrap_or_default();
        let Some(choice) = answer.choices.into_iter().next() else {
            return Err(busy(ADDRESS, "the model's answer is empty"));
        };
        if let Some(refusal) = choice.message.refusal {
            let said = excerpt(refusal.as_bytes(), ERROR_TEXT_MAX);
            return Err(refused(ADDRESS, format!("the model said: {said}")));
        }
        let text = choice.message.content.unwrap_or_default();
        let json = match wanted {
            Some(schema) => parsed(&text, &schema, choice.finish_reason.as_deref())?,
            None => Value::Null,
        };
        Ok(json!({
            "text": text,
            "json": json,
            "model": answer.model.unwrap_or(model),
            "finish_reason": choice.finish_reason,
            "usage": {
                "prompt_tokens": usage.prompt,
                "completion_tokens": usage.completion,
                "total_tokens": usage.total
                    .unwrap_or(usage.prompt.saturating_add(usage.completion)),
            },
        }))
    }

    async fn ask(
        &self,
        config: &LlmConfig,
        sent: Sent<'_>,
        body: &Value,
    ) -> Result<Answer, ToolError> {
        let url = format!("{}/chat/completions", config.base_url.as_str().trim_end_matches('/'));
        let mut request = self.client.post(url).json(body).header("idempotency-key", sent.key);
        if let Some(place) = sent.trace {
            request = request.header(TRACEPARENT, place.to_string());
        }
        if let Some(key) = config.api_key.as_ref().map(Secret::expose) {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let (Read::Whole(said) | Read::Cut(said)) =
                body::read(response, ERROR_TEXT_MAX).await.unwrap_or(Read::Whole(Vec::new()));
            let said = without_key(&said, config.api_key.as_ref());
            return Err(failure::status(ADDRESS, status, &headers, &said, self.clock.now()));
        }
        match body::read(response, ANSWER_MAX_BYTES).await.map_err(failed)? {
            Read::Whole(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                busy(ADDRESS, format!("the answer is not one of a chat completion: {error}"))
            }),
            Read::Cut(_) => {
                Err(refused(ADDRESS, format!("the answer is larger than {ANSWER_MAX_BYTES} bytes")))
            }
        }
    }
}

impl Tool for Chat {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        self.run(call).boxed()
    }
}

fn request(input: Input, model: &str) -> Value {
    let mut messages = Vec::new();
    if let Some(system) = input.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    messages.extend(input.messages.unwrap_or_default());
    if let Some(prompt) = input.prompt {
        messages.push(json!({"role": "user", "content": prompt}));
    }
    let mut body = Map::new();
    body.insert("model".to_owned(), model.into());
    body.insert("messages".to_owned(), messages.into());
    let optional = [
        ("temperature", input.temperature.map(Value::from)),
        ("max_tokens", input.max_tokens.map(Value::from)),
        ("stop", input.stop),
        (
            "response_format",
            input.schema.map(|schema| {
                let wanted = json!({"name": "answer", "strict": true, "schema": schema});
                json!({"type": "json_schema", "json_schema": wanted})
            }),
        ),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    Value::Object(body)
}

/// The answer as JSON that fits the schema. A model that is asked again may do better, except where
/// its answer was cut by `max_tokens`.
fn parsed(
    text: &str,
    schema: &jsonschema::Validator,
    finish_reason: Option<&str>,
) -> Result<Value, ToolError> {
    if finish_reason == Some("length") {
        return Err(refused(ADDRESS, "the answer was cut at max_tokens and is no whole JSON"));
    }
    let json = serde_json::from_str(unfenced(text))
        .map_err(|error| busy(ADDRESS, format!("the model's answer is not JSON: {error}")))?;
    match schema::mistakes(schema, &json) {
        Some(mistakes) => {
            Err(busy(ADDRESS, format!("the model's answer does not fit the schema: {mistakes}")))
        }
        None => Ok(json),
    }
}

/// Models that do not know `response_format` like to put JSON into a Markdown block.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|text| text.strip_suffix("```"));
    inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner).trim())
}

fn failed(error: reqwest::Error) -> ToolError {
    let host = error.url().and_then(url::Url::host_str).unwrap_or_default().to_owned();
    let connecting = error.is_connect();
    let said = format!("{host}: {}", chain(&error.without_url()));
    if connecting { unreachable(ADDRESS, said) } else { busy(ADDRESS, said) }
}

/// A server that complains of a key may repeat it.
fn without_key(said: &[u8], key: Option<&Secret>) -> Vec<u8> {
    match key.map(Secret::expose) {
        Some(key) if !key.is_empty() => {
            String::from_utf8_lossy(said).replace(key, "<secret>").into_bytes()
        }
        _ => said.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let config = LlmConfig {
            base_url: "http://localhost/v1".parse().unwrap(),
            api_key: Some(Secret::new("hunter2")),
            model: None,
        };

        assert!(!format!("{config:?}").contains("hunter2"));
        let said = without_key(b"bad key: hunter2", config.api_key.as_ref());
        assert_eq!(said, b"bad key: <secret>");
    }

    #[test]
    fn json_in_a_markdown_block_is_found() {
        for text in ["{\"a\":1}", " ```json\n{\"a\":1}\n``` ", "```\n{\"a\":1}\n```"] {
            assert_eq!(unfenced(text), "{\"a\":1}");
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_may_fit_the_next_time() {
        let schema = schema::compile(&json!({"required": ["a"]})).unwrap();

        assert!(parsed("{}", &schema, Some("stop")).unwrap_err().is_transient());
        assert!(parsed("not json", &schema, None).unwrap_err().is_transient());
        assert!(!parsed("{\"a\":", &schema, Some("length")).unwrap_err().is_transient());
    }
}
