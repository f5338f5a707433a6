//! A connection to an MCP server, made and ended: as a child process, or over streamable HTTP.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use rmcp::ServiceExt;
use rmcp::model::{ClientCapabilities, ClientConfig, ClientRequest, Implementation, PingRequest};
use rmcp::service::{NotificationContext, Peer, RoleClient, RunningService, ServiceError};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransportConfig, StreamableHttpError,
};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::config::{ServerConfig, TransportConfig};
use super::traced::TracingClient;
use crate::failure::{cause, chain, excerpt};

/// How long a server may take to start and shake hands. Generous: the first start of a server may
/// download it.
const OPEN_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a server may take to end after it was asked to.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// The most requests on their way to one server over HTTP; more than a worker has slots.
const REQUESTS_MAX: usize = 64;

/// What we answer when a server asks who we are, and where it tells us that its tools have changed.
struct Handler {
    listed: Arc<Notify>,
}

impl rmcp::ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let us = Implementation::new("orchestrator", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), us)
    }

    fn on_tool_list_changed(
        &self,
        _: NotificationContext<RoleClient>,
    ) -> impl Future<Output = ()> + Send + '_ {
        self.listed.notify_one();
        std::future::ready(())
    }
}

/// An open connection. Dropped, it is cut, and a server that is our child is killed.
pub(super) struct Link {
    pub(super) peer: Peer<RoleClient>,
    /// The server says that its tools have changed.
    pub(super) listed: Arc<Notify>,
    stop: CancellationToken,
    waiting: BoxFuture<'static, ()>,
    has_ended: bool,
    /// Kept for its end: whatever the server has started goes with it.
    _group: Option<Group>,
}

impl Link {
    /// Starts or reaches the server and shakes hands; otherwise says why not.
    pub(super) async fn open(
        config: &ServerConfig,
        inherited_env: &[(String, String)],
    ) -> Result<Self, String> {
        let (listed, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let handler = Handler { listed: Arc::clone(&listed) };
        let mut group = None;
        let shaken = match &config.transport {
            TransportConfig::Stdio { command, args, env, cwd } => {
                let mut child = Command::new(command);
                // Our own environment holds secrets that are none of the server's business.
                child.args(args).env_clear().envs(inherited_env.iter().cloned()).envs(env);
                if let Some(cwd) = cwd {
                    child.current_dir(cwd);
                }
                // A group of its own: Ctrl-C at our terminal must not end servers before the runs
                // that use them, and what the server starts itself can be ended with it.
                child.kill_on_drop(true).process_group(0);
                let (child, stderr) = TokioChildProcess::builder(child)
                    .stderr(Stdio::piped())
                    .spawn()
                    .map_err(|error| format!("{command} cannot be started: {error}"))?;
                group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).map(Group);
                if let Some(stderr) = stderr {
                    tokio::spawn(log(config.name.clone(), stderr));
                }
                handler.serve_with_ct(child, stop.clone()).boxed()
            }
            TransportConfig::Http { url, headers } => {
                let wanted = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .max_concurrent_requests(REQUESTS_MAX)
                    .custom_headers(headers.clone());
                let client = TracingClient::new().map_err(|error| chain(&error))?;
                let transport = StreamableHttpClientTransport::with_client(client, wanted);
                handler.serve_with_ct(transport, stop.clone()).boxed()
            }
        };
        let running: RunningService<RoleClient, Handler> =
            tokio::time::timeout(OPEN_TIMEOUT, shaken)
                .await
                .map_err(|_| format!("no handshake in {}s", OPEN_TIMEOUT.as_secs()))?
                .map_err(|error| config.transport.hide(&chain(&error)))?;
        let peer = running.peer().clone();
        let waiting = async move { drop(running.waiting().await) }.boxed();
        Ok(Self { peer, listed, stop, waiting, has_ended: false, _group: group })
    }

    /// Returns when the connection has ended by itself.
    pub(super) async fn ended(&mut self) {
        if !self.has_ended {
            self.waiting.as_mut().await;
            self.has_ended = true;
        }
    }

    /// Asks the server to end, and kills it if it does not.
    pub(super) async fn close(mut self) {
        self.stop.cancel();
        // Dropped after the wait, whatever the answer was.
        let _ = tokio::time::timeout(CLOSE_WAIT, self.ended()).await;
    }
}

/// The processes of a server; they are killed when this is dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // An error means that none is left.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Writes what a server says on its standard error to our log, in pieces: it need not be lines.
async fn log(server: String, mut stderr: ChildStderr) {
    let mut piece = vec![0; 4096];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        let said = excerpt(&piece[..length], 1024);
        tracing::debug!(mcp.server = server, "MCP server {server} says: {said}");
    }
}

/// Asks for a sign of life. That it does not know the question is also one.
pub(super) async fn ping(peer: &Peer<RoleClient>) -> Result<(), ServiceError> {
    match peer.send_request(ClientRequest::PingRequest(PingRequest::default())).await {
        Ok(_) | Err(ServiceError::McpError(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a request that failed so has certainly not been seen by the server: no connection, no
/// pipe, or no session there any more.
pub(super) fn not_sent(error: &ServiceError) -> bool {
    if let Some(error) = sending::<StreamableHttpError<reqwest::Error>>(error) {
        return match error {
            StreamableHttpError::Client(error) => error.is_connect(),
            StreamableHttpError::SessionExpired => true,
            _ => false,
        };
    }
    sending::<std::io::Error>(error).is_some_and(|error| {
        use std::io::ErrorKind::{BrokenPipe, NotConnected};
        matches!(error.kind(), BrokenPipe | NotConnected)
    })
}

/// What went wrong in sending, when it is an `E`. The library's error does not name it as its source.
fn sending<E: std::error::Error + 'static>(error: &ServiceError) -> Option<&E> {
    match error {
        ServiceError::TransportSend(error) => cause(error.error.as_ref()),
        _ => None,
    }
}

/// Whether the server wants other credentials; trying again with the same is of no use.
pub(super) fn unauthorized(error: &ServiceError) -> bool {
    use StreamableHttpError::{AuthRequired, InsufficientScope};
    matches!(
        sending::<StreamableHttpError<reqwest::Error>>(error),
        Some(AuthRequired(_) | InsufficientScope(_))
    )
}

impl TransportConfig {
    /// `text` without the server's URL, of which only the origin is no secret.
    pub(super) fn hide(&self, text: &str) -> String {
        match self {
            Self::Stdio { .. } => text.to_owned(),
            Self::Http { url, .. } => {
                text.replace(url.as_str(), &url.origin().ascii_serialization())
            }
        }
    }
}
