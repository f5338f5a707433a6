//! The HTTP client of MCP servers: a call of a tool whose run is traced carries the header `traceparent`.
//!
//! The library has one set of headers for all requests of a server. What is of one call alone goes into
//! the call itself, as `_meta.traceparent` (SEP-414), and is copied into the header here, for those
//! between us and the server that read no bodies.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use orchestrator_engine::trace::TRACEPARENT;
use reqwest::redirect::{Action, Attempt, Policy};
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, JsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Error as SseError, Sse};

type Headers = HashMap<HeaderName, HeaderValue>;
type Posted = Result<StreamableHttpPostResponse, StreamableHttpError<reqwest::Error>>;
type Streamed =
    Result<BoxStream<'static, Result<Sse, SseError>>, StreamableHttpError<reqwest::Error>>;

/// `reqwest`'s, and the header.
#[derive(Clone)]
pub(super) struct TracingClient(reqwest::Client);

/// The most redirects that one request follows.
const REDIRECTS_MAX: usize = 10;

impl TracingClient {
    /// What the library would make: without idle connections, which stall where an answer was not
    /// read to its end.
    ///
    /// # Errors
    ///
    /// When there is no TLS provider, or no root certificates.
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0);
        client.redirect(Policy::custom(redirect)).build().map(Self)
    }
}

/// Follows what keeps method and body and stays with the server, which alone may see the session's id
/// and the operator's headers.
fn redirect(attempt: Attempt<'_>) -> Action {
    let keeps_body = matches!(attempt.status().as_u16(), 307 | 308);
    let first = attempt.previous().first().map(url::Url::origin);
    if !keeps_body || first.as_ref() != Some(&attempt.url().origin()) {
        attempt.stop()
    } else if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error(format!("more than {REDIRECTS_MAX} redirects"))
    } else {
        attempt.follow()
    }
}

/// The header for a message that calls a tool.
fn header(message: &ClientJsonRpcMessage) -> Option<(HeaderName, HeaderValue)> {
    let JsonRpcMessage::Request(request) = message else { return None };
    let ClientRequest::CallToolRequest(call) = &request.request else { return None };
    let place = call.params.meta.as_ref()?.get_traceparent()?;
    Some((HeaderName::from_static(TRACEPARENT), HeaderValue::from_str(place).ok()?))
}

impl StreamableHttpClient for TracingClient {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        mut headers: Headers,
    ) -> Posted {
        headers.extend(header(&message));
        self.0.post_message(uri, message, session, auth, headers).await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        mut headers: Headers,
        max: usize,
    ) -> Posted {
        headers.extend(header(&message));
        let posted =
            self.0.post_message_with_max_sse_event_size(uri, message, session, auth, headers, max);
        posted.await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), StreamableHttpError<reqwest::Error>> {
        self.0.delete_session(uri, session, auth, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Streamed {
        self.0.get_stream(uri, session, last_event, auth, headers).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
        max: usize,
    ) -> Streamed {
        let stream =
            self.0.get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, max);
        stream.await
    }
}
