//! What stands around every request: its id, its log line, its time limit, its metrics, and the form
//! of its refusal.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt as _;
use orchestrator_boot::{ANSWER_MAX, Droppable};
use orchestrator_engine::id;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::client;
use crate::problem::{MEDIA_TYPE, Problem};
use crate::state::Api;
use crate::trace::Traced;

/// The header that names a request, taken or made, and always returned.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken from a caller, in bytes.
pub const REQUEST_ID_MAX: usize = 128;
/// The longest time one request may take, with its body.
pub const REQUEST_MAX: Duration = Duration::from_secs(30);

/// The id of a request, as an extension of it.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

fn request_id(request: &Request, api: &Api) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(given) if is_fine(given) => given.to_owned(),
        _ => id::RunId::new(api.clock.now(), &mut id::rng()).to_string(),
    }
}

/// Visible ASCII only: the id goes into logs and back into a header.
fn is_fine(given: &str) -> bool {
    (1..=REQUEST_ID_MAX).contains(&given.len()) && given.bytes().all(|b| b.is_ascii_graphic())
}

/// The outermost layer of every route.
pub async fn frame(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let request_id = request_id(&request, &api);
    let method = request.method().clone();
    // The path alone goes into logs and problems: a query may hold a feed token.
    let path = request.uri().path().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    request.extensions_mut().insert(RequestId(request_id.clone()));
    let client = client::of(&request, &api.options.trusted_proxies);
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    let client = client.map(|client| tracing::field::display(client.0));

    let begun = Instant::now();
    let traced = Traced::begin(&api, request.headers(), &path);
    let trace_id = traced.as_ref().map(|traced| traced.id());
    let span = tracing::info_span!("request", %request_id, %method, %path, client, trace_id);
    let answering = async {
        let response = if path.contains("%00") {
            // Postgres keeps no such text, so there is nothing that it could name.
            Problem::bad_request("the path holds the character U+0000").into_response()
        } else {
            answer_in_time(request, next).await
        };
        let status = response.status().as_u16();
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if status >= 500 {
            tracing::warn!(status, took_ms, "{method} {path} answered {status}");
        } else {
            tracing::debug!(status, took_ms, "{method} {path} answered {status}");
        }
        response
    }
    .instrument(span);
    let mut response = match traced {
        Some(traced) => traced.around((&method, &route, &request_id), answering).await,
        None => answering.await,
    };

    if response.status().is_client_error() || response.status().is_server_error() {
        response = write_problem(response, &path, &request_id);
    }
    api.metrics.api().answered(
        method_label(&method),
        &route,
        response.status().as_u16(),
        begun.elapsed(),
    );
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The answer to the request, or a refusal when there is none within [`REQUEST_MAX`], or within
/// [`ANSWER_MAX`] after the caller has said all that it has to say: from then on a handler waits for
/// nothing but the database.
async fn answer_in_time(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (heard, last) = watch::channel(begun);
    let request = request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            heard.send_replace(Instant::now());
            frame
        }))
    });
    let patience = async {
        let end = begun + REQUEST_MAX;
        loop {
            let until = (*last.borrow() + ANSWER_MAX).min(end);
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    };
    tokio::select! {
        response = Droppable::new(next.run(request)) => response,
        () = patience => {
            tracing::warn!("a request was given up: the database did not answer in time");
            Problem::timeout().into_response()
        }
    }
}

/// A caller may send any word as a method; a label may not be any word.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Writes the refusal as a problem document, also where the framework made it by itself (an unknown
/// route, a wrong method). A JSON document that a handler wrote, as `/health` does, stays.
fn write_problem(mut response: Response, path: &str, request_id: &str) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_json(&response) => return response,
        None => Problem::of_status(response.status()),
    };
    let (parts, _) = response.into_parts();
    let status = problem.status();
    let mut headers = parts.headers;
    problem.write_headers(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_TYPE);
    let mut written = (status, Json(problem.document(path, request_id))).into_response();
    for (name, value) in &headers {
        written.headers_mut().append(name, value.clone());
    }
    written.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    written
}

fn is_json(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"))
}

/// What a panic in a handler becomes.
#[expect(clippy::needless_pass_by_value, reason = "the layer hands the panic over like this")]
#[must_use]
pub fn caught(panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no words");
    tracing::error!(panic = said, "a request handler panicked");
    Problem::internal().into_response()
}

/// What an unknown path becomes.
pub async fn unknown_route() -> Problem {
    Problem::of_status(StatusCode::NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_from_outside_is_short_and_visible() {
        assert!(is_fine("abc-123/{}"));
        assert!(is_fine(&"x".repeat(REQUEST_ID_MAX)));
        assert!(!is_fine(&"x".repeat(REQUEST_ID_MAX + 1)));
        assert!(!is_fine(""));
        assert!(!is_fine("a b"));
        assert!(!is_fine("a\u{7f}b"));
    }
}
