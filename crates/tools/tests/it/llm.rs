use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use orchestrator_engine::config::Secret;
use orchestrator_engine::tool::ToolError;
use orchestrator_tools::{LlmConfig, Registry, ToolsConfig};
use serde_json::{Value, json};

use crate::setup::{ask, registry, serve};

/// A model that always gives this answer; what it was asked, with its credentials, is written down.
async fn model(
    answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> (Registry, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let writes = Arc::clone(&asked);
    let chat = async move |request: Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        body["key"] = parts.headers[header::AUTHORIZATION].to_str().unwrap().into();
        writes.lock().unwrap().push(body);
        answer()
    };
    let at = serve(Router::new().route("/v1/chat/completions", post(chat))).await;
    let llm = LlmConfig {
        base_url: format!("http://{at}/v1/").parse().unwrap(),
        api_key: Some(Secret::new("hunter2")),
        model: Some("small".to_owned()),
    };
    (registry(ToolsConfig { llm: Some(llm), ..ToolsConfig::default() }).await, asked)
}

fn says(content: &str) -> Response {
    axum::Json(json!({
        "id": "x", "object": "chat.completion", "model": "small-2026",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    }))
    .into_response()
}

#[tokio::test]
async fn a_model_is_asked_and_its_answer_and_cost_come_back() {
    let (tools, asked) = model(|| says("Hello")).await;

    let input = json!({"prompt": "Greet", "system": "Be brief", "temperature": 0.5, "stop": ["."]});
    let output = ask(&tools, "llm.chat", input).await.unwrap();

    assert_eq!(
        output,
        json!({
            "text": "Hello", "json": null, "model": "small-2026", "finish_reason": "stop",
            "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
        })
    );
    assert_eq!(
        asked.lock().unwrap()[0],
        json!({
            "model": "small", "temperature": 0.5, "stop": ["."], "key": "Bearer hunter2",
            "messages": [{"role": "system", "content": "Be brief"},
                         {"role": "user", "content": "Greet"}],
        })
    );
}

#[tokio::test]
async fn an_answer_of_a_schema_is_checked_against_it() {
    let schema =
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let input = json!({"messages": [{"role": "user", "content": "?"}], "schema": schema});

    let (tools, asked) = model(|| says("{\"n\": 7}")).await;
    let fits = ask(&tools, "llm.chat", input.clone()).await.unwrap();
    let (other, _) = model(|| says("{\"n\": \"seven\"}")).await;
    let does_not = ask(&other, "llm.chat", input).await.unwrap_err();

    assert_eq!(fits["json"], json!({"n": 7}));
    let format = &asked.lock().unwrap()[0]["response_format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(
        (&format["json_schema"]["strict"], &format["json_schema"]["schema"]),
        (&json!(true), &schema)
    );
    assert!(does_not.is_transient() && does_not.to_string().contains("/n"), "{does_not}");
}

#[tokio::test]
async fn a_model_that_is_busy_says_when_to_come_back() {
    let busy =
        || (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "20")], "quota").into_response();
    let (tools, _) = model(busy).await;

    let error = ask(&tools, "llm.chat", json!({"prompt": "?"})).await.unwrap_err();

    let ToolError::Busy { retry_after, .. } = error else { panic!("{error}") };
    assert_eq!(retry_after, Some(Duration::from_secs(20)));
}

#[tokio::test]
async fn a_key_that_is_refused_is_not_shown() {
    let refuses = || (StatusCode::UNAUTHORIZED, "wrong key: hunter2").into_response();
    let (tools, _) = model(refuses).await;

    let error = ask(&tools, "llm.chat", json!({"prompt": "?"})).await.unwrap_err();

    assert!(matches!(error, ToolError::Refused { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn without_a_model_the_tool_is_known_and_refuses() {
    let tools = registry(ToolsConfig::default()).await;

    let error = ask(&tools, "llm.chat", json!({"prompt": "?"})).await.unwrap_err();

    assert!(tools.catalogue().iter().any(|spec| spec.address == "llm.chat"));
    assert_eq!(error.to_string(), "tool llm.chat refused: LLM_BASE_URL is not set");
}
