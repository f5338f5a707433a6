//! What the tests share: a registry, calls, local servers.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine::clock::SystemClock;
use orchestrator_engine::id::RunId;
use orchestrator_engine::tool::{ToolCall, ToolCaller, ToolError};
use orchestrator_tools::{Registry, ToolsConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The tools, as a worker has them.
pub async fn registry(config: ToolsConfig) -> Registry {
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Registry::start(config, Arc::new(SystemClock)).await.unwrap()
}

/// The tools, allowed to reach `allow` besides public addresses.
pub async fn reaching(allow: &str) -> Registry {
    let http_allow_private = allow.parse().unwrap();
    registry(ToolsConfig { http_allow_private, ..ToolsConfig::default() }).await
}

/// A call with half a minute to spare.
pub fn call(address: &str, input: Value) -> ToolCall {
    ToolCall {
        address: address.to_owned(),
        input,
        timeout: Duration::from_secs(30),
        idempotency_key: "0198/fetch".to_owned(),
        run_id: RunId(uuid::Uuid::nil()),
        trace: None,
        cancel: CancellationToken::new(),
    }
}

/// Calls a tool.
pub async fn ask(tools: &Registry, address: &str, input: Value) -> Result<Value, ToolError> {
    tools.call(call(address, input)).await
}

/// Calls a tool again as long as another try may succeed, as a step's retries do. Each try waits for
/// a server that is on its way.
pub async fn ask_again(tools: &Registry, address: &str, input: Value) -> Result<Value, ToolError> {
    let mut answer = ask(tools, address, input.clone()).await;
    for _ in 0..10 {
        match &answer {
            Err(error) if error.is_transient() => answer = ask(tools, address, input.clone()).await,
            _ => break,
        }
    }
    answer
}

/// Serves `router` on a free port of 127.0.0.1 until the test ends.
pub async fn serve(router: axum::Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    at
}

/// A program of the Python environment of the tests.
pub fn program(name: &str) -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.orchestrator/venv");
    #[expect(clippy::disallowed_methods, reason = "tests have no settings")]
    let venv = std::env::var_os("TEST_VENV").map_or_else(|| default.into(), PathBuf::from);
    let program = venv.join("bin").join(name);
    assert!(
        program.exists(),
        "{} is missing: run ops/scripts/tools-venv.sh first, it makes the Python environment of \
         the tests",
        program.display()
    );
    program
}

/// The MCP server that behaves in all the ways a client must survive.
pub const ODD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/servers/odd.py");

/// The tools of these MCP servers, in the form of `MCP_CONFIG`; all of them are up.
pub async fn with_servers(servers: Value) -> Registry {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"mcpServers": servers}).to_string()).unwrap();
    let config = ToolsConfig {
        mcp_config: Some(file.path().to_owned()),
        inherited_env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
        ..ToolsConfig::default()
    };
    registry(config).await
}

/// Returns when the catalogue has the tool.
pub async fn until_known(tools: &Registry, address: &str) {
    let mut changes = tools.changes();
    let known = async {
        while !tools.catalogue().iter().any(|spec| spec.address == address) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_mins(1), known).await.expect("the tool never came");
}
