//! What every verb that talks to a server has at hand, and how it finds what a person names.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use orchestrator_engine::clock::{Clock as _, SystemClock};
use orchestrator_engine::config::Env;
use orchestrator_engine::problem::nearest;
use serde_json::Value;

use crate::client::{Client, path};
use crate::failure::{Failure, Problem};
use crate::output::{self, Format};
use crate::times::Zone;

/// Among how many of the newest things a shortened id or a mistyped name is looked for.
const LOOK_AMONG: usize = 1_000;
/// The fewest characters that stand for an id.
const ID_PART_MIN: usize = 4;
/// How many requests are made at once at most.
const AT_ONCE: usize = 8;

/// The server, and how to show what it says.
pub struct Session {
    /// The way to the server.
    pub client: Client,
    /// How answers are shown.
    pub format: Format,
}

impl Session {
    /// Asks nothing yet.
    ///
    /// # Errors
    ///
    /// As [`Client::find`].
    pub fn open(env: &Env, format: Format) -> Result<Self, Failure> {
        Ok(Self { client: Client::find(env, Path::new("."))?, format })
    }

    /// The time.
    pub fn now() -> DateTime<Utc> {
        SystemClock.now()
    }

    /// Shows an answer; `table` draws it for people.
    ///
    /// # Errors
    ///
    /// As [`output::render`].
    pub fn show(
        &self,
        answer: &Value,
        table: impl FnOnce(&Value) -> String,
    ) -> Result<ExitCode, Failure> {
        output::say(&output::render(self.format, answer, table)?);
        Ok(ExitCode::SUCCESS)
    }

    /// The task with this id, part of an id, or name.
    ///
    /// # Errors
    ///
    /// 404 with the nearest name; for a name whose task is canceled, which reaches it no more, that it is.
    pub async fn task(&self, reference: &str) -> Result<Value, Failure> {
        let missing = match self.client.get(&path(&["tasks", reference])?).await {
            Err(Failure::Refused(problem)) if problem.status == 404 => problem,
            other => return other,
        };
        let tasks = self.client.list("tasks", &[], LOOK_AMONG).await?;
        let tasks = output::items(&tasks);
        if let Some(task) = by_part(tasks, reference)? {
            return Ok(task.clone());
        }
        let (gone, there): (Vec<_>, Vec<_>) =
            tasks.iter().partition(|task| output::text(task, "status") == "canceled");
        if let Some(task) = gone.into_iter().find(|task| output::text(task, "name") == reference) {
            let id = output::text(task, "id");
            return Err(Failure::failed(format!(
                "task {reference} is canceled already, and for good; `orchestrator task show {id}` \
                 shows it as it was"
            )));
        }
        let names = there.into_iter().filter_map(|task| task.get("name")?.as_str());
        Err(no_such("task", reference, nearest(reference, names), where_to_look(tasks), missing))
    }

    /// The run with this id or part of an id, or the newest run of the task with this name.
    ///
    /// # Errors
    ///
    /// 404 when there is none.
    pub async fn run(&self, reference: &str) -> Result<Value, Failure> {
        let id = if reference.parse::<uuid::Uuid>().is_ok() {
            reference.to_owned()
        } else {
            let query = [("task_id", reference.to_owned())];
            let newest = self.client.list("runs", &query, 1).await?;
            match output::items(&newest).first() {
                Some(run) => output::text(run, "id"),
                None => self.run_by_part(reference).await?,
            }
        };
        self.client.get(&path(&["runs", &id])?).await
    }

    async fn run_by_part(&self, reference: &str) -> Result<String, Failure> {
        let runs = self.client.list("runs", &[], LOOK_AMONG).await?;
        if let Some(run) = by_part(output::items(&runs), reference)? {
            return Ok(output::text(run, "id"));
        }
        Err(Failure::Refused(Problem {
            title: "No such thing".to_owned(),
            status: 404,
            detail: Some(format!(
                "no run {reference}, and no task of that name that has run; `orchestrator run list` \
                 shows the newest"
            )),
            ..Problem::default()
        }))
    }

    /// The zones of the tasks of `rows`, by the tasks' ids. A task that may not be seen has none.
    pub async fn zones(&self, rows: &[Value]) -> BTreeMap<String, Zone> {
        let mut ids: Vec<_> =
            rows.iter().filter_map(|row| row.get("task_id")?.as_str().map(str::to_owned)).collect();
        ids.sort_unstable();
        ids.dedup();
        futures::stream::iter(ids)
            .map(async |id| {
                let task = self.client.get(&format!("tasks/{id}")).await.ok()?;
                Some((id, zone_of(&task)))
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }
}

/// The zone that a task lives in.
pub fn zone_of(task: &Value) -> Zone {
    Zone::named(task.get("timezone").and_then(Value::as_str))
}

/// The one of `rows` whose id begins or ends like this.
fn by_part<'a>(rows: &'a [Value], part: &str) -> Result<Option<&'a Value>, Failure> {
    if part.len() < ID_PART_MIN || !part.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        return Ok(None);
    }
    let wanted = part.to_ascii_lowercase();
    let mut found = rows.iter().filter(|row| {
        let id = row.get("id").and_then(Value::as_str).unwrap_or_default();
        id.starts_with(&wanted) || id.ends_with(&wanted)
    });
    match (found.next(), found.next()) {
        (found, None) => Ok(found),
        _ => Err(Failure::Usage(format!("{part:?} is part of several ids: write more of it"))),
    }
}

fn where_to_look(tasks: &[Value]) -> &'static str {
    if tasks.is_empty() {
        "you have none yet: `orchestrator apply -f FILE` makes them"
    } else {
        "`orchestrator task list` shows them"
    }
}

/// A 404 that says what may have been meant.
pub fn no_such(
    what: &str,
    reference: &str,
    near: Option<&str>,
    otherwise: &str,
    mut problem: Problem,
) -> Failure {
    problem.detail = Some(match near {
        Some(near) => format!("no {what} {reference}; did you mean {near}?"),
        None => format!("no {what} {reference}; {otherwise}"),
    });
    Failure::Refused(problem)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_of_an_id_stands_for_it_while_no_other_has_it() {
        let rows = [
            json!({"id": "0197a000-0000-7000-8000-0000aaaaaaaa"}),
            json!({"id": "0197a000-0000-7000-8000-0000bbbbbbbb"}),
        ];

        assert_eq!(by_part(&rows, "bbbbBBBB").unwrap(), Some(&rows[1]));
        assert_eq!(by_part(&rows, "0197a000-0000-7000-8000-0000a").unwrap(), Some(&rows[0]));
        assert_eq!(by_part(&rows, "bbb").unwrap(), None, "too little to go by");
        assert_eq!(by_part(&rows, "tidy-up").unwrap(), None, "a name");
        assert!(by_part(&rows, "0197a000").is_err());
    }
}
