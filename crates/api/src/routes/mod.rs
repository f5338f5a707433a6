//! The routes, a file per noun. Each gives its part of the OpenAPI description with its handlers, so
//! that no route is without one.
//!
//! To add a route: a handler with `#[utoipa::path]`, named in the `router()` of its noun. It is behind
//! [`crate::auth::authenticate`] unless it is listed in [`public`]. What many routes share (refusals,
//! `Idempotency-Key`) is described in `openapi/complete.rs`.

pub mod admin;
pub mod agents;
pub mod audit;
pub mod calendars;
pub mod events;
pub mod feed;
pub mod health;
pub mod keys;
pub mod me;
pub mod pipelines;
pub mod root;
pub mod runs;
pub mod schedules;
pub mod stats;
pub mod tasks;
pub mod token;
pub mod tools;

use utoipa_axum::router::OpenApiRouter;

use crate::state::Api;

/// Routes for callers that have said who they are.
#[must_use]
pub fn private() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(tasks::router())
        .merge(schedules::router())
        .merge(calendars::router())
        .merge(feed::router())
        .merge(pipelines::router())
        .merge(runs::router())
        .merge(events::router())
        .merge(tools::router())
        .merge(agents::router())
        .merge(keys::router())
        .merge(me::router())
        .merge(audit::router())
        .merge(stats::router())
        .merge(admin::router())
}

/// Routes for everybody.
#[must_use]
pub fn public() -> OpenApiRouter<Api> {
    OpenApiRouter::new().merge(root::router()).merge(health::router()).merge(token::router())
}
