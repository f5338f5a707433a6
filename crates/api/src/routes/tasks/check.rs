//! Whether what a caller declares can be accepted: everything that is wrong with it, at once. A task
//! that is accepted can run.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use orchestrator_engine::agent::grants;
use orchestrator_engine::id::AgentId;
use orchestrator_engine::pipeline::Pipeline;
use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::schedule::calendar::{self, Calendars};
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store;
use orchestrator_engine::store::task::Timing;
use orchestrator_engine::task::{Policy, ScheduleKind, TaskSpec};
use orchestrator_engine::tool::Catalogue;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::wire::OF_THE_SERVER;
use crate::problem::Problem;
use crate::read;

/// The fields that make up a schedule.
const OF_THE_SCHEDULE: &[&str] = &[
    "schedule_kind",
    "schedule_expr",
    "timezone",
    "starts_at",
    "ends_at",
    "max_fires",
    "exclude",
    "policy",
];

/// What a declaration is checked against.
pub struct Against<'a> {
    /// The tools known.
    pub catalogue: &'a Catalogue,
    /// What the owner may do.
    pub scopes: &'a [String],
    /// The calendars that it may name in `exclude`.
    pub calendars: &'a Calendars,
    /// When the task was, or is, made.
    pub created_at: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
    /// How often the task has fired.
    pub fires: i32,
    /// The schedule in force, which need not be looked at again if the new one is the same.
    pub in_force: Option<&'a TaskSpec>,
}

/// A declaration in which nothing is wrong.
pub struct Checked {
    /// It, every default written out.
    pub spec: TaskSpec,
    /// When it is due from now on; `None`: its schedule is the one in force.
    pub timing: Option<Timing>,
}

/// Checks a declaration: fields, schedule, pipeline, and that the owner may use what it uses.
///
/// # Errors
///
/// Every problem, at least one.
pub fn check(mut declared: Value, against: &Against<'_>) -> Result<Checked, Vec<Entry>> {
    let mut problems = take_out_server_fields(&mut declared);
    let stand_ins =
        [("title", json!("title")), ("schedule_kind", json!("manual")), ("payload", json!({}))];
    let (spec, mistakes) = read::tolerant::<TaskSpec>(declared, &stand_ins);
    problems.extend(mistakes);
    let Some(mut spec) = spec else { return Err(problems) };

    let wrong: Vec<String> = problems.iter().map(|problem| problem.pointer.clone()).collect();
    let untouched = |field: &str| {
        let pointer = format!("/{field}");
        !wrong.iter().any(|at| *at == pointer || at.starts_with(&format!("{pointer}/")))
    };
    let unreadable = problems.len();
    for problem in spec.problems() {
        let place = problem.pointer.trim_start_matches('/').split('/').next();
        let mut told = problems[..unreadable].iter_mut();
        if let Some(told) = told.find(|told| told.pointer == problem.pointer) {
            // A number that its type cannot hold: the limit of the field says more than that.
            told.message = problem.message;
        } else if untouched(place.unwrap_or_default()) {
            problems.push(problem);
        }
    }
    let mut timing = None;
    if OF_THE_SCHEDULE.iter().all(|field| untouched(field)) {
        match schedule(&spec, against) {
            Ok(found) => timing = found,
            Err(found) => add_new(&mut problems, found),
        }
    }
    if untouched("payload") {
        match payload(&spec.payload, against.catalogue, against.scopes) {
            Ok(normalised) => spec.payload = normalised,
            Err(found) => problems.extend(found.into_iter().map(|entry| entry.under("/payload"))),
        }
    }
    if problems.is_empty() { Ok(Checked { spec, timing }) } else { Err(problems) }
}

/// The calendars of `owner` that a declaration names, held until the transaction ends.
///
/// # Errors
///
/// 503 without a database.
pub async fn calendars(
    conn: &mut PgConnection,
    owner: AgentId,
    declared: &Value,
) -> Result<Calendars, Problem> {
    let entries = declared.get("exclude").and_then(Value::as_array).into_iter().flatten();
    let names: BTreeSet<_> =
        entries.filter_map(Value::as_str).filter_map(calendar::named_in).collect();
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    Ok(store::calendar::take(conn, owner, &names).await?)
}

/// Adds what has not been said of the same place.
fn add_new(problems: &mut Vec<Entry>, found: Vec<Entry>) {
    for entry in found {
        if !problems.iter().any(|told| told.pointer == entry.pointer) {
            problems.push(entry);
        }
    }
}

fn take_out_server_fields(declared: &mut Value) -> Vec<Entry> {
    let Some(object) = declared.as_object_mut() else { return Vec::new() };
    OF_THE_SERVER
        .iter()
        .filter(|field| object.remove(**field).is_some())
        .map(|field| Entry::new(format!("/{field}"), "is set by the server: leave it out"))
        .collect()
}

/// What decides the times of a task: its schedule without what is done about overlap and absence.
fn times(spec: &TaskSpec) -> ScheduleSpec {
    let mut schedule = ScheduleSpec::from(spec);
    let Policy { dst_gap, dst_fold, .. } = schedule.policy;
    schedule.policy = Policy { dst_gap, dst_fold, ..Policy::default() };
    schedule
}

/// When the task is due from now on; `None` when the schedule is the one in force.
fn schedule(spec: &TaskSpec, against: &Against<'_>) -> Result<Option<Timing>, Vec<Entry>> {
    let declared = ScheduleSpec::from(spec);
    if against.in_force.is_some_and(|in_force| times(in_force) == times(spec)) {
        return Ok(None);
    }
    let schedule = Schedule::compile_with(&declared, against.created_at, against.calendars)?;
    let next = schedule.next_fire_after(against.now);
    let is_timed = matches!(
        spec.schedule_kind,
        ScheduleKind::Cron | ScheduleKind::Rrule | ScheduleKind::Interval | ScheduleKind::Once
    );
    if is_timed && next.is_none() {
        let sentence = match spec.schedule_kind {
            ScheduleKind::Once => {
                "is in the past (or left out by ends_at or exclude): it would never fire"
            }
            _ => {
                "never fires again: nothing comes after now that ends_at, exclude and UNTIL or COUNT \
                  leave"
            }
        };
        return Err(vec![Entry::new("/schedule_expr", sentence)]);
    }
    let fires = u32::try_from(against.fires).unwrap_or(0);
    if spec.max_fires.is_some_and(|max| max <= fires) && is_timed {
        return Err(vec![Entry::new(
            "/max_fires",
            format!("the task has fired {fires} times already: it would never fire again"),
        )]);
    }
    let next_fire_at = next.map(|nominal| nominal.at);
    Ok(Some(Timing { cursor_at: against.now, next_fire_at }))
}

/// Checks a payload and that an agent with `scopes` may use what it uses. Returns it with ids and
/// defaults written out.
///
/// # Errors
///
/// Every problem, with pointers relative to the payload.
pub fn payload(
    payload: &Value,
    catalogue: &Catalogue,
    scopes: &[String],
) -> Result<Value, Vec<Entry>> {
    let pipeline = Pipeline::check(payload, catalogue)?;
    let problems: Vec<Entry> = pipeline
        .required_scopes(catalogue)
        .into_iter()
        .filter(|scope| !grants(scopes, scope))
        .map(|scope| {
            let place = first_user(payload, &scope, catalogue, "");
            Entry::new(
                place.unwrap_or_else(|| "/pipeline".to_owned()),
                format!("needs the scope {scope}, which the task's owner does not have"),
            )
        })
        .collect();
    if problems.is_empty() { Ok(pipeline.normalised()) } else { Err(problems) }
}

/// The place of the first step whose tool asks for `scope`, or of the first text with the secret.
fn first_user(value: &Value, scope: &str, catalogue: &Catalogue, place: &str) -> Option<String> {
    match value {
        Value::Object(fields) => {
            let asks = fields
                .get("uses")
                .and_then(Value::as_str)
                .and_then(|uses| catalogue.get(uses))
                .is_some_and(|tool| tool.scope.as_deref() == Some(scope));
            if asks {
                return Some(format!("{place}/uses"));
            }
            fields.iter().find_map(|(name, field)| {
                let token = orchestrator_engine::problem::pointer_token(name);
                first_user(field, scope, catalogue, &format!("{place}/{token}"))
            })
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            first_user(item, scope, catalogue, &format!("{place}/{index}"))
        }),
        Value::String(text) => {
            let secret = scope.strip_prefix("secret:")?;
            text.contains(&format!("secrets.{secret}")).then(|| place.to_owned())
        }
        _ => None,
    }
}
