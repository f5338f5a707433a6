//! REST: what agents and people say to the orchestrator, and what it answers.
//!
//! A request passes [`frame`] (id, log, time limit, form of refusals), [`auth`] (who, and how often),
//! and one handler in [`routes`], which calls `engine` and holds no SQL. A change goes through
//! [`change::Change`]: what it does, its record and its answer are one transaction. The service keeps
//! nothing in memory that another replica would need.
//!
//! `docs/api.md` is the page for callers; `/docs` shows every route.

pub mod auth;
pub mod body;
pub mod callers;
pub mod change;
pub mod client;
pub mod door;
pub mod frame;
pub mod gather;
pub mod limits;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod read;
pub mod routes;
pub mod state;
pub mod time;
pub mod together;
mod trace;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use orchestrator_boot::{BoxError, Context, Service};
use orchestrator_engine::store::agent;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub use state::{Api, Options};

/// All routes, for `api`.
pub fn router(api: Api) -> Router {
    let private =
        routes::private().route_layer(from_fn_with_state(api.clone(), auth::authenticate));
    let (routes, description) =
        openapi::description().merge(routes::public()).merge(private).split_for_parts();
    routes
        .merge(openapi::pages(description))
        .fallback(frame::unknown_route)
        .layer(DefaultBodyLimit::disable()) // every body is read by `body`, which has its own
        .layer(CatchPanicLayer::custom(frame::caught))
        .layer(from_fn_with_state(api.clone(), frame::frame))
        .with_state(api)
}

/// Serves until `stop`; then ends calmly: requests that are on are answered ([`door`]).
///
/// # Errors
///
/// When the port is taken, or a setting cannot be followed.
pub async fn serve(ctx: Context, stop: CancellationToken) -> Result<(), BoxError> {
    ctx.health.expect("api");
    if let Some(key) = &ctx.settings.api.admin_key {
        agent::ensure_admin(&ctx.pool, key.expose(), ctx.clock.now()).await?;
    }
    let api = Api::new(&ctx);
    routes::health::add_checks(&api);

    let address = SocketAddr::from((ctx.settings.api.host, ctx.settings.api.port));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| format!("{address} cannot be opened: {error}; set API_HOST, API_PORT"))?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    let pulse = orchestrator_boot::beat(ctx, Service::Api, || (0, 0), stop.clone());
    let serving = door::serve(listener, router(api), stop, door::LAST_REQUESTS);
    let (served, ()) = tokio::join!(serving, pulse);
    Ok(served?)
}
