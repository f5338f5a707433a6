//! One MCP server: its connection, the task that looks after it, and calls of its tools.
//!
//! A call never hangs: the registry gives up when the time is over, and the request is then canceled
//! at the server. Who gives up also raises a suspicion, and the task asks the server for a sign of
//! life. No sign, and nobody else waiting on it: it is started again. Calls that find the server
//! down wait a little for its return.
//!
//! A call is repeated here only when the server cannot have seen it. Whatever may have been done is
//! left to the step's own policy of retries.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine::tool::{ERROR_TEXT_MAX, ToolCall, ToolError};
use orchestrator_engine::trace::TRACEPARENT;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ErrorCode, JsonObject, PaginatedRequestParams,
    RequestMetaObject,
};
use rmcp::service::ServiceError;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::ServerConfig;
use super::connection::Connection;
use super::link::{Link, not_sent, unauthorized};
use super::{entry, result, source};
use crate::failure::{busy, chain, excerpt, refused, unreachable};
use crate::registry::Table;

/// How long a call waits for a server that is down.
const RETURN_WAIT: Duration = Duration::from_secs(8);

/// How often a call is sent to a server that, each time, cannot have seen it.
const SENDS_MAX: usize = 3;

/// How long a server may take to list its tools.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a sign of life may take.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two starts.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// The pause at most, while a call waits for the server.
const PAUSE_WANTED: Duration = Duration::from_secs(1);

/// A server that has been up for so long has come up well; its next start is not delayed.
const STEADY: Duration = Duration::from_secs(10);

/// The most tools of one server, and the most pages they may come on.
const TOOLS_MAX: usize = 1_000;
const PAGES_MAX: usize = 100;

#[derive(Clone)]
enum State {
    /// The first start is under way.
    Starting,
    Up(Arc<Connection>),
    Down(Arc<str>),
    /// We are to end; it will not return.
    Stopped,
}

/// One server.
pub(super) struct Server {
    config: ServerConfig,
    inherited_env: Vec<(String, String)>,
    state: watch::Sender<State>,
    /// A call waits for the server: start it soon.
    wanted: Notify,
    /// A call was given up, or could not be sent: see whether the connection still works.
    suspect: Notify,
}

impl Server {
    pub(super) fn new(config: ServerConfig, inherited_env: Vec<(String, String)>) -> Self {
        let state = watch::Sender::new(State::Starting);
        Self { config, inherited_env, state, wanted: Notify::new(), suspect: Notify::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(*self.state.borrow(), State::Starting)
    }

    /// Returns when the first start has succeeded or failed.
    pub(super) async fn tried(&self) {
        // An error means that the sender is gone, and it is ours.
        let _ = self.state.subscribe().wait_for(|state| !matches!(state, State::Starting)).await;
    }

    /// Calls one of its tools. Ends by itself only when there is an answer or a failure; the caller
    /// watches the time and drops the call.
    pub(super) async fn call(&self, name: &str, call: ToolCall) -> Result<Value, ToolError> {
        let address = call.address;
        let Value::Object(arguments) = call.input else {
            return Err(refused(&address, "the input is not an object"));
        };
        let mut meta = JsonObject::new();
        meta.insert("orchestrator/idempotency-key".to_owned(), call.idempotency_key.into());
        if let Some(place) = call.trace {
            meta.insert(TRACEPARENT.to_owned(), place.to_string().into()); // SEP-414
        }
        let mut params = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        params.meta = Some(RequestMetaObject::from(meta));

        let until = Instant::now() + RETURN_WAIT;
        let mut reason = String::new();
        for _ in 0..SENDS_MAX {
            let connection = self.connection(until).await.map_err(|reason| {
                unreachable(&address, format!("MCP server {} is down: {reason}", self.name()))
            })?;
            match connection.call(params.clone(), &self.suspect).await {
                Ok(CallToolResponse::Complete(answer)) => return result(&address, answer),
                Ok(_) => {
                    return Err(refused(&address, "it asks back, and nobody is there to answer"));
                }
                Err(error) if not_sent(&error) => {
                    reason = self.said(&error);
                    self.lost(&connection, &reason);
                }
                Err(error) => return Err(self.failed(&address, &connection, &error)),
            }
        }
        Err(unreachable(&address, reason))
    }

    /// The connection, waiting for it until `until`; otherwise why there is none.
    async fn connection(&self, until: Instant) -> Result<Arc<Connection>, Arc<str>> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(connection) if !connection.peer.is_transport_closed() => {
                    return Ok(Arc::clone(connection));
                }
                State::Stopped => return Err("it has been stopped".into()),
                State::Starting | State::Down(_) | State::Up(_) => self.wanted.notify_one(),
            }
            if !matches!(tokio::time::timeout_at(until, state.changed()).await, Ok(Ok(()))) {
                return Err(match &*state.borrow() {
                    State::Down(reason) => Arc::clone(reason),
                    _ => "it does not answer".into(),
                });
            }
        }
    }

    /// What an answer that is no result means.
    fn failed(&self, address: &str, connection: &Connection, error: &ServiceError) -> ToolError {
        match error {
            ServiceError::McpError(said) => {
                let text = excerpt(said.message.as_bytes(), ERROR_TEXT_MAX);
                let text = format!("error {}: {text}", said.code.0);
                // The server's own trouble may pass; what it says of the request will stay.
                if said.code == ErrorCode::INTERNAL_ERROR {
                    busy(address, text)
                } else {
                    refused(address, text)
                }
            }
            ServiceError::TransportSend(_) if unauthorized(error) => {
                refused(address, self.said(error))
            }
            ServiceError::TransportClosed | ServiceError::TransportSend(_) => {
                let reason = self.said(error);
                self.lost(connection, &reason);
                busy(address, format!("the connection broke during the call: {reason}"))
            }
            other => refused(address, self.said(other)),
        }
    }

    /// An error in words. The URL is left out: its path or query may hold a key.
    fn said(&self, error: &(dyn std::error::Error + 'static)) -> String {
        self.config.transport.hide(&chain(error))
    }

    /// Nobody is to use this connection until the task has looked at it.
    fn lost(&self, connection: &Connection, reason: &str) {
        self.state.send_if_modified(|state| match state {
            State::Up(current) if std::ptr::eq(Arc::as_ptr(current), connection) => {
                *state = State::Down(reason.into());
                true
            }
            _ => false,
        });
        self.suspect.notify_one();
    }

    /// Keeps the server up until `stop`, then ends it.
    pub(super) async fn look_after(self: Arc<Self>, table: Arc<Table>, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let started = tokio::select! {
                started = Link::open(&self.config, &self.inherited_env) => started,
                () = stop.cancelled() => break,
            };
            let reason = match started {
                Ok(link) => {
                    let since = Instant::now();
                    let reason = self.serve(link, &table, &stop).await;
                    if since.elapsed() >= STEADY {
                        failures = 0;
                    }
                    reason
                }
                Err(reason) => reason,
            };
            if stop.is_cancelled() {
                break;
            }
            let pause = pause(failures);
            failures += 1;
            tracing::warn!(
                mcp.server = self.name(),
                failures,
                wait_s = pause.as_secs_f32(),
                "MCP server {} is down and will be started again: {reason}",
                self.name()
            );
            self.state.send_replace(State::Down(reason.into()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = async {
                    self.wanted.notified().await;
                    tokio::time::sleep(PAUSE_WANTED).await;
                } => {}
                () = stop.cancelled() => {}
            }
        }
        self.state.send_replace(State::Stopped);
    }

    /// Offers the server's tools as long as the connection works. Returns why it ended.
    async fn serve(
        self: &Arc<Self>,
        mut link: Link,
        table: &Table,
        stop: &CancellationToken,
    ) -> String {
        let connection = Arc::new(Connection::new(link.peer.clone()));
        let reason = tokio::select! {
            reason = self.offer(&connection, &mut link, table) => reason,
            () = stop.cancelled() => {
                self.state.send_replace(State::Stopped);
                link.close().await;
                return "it was to stop".to_owned();
            }
        };
        // One that has ended or says nothing need not be asked to go.
        self.state.send_replace(State::Down(reason.as_str().into()));
        reason
    }

    async fn offer(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        link: &mut Link,
        table: &Table,
    ) -> String {
        let listed = Arc::clone(&link.listed);
        let mut looked = self.list(connection, table).await.map(|count| {
            tracing::info!(
                mcp.server = self.name(),
                tools = count,
                "MCP server {} is up with {count} tools",
                self.name()
            );
        });
        loop {
            match looked {
                Ok(()) => self.state.send_replace(State::Up(Arc::clone(connection))),
                Err(reason) => return reason,
            };
            looked = tokio::select! {
                () = link.ended() => Err("it has ended".to_owned()),
                () = listed.notified() => self.list(connection, table).await.map(drop),
                () = self.suspect.notified() => self.sign_of_life(connection).await,
            };
        }
    }

    /// Asks for all tools and puts them into the table; returns how many there are.
    async fn list(
        self: &Arc<Self>,
        connection: &Connection,
        table: &Table,
    ) -> Result<usize, String> {
        let pages = async {
            let mut tools = Vec::new();
            let mut cursor = None;
            for _ in 0..PAGES_MAX {
                let params = PaginatedRequestParams::default().with_cursor(cursor);
                let page = connection.peer.list_tools(Some(params)).await.map_err(|error| {
                    format!("it does not list its tools: {}", self.said(&error))
                })?;
                tools.extend(page.tools);
                cursor = page.next_cursor;
                if cursor.is_none() || tools.len() >= TOOLS_MAX {
                    break;
                }
            }
            Ok::<_, String>(tools)
        };
        let tools = tokio::time::timeout(LIST_TIMEOUT, pages)
            .await
            .map_err(|_| format!("it has not listed its tools in {}s", LIST_TIMEOUT.as_secs()))??;
        let entries: Vec<_> = tools.iter().take(TOOLS_MAX).map(|tool| entry(self, tool)).collect();
        let count = entries.len();
        table.replace(&source(self.name()), entries);
        Ok(count)
    }

    /// Whether the server still answers. A server that works on one call at a time answers late, so
    /// it is asked again while calls that began before are going: each has a timeout of its own. Calls
    /// that came later are not waited for, or a dead server that is much asked would never be buried.
    async fn sign_of_life(&self, connection: &Connection) -> Result<(), String> {
        let since = connection.suspected_at();
        loop {
            let ping = super::link::ping(&connection.peer);
            let reason = match tokio::time::timeout(PING_TIMEOUT, ping).await {
                Ok(Ok(())) => {
                    connection.trust();
                    return Ok(());
                }
                Ok(Err(error)) => return Err(self.said(&error)),
                Err(_) => format!("no sign of life in {}s", PING_TIMEOUT.as_secs()),
            };
            if !connection.is_going_since_before(since) {
                return Err(reason);
            }
        }
    }
}

/// How long to wait before the next start: 0.5 s, 1 s, 2 s … up to [`PAUSE_MAX`].
fn pause(failures: u32) -> Duration {
    (Duration::from_millis(500) * (1 << failures.min(10))).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(pause(0), Duration::from_millis(500));
        assert_eq!(pause(3), Duration::from_secs(4));
        assert_eq!(pause(u32::MAX), PAUSE_MAX);
    }
}
