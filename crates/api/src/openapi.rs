//! The OpenAPI description, and the pages that show it.
//!
//! `engine` knows no OpenAPI, so the forms that it reads are described here once more; a test compares
//! the names. What holds for many routes is added by `complete`.

mod complete;

use axum::Router;
use axum::routing::get;
use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::problem::ProblemDocument;
use crate::state::Api;

/// What stands above all routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Personal Agent Orchestrator",
        description = "One durable backbone that gives a person's AI agents time, state and \
                       discipline. Errors are RFC 9457 problem documents; a POST that changes something \
                       takes an Idempotency-Key; lists are paged by next_cursor.",
        license(name = "MIT"),
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Bearer),
    security(("bearer" = [])),
    tags(
        (name = "tasks", description = "What agents declare"),
        (name = "schedules", description = "What a schedule would do"),
        (name = "calendars", description = "Dates on which schedules rest; planned runs for calendar programs"),
        (name = "pipelines", description = "Whether a payload would be accepted"),
        (name = "runs", description = "What was, is and will be done"),
        (name = "events", description = "Named messages"),
        (name = "tools", description = "What a step can use"),
        (name = "agents", description = "Who may call"),
        (name = "audit", description = "Who did what"),
        (name = "server", description = "How the server is"),
    ),
)]
struct Above;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key (orc_…) or an access token of POST /auth/token."))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The description, before the routes add theirs.
#[must_use]
pub fn description() -> OpenApiRouter<Api> {
    let mut above = Above::openapi();
    orchestrator_engine::VERSION.clone_into(&mut above.info.version);
    OpenApiRouter::with_openapi(above)
}

/// `/openapi.json`, and `/docs`, whose scripts and styles are in the binary.
pub fn pages(mut description: utoipa::openapi::OpenApi) -> Router<Api> {
    complete::complete(&mut description);
    let document = axum::Json(description);
    let config = utoipa_swagger_ui::Config::from("/openapi.json");
    Router::from(SwaggerUi::new("/docs").config(config))
        .route("/openapi.json", get(async move || document.clone()))
}

/// How a schedule treats overlap, absence and clock changes.
#[derive(utoipa::ToSchema)]
#[schema(as = Policy)]
#[expect(dead_code, reason = "describes engine::task::Policy")]
pub struct PolicyFields {
    /// `skip` (default), `queue_one`, `queue_all`, `cancel_running` or `allow`.
    #[schema(required = false, example = "skip")]
    overlap: String,
    /// `none`, `latest` (default) or `all`.
    #[schema(required = false, example = "latest")]
    catch_up: String,
    /// How old a time may be to be caught up.
    #[schema(required = false, default = 3600)]
    catch_up_window_seconds: u32,
    /// The largest delay that is added to a nominal time.
    #[schema(required = false, default = 0)]
    jitter_seconds: u32,
    /// `shift` (default) or `skip`: a local time that does not exist.
    #[schema(required = false, example = "shift")]
    dst_gap: String,
    /// `first` (default), `last` or `both`: a local time that exists twice.
    #[schema(required = false, example = "first")]
    dst_fold: String,
    /// The task is paused when so many of its runs in a row have failed; null (default): never.
    #[schema(required = false, minimum = 1, maximum = 1000)]
    pause_after_failures: Option<u16>,
}

/// What a run does.
#[derive(utoipa::ToSchema)]
#[schema(as = Payload)]
#[expect(dead_code, reason = "describes engine::pipeline::model::Payload")]
pub struct PayloadFields {
    /// Parameters and their defaults.
    #[schema(required = false, value_type = Object)]
    params: Value,
    /// The steps, one after the other; `docs/pipelines.md` says what they look like.
    #[schema(value_type = Vec<Object>,
             example = json!([{"id": "hello", "uses": "core.log", "with": {"message": "hi"}}]))]
    pipeline: Value,
}

/// What a task declares.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes engine::task::TaskSpec")]
pub struct TaskFields {
    /// A slug, unique among your tasks; routes take it for the id.
    #[schema(example = "morning-briefing")]
    name: Option<String>,
    /// What people call it.
    #[schema(example = "Weekday Morning Briefing")]
    title: String,
    /// What it is for.
    #[schema(required = false)]
    description: String,
    /// `cron`, `rrule`, `interval`, `once`, `event` or `manual`.
    #[schema(example = "cron")]
    schedule_kind: String,
    /// The schedule; empty for `manual`.
    #[schema(required = false, example = "30 8 * * 1-5")]
    schedule_expr: String,
    /// IANA name of the zone whose wall clock the schedule follows.
    #[schema(required = false, example = "Europe/Chisinau")]
    timezone: String,
    /// No occurrence before this; also the start of a rule or an interval.
    starts_at: Option<DateTime<Utc>>,
    /// No occurrence after this.
    ends_at: Option<DateTime<Utc>>,
    /// No more than so many occurrences.
    #[schema(minimum = 1)]
    max_fires: Option<u32>,
    /// Local dates, ranges of them, and calendars, without occurrences.
    #[schema(required = false, example = json!(["2026-12-25", "2026-12-30/2027-01-02", "calendar:de-holidays"]))]
    exclude: Vec<String>,
    /// Overlap, absence, clock changes.
    #[schema(required = false)]
    policy: PolicyFields,
    /// Parameters and steps.
    payload: PayloadFields,
    /// 1 (first) to 9.
    #[schema(required = false, minimum = 1, maximum = 9, default = 5)]
    priority: i16,
    /// How many attempts may follow the first.
    #[schema(required = false, minimum = 0, default = 3)]
    max_retries: i16,
    /// `exponential_jitter` (default), `exponential`, `linear` or `fixed`.
    #[schema(required = false, example = "exponential_jitter")]
    backoff_strategy: String,
    /// How long one attempt of a run may take.
    #[schema(required = false, minimum = 1, default = 3600)]
    timeout_seconds: u32,
    /// A run that was not started so many seconds after it was due ends `expired`.
    #[schema(minimum = 1)]
    expires_after_seconds: Option<u32>,
    /// Runs of your tasks with one key share `concurrency_limit`.
    #[schema(example = "gpu")]
    concurrency_key: Option<String>,
    /// How many runs with `concurrency_key` may be on at once.
    #[schema(required = false, default = 1)]
    concurrency_limit: u16,
    /// A second run with this key inside the window is not made.
    dedupe_key: Option<String>,
    /// The window of `dedupe_key`.
    #[schema(required = false, default = 0)]
    dedupe_window_seconds: u32,
    /// At most so many runs are let in within any period; the others wait.
    rate_limit: Option<RateLimitFields>,
    /// A run of an event or of `run_now` begins so many seconds after the last of them; those that come
    /// before it has begun move it and make none.
    #[schema(minimum = 1, maximum = 86_400)]
    debounce_seconds: Option<u32>,
    /// But no more seconds after the first; null: ten times `debounce_seconds`.
    #[schema(minimum = 1, maximum = 864_000)]
    debounce_max_seconds: Option<u32>,
    /// An event or `run_now` makes no run while one of the task has not ended.
    #[schema(required = false, default = false)]
    singleton: bool,
}

/// How many runs may be let in within any stretch of time.
#[derive(utoipa::ToSchema)]
#[schema(as = RateLimit)]
#[expect(dead_code, reason = "describes engine::task::RateLimit")]
pub struct RateLimitFields {
    /// So many runs.
    #[schema(minimum = 1, maximum = 1000, example = 10)]
    limit: u16,
    /// Within any so many seconds.
    #[schema(minimum = 1, maximum = 2_678_400, example = 60)]
    period_seconds: u32,
    /// Your tasks with the same key share the rate; null: the task's own.
    #[schema(example = "mail-api")]
    key: Option<String>,
}

/// The schedule fields of a task, and how much is to be shown.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes engine::schedule::ScheduleSpec")]
pub struct PreviewFields {
    /// `cron`, `rrule`, `interval`, `once`, `event` or `manual`.
    #[schema(example = "rrule")]
    schedule_kind: String,
    /// The schedule.
    #[schema(required = false, example = "FREQ=WEEKLY;BYDAY=MO,FR;BYHOUR=8;BYMINUTE=30")]
    schedule_expr: String,
    /// IANA name of the zone whose wall clock the schedule follows.
    #[schema(required = false, example = "Europe/Chisinau")]
    timezone: String,
    /// No occurrence before this; also the start of a rule or an interval.
    starts_at: Option<DateTime<Utc>>,
    /// No occurrence after this.
    ends_at: Option<DateTime<Utc>>,
    /// No more than so many occurrences.
    max_fires: Option<u32>,
    /// Local dates, ranges of them, and calendars, without occurrences.
    #[schema(required = false)]
    exclude: Vec<String>,
    /// Clock changes and jitter.
    #[schema(required = false)]
    policy: PolicyFields,
    /// How many fires to show.
    #[schema(required = false, minimum = 1, maximum = 1000, default = 10)]
    count: u32,
    /// From when on; default now.
    from: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use orchestrator_engine::task::TaskSpec;
    use serde_json::json;
    use utoipa::PartialSchema;

    use super::*;

    fn described<T: PartialSchema>() -> BTreeSet<String> {
        let schema = serde_json::to_value(T::schema()).unwrap();
        schema["properties"].as_object().unwrap().keys().cloned().collect()
    }

    fn fields(value: &impl serde::Serialize) -> BTreeSet<String> {
        serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_description_names_the_fields_that_there_are() {
        let spec: TaskSpec =
            serde_json::from_value(json!({"title": "x", "schedule_kind": "manual", "payload": {}}))
                .unwrap();
        let schedule = orchestrator_engine::schedule::ScheduleSpec::from(&spec);
        let mut preview = fields(&schedule);
        preview.extend(["count".to_owned(), "from".to_owned()]);

        assert_eq!(described::<TaskFields>(), fields(&spec));
        assert_eq!(described::<PolicyFields>(), fields(&spec.policy));
        assert_eq!(described::<PreviewFields>(), preview);
        let rate = orchestrator_engine::task::RateLimit { limit: 1, period_seconds: 1, key: None };
        assert_eq!(described::<RateLimitFields>(), fields(&rate));
    }
}
