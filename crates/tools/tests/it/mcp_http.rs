use std::process::Stdio;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use orchestrator_engine::tool::{ToolCall, ToolCaller, ToolError};
use orchestrator_tools::Registry;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::setup::{ODD, ask, ask_again, call, program, until_known, with_servers};

/// A server on a port of this machine; dropped, it is killed.
struct Remote {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Remote {
    /// Starts it; returns when it listens.
    async fn start(port: u16) -> Self {
        let mut child = Command::new(program("python"))
            .args([ODD, "http", &port.to_string()])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut remote = Self { child, said };
        remote.until_said("Uvicorn running").await;
        remote
    }

    async fn until_said(&mut self, words: &str) {
        let heard = async {
            while let Some(line) = self.said.next_line().await.unwrap() {
                if line.contains(words) {
                    return;
                }
            }
            panic!("the server ended without saying {words:?}");
        };
        tokio::time::timeout(Duration::from_mins(1), heard).await.expect("the server is silent");
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn tools_at(port: u16) -> Registry {
    with_servers(json!({
        "web": {"url": format!("http://127.0.0.1:{port}/mcp"), "headers": {"X-Key": "k"}},
    }))
    .await
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_called_again() {
    let port = free_port();
    let mut remote = Remote::start(port).await;
    let tools = tools_at(port).await;
    let before = ask(&tools, "web.pid", json!({})).await.unwrap();

    remote.child.kill().await.unwrap();
    let away = ask(&tools, "web.pid", json!({})).await.unwrap_err();
    let _remote = Remote::start(port).await;
    let after = ask_again(&tools, "web.pid", json!({})).await.unwrap();

    assert!(matches!(away, ToolError::Unreachable { .. }), "{away}");
    assert_ne!(before, after);
    tools.stop().await;
}

#[tokio::test]
async fn a_session_that_has_expired_is_opened_anew() {
    let port = free_port();
    let _remote = Remote::start(port).await;
    let tools = tools_at(port).await;

    ask(&tools, "web.forget", json!({})).await.unwrap();
    let first = ask(&tools, "web.double", json!({"number": 1})).await;
    let second = ask(&tools, "web.double", json!({"number": 2})).await;

    assert_eq!(first, Ok(json!({"result": 2})));
    assert_eq!(second, Ok(json!({"result": 4})));
    tools.stop().await;
}

#[tokio::test]
async fn a_tool_that_hangs_at_a_remote_server_is_given_up() {
    let port = free_port();
    let mut remote = Remote::start(port).await;
    let tools = tools_at(port).await;
    let mut hang = call("web.hang", json!({}));
    hang.timeout = Duration::from_millis(300);

    let error = tools.call(hang).await.unwrap_err();

    assert!(matches!(error, ToolError::Timeout { .. }), "{error}");
    remote.until_said("hanging").await;
    assert!(ask(&tools, "web.pid", json!({})).await.is_ok());
    tools.stop().await;
}

/// The server dies while it works on a call whose own timeout is far away.
#[tokio::test]
async fn a_call_whose_server_is_killed_does_not_hang() {
    let port = free_port();
    let mut remote = Remote::start(port).await;
    let tools = tools_at(port).await;
    let mut hang = call("web.hang", json!({}));
    hang.timeout = Duration::from_hours(1);

    let (error, ()) = tokio::join!(tools.call(hang), async {
        remote.until_said("hanging").await;
        remote.child.kill().await.unwrap();
    });

    let error = error.unwrap_err();
    assert!(error.is_transient() && !matches!(error, ToolError::Timeout { .. }), "{error}");
    tools.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_late_joins_the_catalogue() {
    let port = free_port();
    let tools = tools_at(port).await;
    let before = ask(&tools, "web.pid", json!({})).await.unwrap_err();

    let _remote = Remote::start(port).await;
    until_known(&tools, "web.pid").await;

    assert!(matches!(before, ToolError::Unknown { .. }), "{before}");
    assert!(ask(&tools, "web.pid", json!({})).await.is_ok());
    tools.stop().await;
}

/// The server lets us in once, and then wants other credentials.
#[tokio::test]
async fn a_server_that_wants_other_credentials_is_not_asked_again_and_again() {
    let port = free_port();
    let _remote = Remote::start(port).await;
    let tools = tools_at(port).await;

    ask(&tools, "web.lock", json!({})).await.unwrap();
    let error = ask(&tools, "web.pid", json!({})).await.unwrap_err();

    assert!(matches!(error, ToolError::Refused { .. }), "{error}");
    tools.stop().await;
}

/// A server that says how a call of its one tool reached it.
async fn told(headers: HeaderMap, Json(message): Json<Value>) -> Response {
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "told", "version": "1"},
        }),
        Some("tools/list") => {
            json!({"tools": [{"name": "told", "inputSchema": {"type": "object"}}]})
        }
        Some("tools/call") => json!({"content": [], "structuredContent": {
            "header": headers.get("traceparent").map(|value| value.to_str().expect("it is text")),
            "meta": message["params"]["_meta"]["traceparent"],
        }}),
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    Json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).into_response()
}

#[tokio::test]
async fn a_call_of_a_traced_run_names_its_span_in_the_header_and_in_the_call() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(
        async move { axum::serve(listener, Router::new().route("/mcp", post(told))).await },
    );
    let tools = tools_at(port).await;
    let place = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = ToolCall { trace: place.parse().ok(), ..call("web.told", json!({})) };

    let with = tools.call(traced).await.unwrap();
    let without = ask(&tools, "web.told", json!({})).await.unwrap();

    assert_eq!(with, json!({"header": place, "meta": place}));
    assert_eq!(without, json!({"header": null, "meta": null}));
    tools.stop().await;
}
