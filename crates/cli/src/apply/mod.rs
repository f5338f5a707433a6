//! `apply`: makes the server's tasks be as files declare them.
//!
//! First everything is read, checked and compared; while anything is wrong, nothing is changed. Then
//! each task is made or changed by itself; that one fails does not keep the others from it.

mod difference;
mod files;
mod plan;

use std::fmt::Write as _; // writing into a String cannot fail
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::path;
use crate::failure::Failure;
use crate::output::{Format, say, text};
use crate::session::Session;
use plan::{Action, Planned};

/// How many fires that go or come are shown of a task.
const MOVES_SHOWN: usize = 3;

/// What is applied, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file holds tasks as the API takes them, in YAML or JSON: one, a list, or several YAML documents.
Tasks are found again by their `name`; what a file leaves out goes back to its default (except
`timezone`, which stays). What `task show --output yaml` prints can be applied.

Examples:
  orchestrator apply -f morning-briefing.yaml
  orchestrator apply -f tasks/ --dry-run
  orchestrator apply -f tasks/ --recursive --prune --yes
  generate-tasks | orchestrator apply -f -")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that people say")]
pub struct Args {
    /// A file, a folder of .yaml, .yml and .json files, or - for standard input. Repeatable.
    #[arg(long = "file", short = 'f', value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Folders inside folders too.
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Cancel your own tasks whose names are not in the files.
    #[arg(long)]
    prune: bool,
    /// Do not ask before canceling.
    #[arg(long, short)]
    yes: bool,
}

/// Does it. The exit code is 1 when anything was refused.
pub async fn run(args: Args, session: &Session) -> Result<ExitCode, Failure> {
    let found = files::read(&args.files, args.recursive)?;
    if !found.problems.is_empty() {
        return Err(Failure::failed(nothing_done(&found.problems)));
    }
    let me = text(&session.client.get("auth/me").await?, "name");
    let mut plans = Vec::new();
    for declared in &found.tasks {
        plans.push(plan::plan(declared, &me, session).await?);
    }
    let names: Vec<_> = found.tasks.iter().map(|task| &task.name[..]).collect();
    let surplus = if args.prune { plan::surplus(&names, &me, session).await? } else { Vec::new() };
    let is_table = session.format == Format::Table;
    if is_table {
        say(&drawn(&plans, &surplus));
    }
    let refused: Vec<_> = plans.iter().filter_map(refusal).collect();
    if !refused.is_empty() {
        if !is_table {
            session.show(&outcomes_of_dry_run(&plans, &surplus).into(), |_| String::new())?;
        }
        return Err(Failure::failed(nothing_done(&refused)));
    }
    if args.dry_run {
        let outcomes = outcomes_of_dry_run(&plans, &surplus);
        if is_table {
            say("dry run: nothing was changed\n");
            return Ok(ExitCode::SUCCESS);
        }
        return session.show(&Value::from(outcomes), |_| String::new());
    }
    if !surplus.is_empty() && !args.yes {
        confirm(surplus.len())?;
    }
    carry_out(plans, surplus, session).await
}

fn nothing_done(problems: &[String]) -> String {
    format!("nothing was changed, because of this:\n  {}", problems.join("\n  "))
}

fn refusal(planned: &Planned) -> Option<String> {
    let Action::Refuse(problems) = &planned.action else { return None };
    let lines = problems.join("\n    ");
    Some(format!("{}: {} is wrong:\n    {lines}", planned.place, planned.name))
}

fn drawn(plans: &[Planned], surplus: &[Value]) -> String {
    let mut drawn = String::new();
    for planned in plans {
        let name = &planned.name;
        match &planned.action {
            Action::Create { schedule, .. } => {
                let _ = writeln!(drawn, "+ {name}  is new: {schedule}");
            }
            Action::Update { changes, fires, .. } => {
                let _ = write!(drawn, "~ {name}  differs:\n{}", difference::drawn(changes));
                drawn += &moves(fires);
            }
            Action::Keep { .. } => {
                let _ = writeln!(drawn, "= {name}  unchanged");
            }
            Action::Refuse(_) => {
                let _ = writeln!(drawn, "! {name}  is wrong");
            }
        }
    }
    for task in surplus {
        let _ = writeln!(drawn, "- {}  is in no file: to be canceled", text(task, "name"));
    }
    drawn
}

/// Which of the next fires go, and which come.
fn moves(fires: &Value) -> String {
    let mut drawn = String::new();
    for (list, sign) in [("removed", '-'), ("added", '+')] {
        let times = fires.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for at in times.iter().take(MOVES_SHOWN).filter_map(Value::as_str) {
            let _ = writeln!(drawn, "    {sign} fires at {at}");
        }
        if times.len() > MOVES_SHOWN {
            let _ = writeln!(drawn, "    {sign} and more");
        }
    }
    drawn
}

/// Asks a person; without one, refuses.
fn confirm(count: usize) -> Result<(), Failure> {
    let tasks = if count == 1 { "the task" } else { "the tasks" };
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "--prune would cancel {tasks} above for good, and there is nobody to ask: add --yes"
        )));
    }
    eprint!("Cancel {tasks} marked with - for good, and apply the rest? [y/N] ");
    drop(std::io::stderr().flush());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::while_doing("read your answer"))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was changed"))
}

fn outcomes_of_dry_run(plans: &[Planned], surplus: &[Value]) -> Vec<Value> {
    let planned = plans.iter().map(|planned| {
        let (action, id, changes, error) = match &planned.action {
            Action::Create { .. } => ("would_create", None, None, None),
            Action::Update { id, changes, .. } => ("would_update", Some(id), Some(changes), None),
            Action::Keep { id } => ("unchanged", Some(id), None, None),
            Action::Refuse(problems) => ("refused", None, None, Some(problems.join("\n"))),
        };
        let fires = match &planned.action {
            Action::Update { fires, .. } => Some(fires),
            _ => None,
        };
        json!({"name": planned.name, "file": planned.place, "action": action, "id": id,
               "changes": changes, "fires": fires, "error": error})
    });
    let surplus = surplus.iter().map(|task| {
        json!({"name": task["name"], "file": null, "action": "would_cancel", "id": task["id"],
               "changes": null, "error": null})
    });
    planned.chain(surplus).collect()
}

/// What came of one task.
struct Outcome {
    name: String,
    file: Option<String>,
    changes: Option<Vec<difference::Change>>,
    came: Result<(&'static str, String), Failure>,
}

impl Outcome {
    fn to_json(&self) -> Value {
        let (action, id, error) = match &self.came {
            Ok((action, id)) => (*action, Some(id), None),
            Err(failure) => ("failed", None, Some(failure.to_string())),
        };
        json!({"name": self.name, "file": self.file, "action": action, "id": id,
               "changes": self.changes, "error": error})
    }
}

async fn carry_out(
    plans: Vec<Planned>,
    surplus: Vec<Value>,
    session: &Session,
) -> Result<ExitCode, Failure> {
    let mut outcomes = Vec::new();
    for planned in plans {
        let changes = match &planned.action {
            Action::Update { changes, .. } => Some(changes.clone()),
            _ => None,
        };
        let came = do_one(&planned, session).await;
        let file = Some(planned.place);
        outcomes.push(Outcome { name: planned.name, file, changes, came });
    }
    for task in surplus {
        let cancel = path(&["tasks", &text(&task, "id"), "cancel"])?;
        let came = session.client.post(&cancel, &json!({})).await;
        let came = came.map(|task| ("canceled", text(&task, "id")));
        outcomes.push(Outcome { name: text(&task, "name"), file: None, changes: None, came });
    }
    let failed = outcomes.iter().any(|outcome| outcome.came.is_err());
    if session.format == Format::Table {
        say(&summary(&outcomes));
    } else {
        session.show(&outcomes.iter().map(Outcome::to_json).collect(), |_| String::new())?;
    }
    for outcome in &outcomes {
        if let Err(failure) = &outcome.came {
            let place = outcome.file.as_deref().unwrap_or("prune");
            eprintln!("orchestrator: {place}: {}: {failure}", outcome.name);
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn do_one(planned: &Planned, session: &Session) -> Result<(&'static str, String), Failure> {
    match &planned.action {
        Action::Keep { id } => Ok(("unchanged", id.clone())),
        Action::Create { body, .. } => match session.client.post("tasks", body).await {
            Ok(made) => Ok(("created", text(&made, "id"))),
            Err(failure) => Err(in_words(failure, body)),
        },
        Action::Update { id, version, patch, wanted, .. } => {
            let request = session
                .client
                .request(Method::PATCH, &path(&["tasks", id])?)?
                .header("if-match", format!("\"{version}\""))
                .json(patch);
            let task = session.client.answer(request).await.map_err(|failure| match failure {
                Failure::Refused(problem) if problem.status == 412 => {
                    Failure::failed("somebody has changed it since it was compared; apply again")
                }
                failure => in_words(failure, wanted),
            })?;
            warn_of_rest(&planned.name, &task, wanted);
            Ok(("updated", id.clone()))
        }
        Action::Refuse(problems) => Err(Failure::failed(problems.join("; "))),
    }
}

/// The same problem with its places named as people name them.
fn in_words(failure: Failure, root: &Value) -> Failure {
    let Failure::Refused(mut problem) = failure else { return failure };
    for mistake in &mut problem.errors {
        // What is no pointer is told as it is.
        mistake.parameter = mistake.pointer.take().map(|at| difference::place(&at, root));
    }
    Failure::Refused(problem)
}

/// A merge patch cannot say everything: a null inside of an object.
fn warn_of_rest(name: &str, task: &Value, wanted: &Value) {
    for (field, value) in wanted.as_object().into_iter().flatten() {
        if task.pointer(&difference::pointer(field)) != Some(value) {
            eprintln!(
                "orchestrator: {name}: {field} is not quite as declared; a null inside an object \
                 cannot be set by an update"
            );
        }
    }
}

fn summary(outcomes: &[Outcome]) -> String {
    let count = |wanted: &str| {
        outcomes
            .iter()
            .filter(|outcome| match &outcome.came {
                Ok((action, _)) => *action == wanted,
                Err(_) => wanted == "failed",
            })
            .count()
    };
    let words: Vec<_> = ["created", "updated", "unchanged", "canceled", "failed"]
        .into_iter()
        .map(|word| (count(word), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    words.join(", ") + "\n"
}
