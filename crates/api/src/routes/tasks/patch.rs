//! `PATCH /tasks/{id}`: RFC 7396 merge patch.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store::task::TaskRow;
use orchestrator_engine::store::{task, tool_catalogue};
use orchestrator_engine::task::TaskStatus;
use serde_json::{Map, Value, json};

use super::check::{self, Against};
use super::passed::write_off;
use super::wire::{Moves, TaskPreview};
use super::{Task, compiled, held, scopes_of, take_created_by, tell};
use crate::auth::{Caller, TasksWrite};
use crate::body::Sent;
use crate::change::{Answer, Change};
use crate::openapi::TaskFields;
use crate::page::Query;
use crate::problem::{Problem, ProblemDocument};
use crate::state::Api;

/// How many of the next fires a dry run compares.
const FIRES_COMPARED: usize = 20;

/// Change a task.
///
/// An RFC 7396 merge patch: what is left out stays, null takes a field back to its default, lists are
/// replaced. The whole is checked again. A new revision is made if the declaration has changed; a
/// changed schedule starts anew from now. With `dry_run=true` nothing is changed, and the answer shows
/// which fields would, and which of the next fires would move.
#[utoipa::path(
    patch, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Id or name."),
           ("dry_run" = Option<bool>, Query, description = "true: only show what would change (`TaskPreview`)."),
           ("If-Match" = Option<String>, Header, description = "The ETag it must be at.")),
    request_body(content = TaskFields, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "As it is now.", body = Task, headers(("ETag" = String))),
        (status = 409, description = "Canceled, or the name is taken.", body = ProblemDocument),
        (status = 412, description = "Changed meanwhile.", body = ProblemDocument),
        (status = 422, description = "What is wrong, with pointers.", body = ProblemDocument),
    )
)]
pub(super) async fn patch(
    State(api): State<Api>,
    Path(reference): Path<String>,
    caller: Caller<TasksWrite>,
    mut query: Query,
    sent: Sent<Map<String, Value>>,
) -> Result<Answer, Problem> {
    let dry_run = query.parsed::<bool>("dry_run").unwrap_or(false);
    query.done()?;
    let mut change = Change::plain(&api, &caller).await?;
    let now = change.now;
    let row = held(change.conn(), &caller, &reference).await?;
    if row.status == TaskStatus::Canceled {
        return Err(Problem::conflict("the task is canceled for good: declare a new one"));
    }
    let mut patch = sent.body;
    let named = take_created_by(change.conn(), &caller.agent, &mut patch).await?;
    if named.is_some_and(|named| named != row.agent_id) {
        return Err(Problem::invalid_at("/created_by", "cannot be changed"));
    }
    let scopes = scopes_of(change.conn(), &caller.agent, row.agent_id).await?;
    let catalogue = tool_catalogue::catalogue(change.conn()).await?;
    let declared = merged(&api, &row, patch)?;
    let calendars = check::calendars(change.conn(), row.agent_id, &declared).await?;
    let against = Against {
        catalogue: &catalogue,
        scopes: &scopes,
        calendars: &calendars,
        created_at: row.created_at,
        // A clock that was set back must not bring times again that were decided already.
        now: now.max(row.cursor_at),
        fires: row.fires,
        in_force: Some(&row.spec),
    };
    let checked = check::check(declared, &against).map_err(Problem::invalid)?;

    if dry_run {
        let before = compiled(change.conn(), &row).await?.ok();
        let after = ScheduleSpec::from(&checked.spec);
        let after = Schedule::compile_with(&after, row.created_at, &calendars).ok();
        let fires = Moves::between(&next_fires(before, &row, now), &next_fires(after, &row, now));
        let changed = changed_fields(&row, &checked.spec)?;
        let task = Task::from(TaskRow { spec: checked.spec, ..row });
        let preview = TaskPreview { dry_run, changed, fires, task };
        return Answer::new(StatusCode::OK, &preview);
    }
    if checked.spec != row.spec {
        if checked.timing.is_some() {
            let reason = "the schedule was changed before this time was dealt with";
            write_off(change.conn(), &row, reason, now, now).await?;
        }
        let by = caller.agent.id;
        task::revise(change.conn(), &row, &checked.spec, checked.timing, by, now).await?;
        let detail = json!({"fields": changed_fields(&row, &checked.spec)?});
        change.audit("task.update", row.id, detail).await?;
    }
    let shown = Task::from(task::get(change.conn(), row.id).await?);
    let answer = Answer::new(StatusCode::OK, &shown)?.etag(shown.version);
    let answer = change.finish(answer).await?;
    tell(&api, "task.updated", row.agent_id, row.id).await;
    Ok(answer)
}

/// The next fires of the task by `schedule`.
fn next_fires(schedule: Option<Schedule>, row: &TaskRow, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let Some(schedule) = schedule else { return Vec::new() };
    let so_far = u32::try_from(row.fires).unwrap_or(0);
    let next = schedule.preview(now, FIRES_COMPARED, so_far).fires;
    next.into_iter().map(|fire| fire.at).collect()
}

fn as_object(spec: &impl serde::Serialize) -> Result<Map<String, Value>, Problem> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Problem::internal()),
    }
}

/// The declaration with the patch laid over it.
fn merged(api: &Api, row: &TaskRow, patch: Map<String, Value>) -> Result<Value, Problem> {
    let mut target = Value::Object(as_object(&row.spec)?);
    let zone_taken_back = patch.get("timezone") == Some(&Value::Null);
    merge(&mut target, Value::Object(patch));
    if let Some(declared) = target.as_object_mut().filter(|_| zone_taken_back) {
        api.options.fill_in_zone(declared);
    }
    Ok(target)
}

/// RFC 7396 §2, word for word.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            object.remove(&name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The names of the fields that the patch has changed.
fn changed_fields(row: &TaskRow, spec: &impl serde::Serialize) -> Result<Vec<String>, Problem> {
    let before = as_object(&row.spec)?;
    let after = as_object(spec)?;
    Ok(after
        .into_iter()
        .filter(|(name, value)| before.get(name) != Some(value))
        .map(|(n, _)| n)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 7396, appendix A.
    #[test]
    fn a_merge_patch_does_what_its_rfc_says() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{target} + {patch}");
        }
    }
}
