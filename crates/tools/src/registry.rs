//! Every tool under its address, and the care that all calls share.
//!
//! The table of tools is replaced as a whole when an MCP server lists its tools, so a call works
//! with one entry from beginning to end and readers never wait for a server.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::{self, BoxFuture, FutureExt};
use jsonschema::Validator;
use orchestrator_engine::clock::Clock;
use orchestrator_engine::config::AllowList;
use orchestrator_engine::pipeline::GRACE;
use orchestrator_engine::tool::{ToolCall, ToolCaller, ToolError, ToolSpec};
use serde_json::Value;
use tokio::sync::watch;

use crate::failure::refused;
use crate::llm::LlmConfig;
use crate::{core, http, llm, mcp, schema};

/// The largest result that a tool may hand on, as JSON text: the greatest that can be kept at all. What
/// a run may keep is bounded by a setting, in the engine. `http.request` bounds its own by `max_bytes`.
pub const OUTPUT_MAX_BYTES: usize = *orchestrator_engine::config::RUN_DATA_RANGE.end();

/// The variables that stdio MCP servers inherit; everything else they get is in their own `env`.
pub const INHERITED_ENV: [&str; 3] = ["PATH", "HOME", "LANG"];

/// How long [`Registry::start`] waits for the first lists of the MCP servers.
const FIRST_LISTS_WAIT: Duration = Duration::from_secs(10);

/// What the tools need to know from outside.
#[derive(Clone, Debug, Default)]
pub struct ToolsConfig {
    /// What `http.request` may reach besides public addresses.
    pub http_allow_private: AllowList,
    /// A file in the common `{"mcpServers": {…}}` form.
    pub mcp_config: Option<PathBuf>,
    /// The language model behind `llm.chat`.
    pub llm: Option<LlmConfig>,
    /// The values of [`INHERITED_ENV`] in this process.
    pub inherited_env: Vec<(String, String)>,
}

/// Why the tools could not be made ready. A server that does not come up is none of these: it is
/// tried again in the background.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client cannot be made: no TLS provider, or no root certificates.
    #[error("the HTTP client cannot be made ready")]
    Client(#[source] reqwest::Error),

    /// The file of MCP servers cannot be read.
    #[error("MCP_CONFIG: {} cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// The file of MCP servers can be read, and is wrong.
    #[error("MCP_CONFIG: {}: {reason}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the server's name.
        reason: String,
    },
}

/// One tool. The registry has checked the input, watches the time and checks the result.
pub trait Tool: Send + Sync + 'static {
    /// Calls it. The future may be dropped at any moment: when the time is over, or the run canceled.
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>>;

    /// The largest result, as JSON text. For tools with a limit of their own it is `usize::MAX`.
    fn output_max_bytes(&self) -> usize {
        OUTPUT_MAX_BYTES
    }
}

/// A tool with what is known of it.
pub(crate) struct Entry {
    spec: ToolSpec,
    tool: Arc<dyn Tool>,
    input: Validator,
    output: Option<Validator>,
}

impl Entry {
    /// An entry for a tool. A schema that cannot be compiled is replaced by one that lets everything
    /// pass, with a warning: the server checks its own input, and one odd schema must not take a
    /// whole server away.
    pub(crate) fn new(mut spec: ToolSpec, tool: Arc<dyn Tool>) -> Self {
        let input = schema::compile(&spec.input_schema).unwrap_or_else(|reason| {
            tracing::warn!(
                tool.name = spec.address,
                "the input schema of {} cannot be used, its input is not checked here: {reason}",
                spec.address
            );
            spec.input_schema = serde_json::json!({"type": "object"});
            schema::compile(&spec.input_schema).expect("the plainest schema compiles")
        });
        let output = spec.output_schema.take().and_then(|wanted| match schema::compile(&wanted) {
            Ok(validator) => {
                spec.output_schema = Some(wanted);
                Some(validator)
            }
            Err(reason) => {
                tracing::warn!(
                    tool.name = spec.address,
                    "the output schema of {} cannot be used, its result is not checked: {reason}",
                    spec.address
                );
                None
            }
        });
        Self { spec, tool, input, output }
    }
}

/// The entries of one server, or of all the built-in tools.
pub(crate) type Entries = Vec<Entry>;

/// The tools known at this moment; shared with the tasks that look after MCP servers.
pub(crate) struct Table {
    by_address: RwLock<HashMap<String, Arc<Entry>>>,
    changed: watch::Sender<u64>,
}

impl Table {
    fn new(entries: Entries) -> Self {
        let table = Self { by_address: RwLock::default(), changed: watch::Sender::new(0) };
        table.replace("builtin", entries);
        table
    }

    /// Puts `entries` in the place of all those from `source`; says so to the watchers only when the
    /// catalogue differs.
    pub(crate) fn replace(&self, source: &str, entries: Entries) {
        let changed = {
            let mut table = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
            let before =
                table.extract_if(|_, entry| entry.spec.source == source).collect::<HashMap<_, _>>();
            let same = before.len() == entries.len()
                && entries.iter().all(|entry| {
                    before.get(&entry.spec.address).is_some_and(|old| old.spec == entry.spec)
                });
            table.extend(
                entries.into_iter().map(|entry| (entry.spec.address.clone(), Arc::new(entry))),
            );
            !same
        };
        if changed {
            self.changed.send_modify(|revision| *revision += 1);
        }
    }

    fn find(&self, address: &str) -> Option<Arc<Entry>> {
        self.by_address.read().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }

    fn specs(&self) -> Vec<ToolSpec> {
        let table = self.by_address.read().unwrap_or_else(PoisonError::into_inner);
        let mut specs: Vec<_> = table.values().map(|entry| entry.spec.clone()).collect();
        specs.sort_by(|a, b| a.address.cmp(&b.address));
        specs
    }
}

/// All tools of a process. [`stop`](Self::stop) ends the MCP servers it has started.
pub struct Registry {
    table: Arc<Table>,
    servers: mcp::Servers,
}

impl Registry {
    /// Makes the built-in tools ready and starts the MCP servers. Servers that are not up after 10 s
    /// are not waited for: their tools join later (see [`changes`](Self::changes)).
    ///
    /// # Errors
    ///
    /// [`StartError`], for what an operator must put right; never for a server that is down.
    pub async fn start(config: ToolsConfig, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let wanted = match &config.mcp_config {
            Some(path) => mcp::config::read(path).await?,
            None => Vec::new(),
        };
        let table = Arc::new(Table::new(Self::builtin(&config, &clock)?));
        let servers = mcp::Servers::start(wanted, &config.inherited_env, &table);
        servers.wait_for_first_lists(FIRST_LISTS_WAIT).await;
        Ok(Self { table, servers })
    }

    fn builtin(config: &ToolsConfig, clock: &Arc<dyn Clock>) -> Result<Entries, StartError> {
        let request = http::HttpRequest::new(config.http_allow_private.clone(), Arc::clone(clock))
            .map_err(StartError::Client)?;
        let chat =
            llm::Chat::new(config.llm.clone(), Arc::clone(clock)).map_err(StartError::Client)?;
        let [echo, log, fail] = core::specs();
        Ok(vec![
            Entry::new(echo, Arc::new(core::Echo)),
            Entry::new(log, Arc::new(core::Log)),
            Entry::new(fail, Arc::new(core::Fail)),
            Entry::new(http::spec(), Arc::new(request)),
            Entry::new(llm::spec(), Arc::new(chat)),
        ])
    }

    /// Every tool known now, by address. Tools of a server that is down for the moment stay: a
    /// restart must not make tasks invalid.
    #[must_use]
    pub fn catalogue(&self) -> Vec<ToolSpec> {
        self.table.specs()
    }

    /// Counts the changes of the catalogue: a server came, or lists other tools.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.table.changed.subscribe()
    }

    /// Ends the MCP servers: asks them first, and kills those that do not go within a few seconds.
    /// Calls to them fail from now on.
    pub async fn stop(&self) {
        self.servers.stop().await;
    }

    async fn call_checked(&self, call: ToolCall) -> Result<Value, ToolError> {
        let tool = call.address.clone();
        let Some(entry) = self.table.find(&tool) else {
            return Err(ToolError::Unknown { tool });
        };
        if let Some(mistakes) = schema::mistakes(&entry.input, &call.input) {
            return Err(refused(&tool, format!("the input is wrong: {mistakes}")));
        }
        let (timeout, cancel) = (call.timeout, call.cancel.clone());
        if cancel.is_cancelled() {
            return Err(ToolError::Canceled { tool });
        }
        let given_up = async {
            let error = tokio::select! {
                () = cancel.cancelled() => ToolError::Canceled { tool: tool.clone() },
                () = tokio::time::sleep(timeout) => {
                    ToolError::Timeout { tool: tool.clone(), waited: timeout }
                }
            };
            tokio::time::sleep(GRACE).await;
            error
        };
        let output = tokio::select! {
            // An answer that is there, or comes within the grace, counts: what was done was done.
            biased;
            result = entry.tool.call(call) => result?,
            error = given_up => return Err(error),
        };
        if let Some(mistakes) =
            entry.output.as_ref().and_then(|schema| schema::mistakes(schema, &output))
        {
            let reason = format!("its result is not what its schema promises: {mistakes}");
            return Err(refused(&tool, reason));
        }
        let max = entry.tool.output_max_bytes();
        if max < usize::MAX && serde_json::to_writer(Room(max), &output).is_err() {
            return Err(refused(&tool, format!("its result is larger than {max} bytes")));
        }
        Ok(output)
    }
}

impl ToolCaller for Registry {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        // Nothing can go wrong or take long in an echo, and busy queues are made of them.
        if call.address == core::ECHO {
            return future::ready(core::echo(call)).boxed();
        }
        self.call_checked(call).boxed()
    }
}

/// What the catalogue says of a built-in tool.
pub(crate) fn builtin(
    address: &str,
    description: &str,
    input_schema: Value,
    timeout_seconds: u32,
    scope: Option<&str>,
) -> ToolSpec {
    ToolSpec {
        address: address.to_owned(),
        description: description.to_owned(),
        input_schema,
        output_schema: None,
        timeout_seconds,
        scope: scope.map(str::to_owned),
        source: "builtin".to_owned(),
    }
}

/// A writer that keeps nothing and has room for so many bytes.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_may_be_as_large_as_its_room_and_no_larger() {
        let fits = |bytes: usize| {
            let text = Value::String("x".repeat(bytes - 2));
            serde_json::to_writer(Room(OUTPUT_MAX_BYTES), &text).is_ok()
        };

        assert!(fits(OUTPUT_MAX_BYTES));
        assert!(!fits(OUTPUT_MAX_BYTES + 1));
    }
}
