//! Tools of other programs, through the Model Context Protocol (modelcontextprotocol.io).
//!
//! [`config`] reads which servers there are. Each has one warm connection that all calls share, and
//! one task that looks after it (`server`): it starts the server, lists its tools, and starts it
//! again when it dies. Here is what they have in common: start, stop, and what results mean.

pub mod config;
mod connection;
mod link;
mod server;
mod traced;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use orchestrator_engine::tool::{ERROR_TEXT_MAX, ToolCall, ToolError, ToolSpec};
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::config::ServerConfig;
use self::server::Server;
use crate::failure::{excerpt, refused};
use crate::registry::{Entry, Table, Tool};

/// Names that no MCP server may have: the first parts of built-in addresses.
pub const RESERVED: [&str; 3] = ["core", "http", "llm"];

/// How long a call may take when the step does not say, in seconds.
const TIMEOUT_SECONDS: u32 = 60;

/// How long all servers together may take to end.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// The MCP servers of a process. Dropped without [`stop`](Self::stop), they are ended all the same,
/// but nobody waits for it.
pub(crate) struct Servers {
    all: Vec<Arc<Server>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Servers {
    /// Starts a task for each server and returns at once.
    pub(crate) fn start(
        wanted: Vec<ServerConfig>,
        inherited_env: &[(String, String)],
        table: &Arc<Table>,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let all = wanted
            .into_iter()
            .map(|config| {
                let server = Arc::new(Server::new(config, inherited_env.to_vec()));
                tasks.spawn(Arc::clone(&server).look_after(Arc::clone(table), stop.clone()));
                server
            })
            .collect();
        tasks.close();
        Self { all, tasks, stop }
    }

    /// Returns when each server has listed its tools or failed to come up, or after `longest`.
    pub(crate) async fn wait_for_first_lists(&self, longest: Duration) {
        let all = join_all(self.all.iter().map(|server| server.tried()));
        if tokio::time::timeout(longest, all).await.is_err() {
            for server in self.all.iter().filter(|server| server.is_starting()) {
                tracing::warn!(
                    mcp.server = server.name(),
                    "MCP server {} is not up after {}s; its tools will join when it is",
                    server.name(),
                    longest.as_secs()
                );
            }
        }
    }

    /// Ends all servers; returns when they have gone, or been killed.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("not every MCP server has ended within {}s", STOP_WAIT.as_secs());
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One tool of a server.
struct RemoteTool {
    server: Arc<Server>,
    /// Its name at the server.
    name: String,
}

impl Tool for RemoteTool {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        self.server.call(&self.name, call).boxed()
    }
}

/// Where the tools of a server come from, as the catalogue says it.
fn source(server: &str) -> String {
    format!("mcp:{server}")
}

fn entry(server: &Arc<Server>, tool: &rmcp::model::Tool) -> Entry {
    let title = tool.title.as_deref().unwrap_or_default();
    let spec = ToolSpec {
        address: format!("{}.{}", server.name(), tool.name),
        description: tool.description.as_deref().unwrap_or(title).to_owned(),
        input_schema: Value::Object((*tool.input_schema).clone()),
        output_schema: tool.output_schema.as_ref().map(|schema| Value::Object((**schema).clone())),
        timeout_seconds: TIMEOUT_SECONDS,
        scope: Some(format!("tool:{}", server.name())),
        source: source(server.name()),
    };
    let remote = RemoteTool { server: Arc::clone(server), name: tool.name.clone().into_owned() };
    Entry::new(spec, Arc::new(remote))
}

/// What a result means. Structured content is the result as it is. Otherwise it is
/// `{text, json, content}`: all text blocks as one, that text parsed when it is a JSON object or
/// list, and the blocks themselves. What the server marks as an error is one: a run must not be
/// called a success because a failure was politely worded.
fn result(address: &str, result: CallToolResult) -> Result<Value, ToolError> {
    let text = result
        .content
        .iter()
        .filter_map(|block| match block {
            ContentBlock::Text(text) => Some(text.text.as_str()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .join("\n");
    if result.is_error == Some(true) {
        let said = excerpt(text.as_bytes(), ERROR_TEXT_MAX);
        let said = if said.is_empty() { "the tool says that it failed" } else { &said };
        return Err(refused(address, said));
    }
    if let Some(structured) = result.structured_content {
        return Ok(structured);
    }
    let parsed = serde_json::from_str(&text)
        .ok()
        .filter(|json: &Value| json.is_object() || json.is_array())
        .unwrap_or_default();
    Ok(json!({"text": text, "json": parsed, "content": result.content}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(raw: Value) -> Result<Value, ToolError> {
        result("x.y", serde_json::from_value(raw).unwrap())
    }

    #[test]
    fn an_answer_is_structured_or_text_or_json_in_text() {
        let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});

        let structured = json!({"content": [], "structuredContent": {"a": 1}});
        assert_eq!(answer(structured).unwrap(), json!({"a": 1}));
        assert_eq!(answer(text("{\"a\": 1}")).unwrap()["json"], json!({"a": 1}));
        let plain = answer(text("12")).unwrap();
        assert_eq!((&plain["text"], &plain["json"]), (&json!("12"), &Value::Null));
    }

    #[test]
    fn an_answer_marked_as_error_is_one() {
        let raw = json!({"content": [{"type": "text", "text": "no such zone"}], "isError": true});

        assert_eq!(answer(raw), Err(refused("x.y", "no such zone")));
    }
}
