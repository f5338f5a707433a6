//! What is to be done so that the server's tasks are as the files declare them. Planning changes
//! nothing.

use orchestrator_engine::problem::Problem as Entry;
use orchestrator_engine::task::TaskSpec;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::difference::{self, Change};
use super::files::Declared;
use crate::client::path;
use crate::failure::Failure;
use crate::output::{items, text};
use crate::session::Session;
use crate::task::schedule_of;

/// Among how many tasks of one agent a name is looked for.
const LOOK_AMONG: usize = 1_000;

/// The fields of a task that the server sets: what `task show` prints can be applied again.
const OF_THE_SERVER: &[&str] = &[
    "id",
    "status",
    "revision",
    "version",
    "summary",
    "next_fire_at",
    "snoozed_until",
    "fires",
    "paused_at",
    "paused_by",
    "pause_reason",
    "created_at",
    "updated_at",
];

/// What is to be done with one task.
#[derive(Debug)]
pub struct Planned {
    /// Where it is declared.
    pub place: String,
    /// Its name.
    pub name: String,
    /// What.
    pub action: Action,
}

/// What can be done with a task.
#[derive(Debug)]
pub enum Action {
    /// It is not there: make it.
    Create {
        /// What is sent.
        body: Value,
        /// In plain words, when it will run.
        schedule: String,
    },
    /// It is there, and differs.
    Update {
        /// Its id.
        id: String,
        /// The version that was looked at.
        version: i64,
        /// What differs.
        changes: Vec<Change>,
        /// What is sent.
        patch: Value,
        /// How it shall be, to be compared with what came of it.
        wanted: Value,
        /// What becomes of the next fires: `kept`, `removed`, `added`.
        fires: Value,
    },
    /// It is as declared.
    Keep {
        /// Its id.
        id: String,
    },
    /// It is wrong: what, a line each.
    Refuse(Vec<String>),
}

/// Plans one task. `me` is the name of the caller.
pub async fn plan(declared: &Declared, me: &str, session: &Session) -> Result<Planned, Failure> {
    let mut fields = declared.fields.clone();
    for field in OF_THE_SERVER {
        fields.remove(*field);
    }
    let owner = match fields.get("created_by").and_then(Value::as_str) {
        Some(owner) => owner.to_owned(),
        None => me.to_owned(),
    };
    let existing = find(&declared.name, &owner, session).await?;
    let action = match wanted(&fields, existing.as_ref(), session).await? {
        Err(problems) => {
            let root = Value::Object(fields);
            Action::Refuse(problems.iter().map(|problem| told(problem, &root)).collect())
        }
        Ok(wanted) => match existing {
            None => Action::Create { schedule: wanted.schedule, body: Value::Object(fields) },
            Some(task) => compared(&task, wanted.spec),
        },
    };
    let action = with_fires(action, session).await?;
    Ok(Planned { place: declared.place.clone(), name: declared.name.clone(), action })
}

fn compared(task: &Value, wanted: Value) -> Action {
    let id = text(task, "id");
    let before: Map<_, _> = wanted
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, _)| Some((name.clone(), task.get(name)?.clone())))
        .collect();
    let before = Value::Object(before);
    let changes = difference::changes(&before, &wanted);
    if changes.is_empty() {
        return Action::Keep { id };
    }
    let version = task.get("version").and_then(Value::as_i64).unwrap_or(0);
    let patch = difference::merge_patch(&before, &wanted);
    Action::Update { id, version, changes, patch, wanted, fires: Value::Null }
}

/// Asks the server which of the next fires an update moves. What it refuses is told as such.
async fn with_fires(action: Action, session: &Session) -> Result<Action, Failure> {
    let Action::Update { id, version, changes, patch, wanted, .. } = action else {
        return Ok(action);
    };
    let query = [("dry_run", "true")];
    let tried =
        session.client.send(Method::PATCH, &path(&["tasks", &id])?, &query, Some(&patch)).await;
    match tried {
        Ok(mut answer) => {
            let fires = answer.get_mut("fires").map(Value::take).unwrap_or_default();
            Ok(Action::Update { id, version, changes, patch, wanted, fires })
        }
        Err(Failure::Refused(problem)) if problem.status == 422 => {
            let said = problem.errors.iter().map(|mistake| {
                let place = mistake.pointer.as_deref().unwrap_or_default();
                match difference::place(place, &wanted).as_str() {
                    "" => mistake.message.clone(),
                    place => format!("{place}: {}", mistake.message),
                }
            });
            Ok(Action::Refuse(said.collect()))
        }
        Err(failure) => Err(failure),
    }
}

/// A mistake and its place, as people name it.
fn told(problem: &Entry, root: &Value) -> String {
    match difference::place(&problem.pointer, root).as_str() {
        "" => problem.message.clone(),
        place => format!("{place}: {}", problem.message),
    }
}

/// The owner's task of that name that is not canceled.
async fn find(name: &str, owner: &str, session: &Session) -> Result<Option<Value>, Failure> {
    match session.client.get(&path(&["tasks", name])?).await {
        Ok(task) if text(&task, "created_by") == owner => return Ok(Some(task)),
        Err(Failure::Refused(problem)) if problem.status == 404 => return Ok(None),
        // Another agent's, or several agents'.
        Ok(_) => {}
        Err(Failure::Refused(problem)) if problem.status == 409 => {}
        Err(failure) => return Err(failure),
    }
    let query = [("created_by", owner.to_owned()), ("q", name.to_owned())];
    let tasks = session.client.list("tasks", &query, LOOK_AMONG).await?;
    let is_it = |task: &&Value| text(task, "name") == name && text(task, "status") != "canceled";
    Ok(items(&tasks).iter().find(is_it).cloned())
}

/// A declaration in which nothing was found wrong.
struct Wanted {
    /// With every default written out, as the server keeps it.
    spec: Value,
    /// The schedule in plain words.
    schedule: String,
}

/// Checks a declaration as far as can be done without making a task; the answer is what it means, or
/// everything that is wrong with it.
async fn wanted(
    fields: &Map<String, Value>,
    existing: Option<&Value>,
    session: &Session,
) -> Result<Result<Wanted, Vec<Entry>>, Failure> {
    let mut declared = fields.clone();
    declared.remove("created_by");
    let stand_ins =
        [("title", json!("title")), ("schedule_kind", json!("manual")), ("payload", json!({}))];
    let (spec, mut problems) =
        orchestrator_api::read::tolerant::<TaskSpec>(Value::Object(declared), &stand_ins);
    let Some(spec) = spec else { return Ok(Err(problems)) };
    if problems.is_empty() {
        problems.extend(spec.problems());
    }
    let mut spec = serde_json::to_value(spec).map_err(Failure::while_doing("read the task"))?;
    if !fields.contains_key("timezone") {
        // Its default is the server's.
        match existing.and_then(|task| task.get("timezone")) {
            Some(zone) => spec["timezone"] = zone.clone(),
            None => drop(spec.as_object_mut().and_then(|spec| spec.remove("timezone"))),
        }
    }
    if let Some(payload) = fields.get("payload").filter(|payload| payload.is_object()) {
        let answer =
            session.client.send(Method::POST, "pipelines/validate", &[], Some(payload)).await?;
        for problem in answer.get("problems").map_or(&[][..], items) {
            let pointer = problem.get("pointer").and_then(Value::as_str).unwrap_or_default();
            problems.push(Entry::new(format!("/payload{pointer}"), text(problem, "message")));
        }
        if let Some(pipeline) = answer.get("pipeline").filter(|pipeline| !pipeline.is_null()) {
            spec["payload"] = pipeline.clone();
        }
    }
    let same = existing.is_some_and(|task| schedule_of(task) == schedule_of(&spec));
    let mut schedule = String::new();
    if !same && problems.is_empty() {
        let mut asked = schedule_of(&spec);
        asked["count"] = json!(1);
        match session.client.post("schedules/preview", &asked).await {
            Ok(preview) => schedule = text(&preview, "summary"),
            Err(Failure::Refused(problem)) if problem.status == 422 => {
                problems.extend(problem.errors.into_iter().map(|mistake| {
                    Entry::new(mistake.pointer.unwrap_or_default(), mistake.message)
                }));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(if problems.is_empty() { Ok(Wanted { spec, schedule }) } else { Err(problems) })
}

/// The caller's tasks that follow a schedule under a name that is not among `names`.
pub async fn surplus(names: &[&str], me: &str, session: &Session) -> Result<Vec<Value>, Failure> {
    let mut surplus = Vec::new();
    for status in ["active", "paused"] {
        let query = [("created_by", me.to_owned()), ("status", status.to_owned())];
        let tasks = session.client.list("tasks", &query, usize::MAX).await?;
        surplus.extend(
            items(&tasks)
                .iter()
                .filter(|task| {
                    task.get("name")
                        .and_then(Value::as_str)
                        .is_some_and(|name| !names.contains(&name))
                })
                .cloned(),
        );
    }
    Ok(surplus)
}
