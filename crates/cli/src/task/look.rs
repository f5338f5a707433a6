//! Looking at tasks: `list`, `show`, `next`.

use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::ListArgs;
use crate::client::path;
use crate::failure::Failure;
use crate::output::{Ids, facts, items, short, table, text};
use crate::session::{Session, zone_of};
use crate::times::{stamp, time_in};

/// What makes up a schedule, as a preview takes it.
pub const OF_THE_SCHEDULE: &[&str] = &[
    "schedule_kind",
    "schedule_expr",
    "timezone",
    "starts_at",
    "ends_at",
    "max_fires",
    "exclude",
    "policy",
];

/// How far ahead planned times are looked for: a little less than the server allows.
const LOOK_AHEAD: TimeDelta = TimeDelta::days(3_650);
/// How many runs are shown with a task.
const RUNS_SHOWN: usize = 5;

pub(super) async fn list(args: ListArgs, session: &Session) -> Result<ExitCode, Failure> {
    let hide_canceled = args.status.is_none() && !args.all;
    let query: Vec<_> = [
        ("status", args.status.map(|status| status.to_string())),
        ("schedule_kind", args.kind.map(|kind| kind.to_string())),
        ("created_by", args.owner),
        ("q", args.query),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let mut answer = session.client.list("tasks", &query, args.limit).await?;
    if let (true, Some(Value::Array(tasks))) = (hide_canceled, answer.get_mut("items")) {
        tasks.retain(|task| text(task, "status") != "canceled");
    }
    let now = Session::now();
    session.show(&answer, |answer| {
        let tasks = items(answer);
        let ids = Ids::among(tasks.iter().filter_map(|task| task.get("id")?.as_str()));
        let rows = tasks.iter().map(|task| {
            vec![
                ids.show(&text(task, "id")),
                text(task, "name"),
                short(&text(task, "title"), 40),
                text(task, "status"),
                short(&text(task, "summary"), 50),
                stamp(time_in(task, "next_fire_at"), zone_of(task), now),
                text(task, "created_by"),
            ]
        });
        table(&["ID", "NAME", "TITLE", "STATUS", "SCHEDULE", "NEXT", "OWNER"], rows)
    })
}

pub(super) async fn show(reference: &str, session: &Session) -> Result<ExitCode, Failure> {
    let task = session.task(reference).await?;
    let query = [("task_id", text(&task, "id"))];
    // Who may see tasks need not be allowed to see runs.
    let runs = session.client.list("runs", &query, RUNS_SHOWN).await.unwrap_or(Value::Null);
    session.show(&task, |task| drawn(task, items(&runs)))
}

/// A task as people read it.
fn drawn(task: &Value, runs: &[Value]) -> String {
    let (now, zone) = (Session::now(), zone_of(task));
    let at = |field| stamp(time_in(task, field), zone, now);
    let expr = text(task, "schedule_expr");
    let paused = match (time_in(task, "paused_at"), text(task, "paused_by").as_str()) {
        (None, _) => String::new(),
        (_, "-") => format!("{} by itself: {}", at("paused_at"), text(task, "pause_reason")),
        (_, who) => format!("{} by {who}: {}", at("paused_at"), text(task, "pause_reason")),
    };
    let mut drawn = facts(&[
        ("name", text(task, "name")),
        ("title", text(task, "title")),
        ("about", text(task, "description")),
        ("id", text(task, "id")),
        ("owner", text(task, "created_by")),
        ("status", text(task, "status")),
        ("paused", paused),
        ("schedule", text(task, "summary")),
        ("", format!("{} {expr}", text(task, "schedule_kind"))),
        ("zone", text(task, "timezone")),
        ("next", at("next_fire_at")),
        ("snoozed", at("snoozed_until")),
        ("fires", text(task, "fires")),
        ("revision", text(task, "revision")),
        ("made", at("created_at")),
        ("changed", at("updated_at")),
    ]);
    let steps = task.pointer("/payload/pipeline").map_or(&[][..], items);
    if !steps.is_empty() {
        drawn += "\nsteps:\n";
        drawn += &table(&["STEP", "DOES", "IF"], steps.iter().map(step));
    }
    if !runs.is_empty() {
        drawn += "\nruns:\n";
        drawn += &crate::run::rows(runs, |_| zone, now);
    }
    drawn
}

fn step(step: &Value) -> Vec<String> {
    let control = ["foreach", "parallel", "switch", "wait", "run_task"];
    let does = match step.get("uses").and_then(Value::as_str) {
        Some(uses) => uses.to_owned(),
        None => control.iter().find(|key| step.get(**key).is_some()).unwrap_or(&"-").to_string(),
    };
    vec![text(step, "id"), does, short(&text(step, "if"), 60)]
}

pub(super) async fn next(
    reference: &str,
    count: u16,
    session: &Session,
) -> Result<ExitCode, Failure> {
    let task = session.task(reference).await?;
    let status = text(&task, "status");
    let mut answer = match status.as_str() {
        "active" => planned(&task, count, session).await?,
        "paused" => {
            let mut asked = schedule_of(&task);
            asked["count"] = json!(count);
            asked["from"] = json!(Session::now());
            // A rule counts from where it began, not from now.
            if asked["starts_at"].is_null() {
                asked["starts_at"] = task["created_at"].clone();
            }
            session.client.post("schedules/preview", &asked).await?
        }
        _ => json!({"fires": [], "exhausted": true}),
    };
    answer["summary"] = task["summary"].clone();
    answer["status"] = json!(status);
    let kind = text(&task, "schedule_kind").parse().ok();
    session.show(&answer, |answer| match status.as_str() {
        "active" => crate::schedule::drawn(answer, kind),
        "paused" => {
            "The task is paused: its schedule is not followed until it is resumed.\n".to_owned()
                + &crate::schedule::drawn(answer, kind)
        }
        status => format!("The task is {status}: its schedule is over.\n"),
    })
}

/// What the server plans for an active task, in the form of a preview: unlike one, it knows how often
/// the task has fired, and what a snooze puts off.
async fn planned(task: &Value, count: u16, session: &Session) -> Result<Value, Failure> {
    let now = Session::now();
    let zone = zone_of(task);
    let path = path(&["tasks", &text(task, "id"), "occurrences"])?;
    let put_off = put_off_to(task, now);
    let from = put_off.unwrap_or(now);
    let query = [("from", rfc3339(from)), ("to", rfc3339(from + LOOK_AHEAD))];
    let answer = session.client.list(&path, &query, usize::from(count) + 1).await?;
    let fire = |at: DateTime<Utc>, note: &Value| json!({"at": at, "local": zone.rfc3339(at), "note": note});
    let first = put_off.map(|at| fire(at, &json!("snoozed: it stands for the times before")));
    let regular = items(&answer)
        .iter()
        .filter(|occurrence| text(occurrence, "disposition") == "planned")
        .filter_map(|occurrence| Some((time_in(occurrence, "nominal_at")?, occurrence)))
        .filter(|(at, _)| put_off.is_none_or(|put_off| *at > put_off))
        .map(|(at, occurrence)| fire(at, &occurrence["reason"]));
    let fires: Vec<_> = first.into_iter().chain(regular).take(count.into()).collect();
    let exhausted = fires.len() < count.into();
    Ok(json!({"fires": fires, "exhausted": exhausted}))
}

/// The moment to which a snooze puts off the times before it: one run comes then in their place. `None`:
/// it puts off none.
fn put_off_to(task: &Value, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let until = time_in(task, "snoozed_until").filter(|until| *until > now)?;
    (time_in(task, "next_fire_at")? == until).then_some(until)
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The fields of a task that make up its schedule.
pub fn schedule_of(task: &Value) -> Value {
    let fields = OF_THE_SCHEDULE.iter().filter_map(|field| Some((*field, task.get(*field)?)));
    Value::Object(fields.map(|(name, value)| (name.to_owned(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snooze_puts_off_what_comes_before_its_end_and_nothing_else() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let put_off = |snoozed: Option<&str>, next: &str| {
            put_off_to(&json!({"snoozed_until": snoozed, "next_fire_at": next}), now)
                .map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
        };
        let (until, later) = ("2026-11-22T10:00:00Z", "2026-11-23T08:00:00Z");

        assert_eq!(put_off(Some(until), until).as_deref(), Some(until));
        assert_eq!(put_off(Some(until), later), None, "no time of the schedule comes before");
        assert_eq!(put_off(Some("2026-11-20T10:00:00Z"), later), None, "it is over");
        assert_eq!(put_off(None, later), None);
    }
}
