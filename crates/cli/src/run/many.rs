//! `run cancel` and `run retry` for many runs, chosen by a filter.
//!
//! They are counted first, and somebody is asked. Then the server is asked for a thousand at a time, the
//! newest first, each time behind those that were done: what fails again meanwhile is not taken twice.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use orchestrator_engine::run::{RunStatus, Trigger};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::output::{facts, text};
use crate::session::{Session, zone_of};
use crate::times::{Zone, parse_past};

/// Which runs, where none is named.
#[derive(Debug, clap::Args)]
pub struct Many {
    /// Those of this task.
    #[arg(long, conflicts_with = "run")]
    task: Option<String>,
    /// Those made by schedule, event, condition, `run_now`, backfill or `run_task`.
    #[arg(long, conflicts_with = "run", value_parser = |text: &str| text.parse::<Trigger>())]
    trigger: Option<Trigger>,
    /// Those scheduled at or after this: 2026-11-01, "2026-11-01 08:00", or how long ago: 1h.
    #[arg(long, conflicts_with = "run", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Those scheduled before this.
    #[arg(long, conflicts_with = "run", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// All of them, where there is no filter.
    #[arg(long, conflicts_with = "run")]
    all: bool,
    /// Only say how many there are.
    #[arg(long, conflicts_with = "run")]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short, conflicts_with = "run")]
    yes: bool,
}

/// What is done with them.
pub struct What {
    /// The server's route: `cancel`, `retry`.
    pub verb: &'static str,
    /// What has been done, in a word.
    pub done: &'static str,
    /// Only those in this state.
    pub status: Option<RunStatus>,
    /// Only those whose error is of this kind.
    pub error_kind: Option<String>,
}

/// Does it.
///
/// # Errors
///
/// [`Failure::Usage`] when nobody says that it is to be done.
pub async fn many(what: What, many: &Many, session: &Session) -> Result<ExitCode, Failure> {
    let mut filter = filter(&what, many, session).await?;
    let route = format!("runs/{}", what.verb);
    let mut dry = filter.clone();
    dry.insert("dry_run".to_owned(), json!(true));
    let mut counted = session.client.post(&route, &Value::Object(dry)).await?;
    let count = number(&counted, "matched");
    if many.dry_run || count == 0 {
        counted["dry_run"] = json!(many.dry_run);
        return told(&counted, &what, session);
    }
    if !many.yes {
        confirm(what.verb, count, counted["more"] == true)?;
    }
    let mut sum = json!({"matched": 0, "done": 0, "requested": 0, "more": true, "dry_run": false});
    while sum["more"] == true {
        let answer = session.client.post(&route, &Value::Object(filter.clone())).await?;
        for field in ["matched", "done", "requested"] {
            sum[field] = json!(number(&sum, field) + number(&answer, field));
        }
        sum["more"] = answer["more"].clone();
        filter.insert("cursor".to_owned(), answer["next_cursor"].clone());
    }
    told(&sum, &what, session)
}

/// The body of the request.
async fn filter(
    what: &What,
    many: &Many,
    session: &Session,
) -> Result<Map<String, Value>, Failure> {
    let now = Session::now();
    let mut zone = Zone::Here;
    let mut body = Map::new();
    if let Some(reference) = &many.task {
        let task = session.task(reference).await?;
        zone = zone_of(&task);
        body.insert("task_id".to_owned(), json!(text(&task, "id")));
    }
    for (name, given) in [("from", &many.from), ("to", &many.to)] {
        if let Some(given) = given {
            let at = parse_past(given, zone, now).map_err(Failure::Usage)?;
            body.insert(name.to_owned(), json!(at));
        }
    }
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("status", what.status.map(|status| json!(status)));
    put("error_kind", what.error_kind.as_ref().map(|kind| json!(kind)));
    put("trigger", many.trigger.map(|trigger| json!(trigger)));
    put("all", many.all.then_some(json!(true)));
    if body.is_empty() {
        return Err(Failure::Usage(format!(
            "name a run, or say which runs to {}: --task, --status, --trigger, --from, --to, or --all",
            what.verb
        )));
    }
    Ok(body)
}

fn number(answer: &Value, field: &str) -> u64 {
    answer.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn confirm(verb: &str, count: u64, more: bool) -> Result<(), Failure> {
    let runs = match (count, more) {
        (1, _) => "1 run".to_owned(),
        (count, false) => format!("{count} runs"),
        (count, true) => format!("more than {count} runs"),
    };
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!(
            "this would {verb} {runs}, and there is nobody to ask: add --yes"
        )));
    }
    eprint!("{verb} {runs}? [y/N] ");
    drop(std::io::stderr().flush());
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::while_doing("read your answer"))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("nothing was done"))
}

fn told(answer: &Value, what: &What, session: &Session) -> Result<ExitCode, Failure> {
    session.show(answer, |answer| {
        let more = if answer["more"] == true { " or more" } else { "" };
        let found = format!("{}{more}", number(answer, "matched"));
        if answer["dry_run"] == true {
            return facts(&[("would", what.verb.to_owned()), ("runs", found)]);
        }
        let asked = match number(answer, "requested") {
            0 => String::new(),
            asked => format!("{asked}, whose workers have been asked"),
        };
        facts(&[(what.done, number(answer, "done").to_string()), ("on", asked)])
    })
}
