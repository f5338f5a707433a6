//! `run`: what was, is and will be done.

mod many;
mod watch;

use std::fmt::Write as _; // writing into a String cannot fail
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use orchestrator_engine::run::{RunStatus, Trigger};
use serde_json::{Value, json};

use crate::client::path;
use crate::failure::Failure;
use crate::output::{Ids, facts, items, short, table, text};
use crate::session::{Session, zone_of};
use crate::times::{Zone, length, parse_past, stamp, time_in};

use many::Many;
pub use watch::{follow, has_succeeded, watch};

/// What can be done with runs. A run is named by its id, part of its id, or the name of a task, whose
/// newest run is meant then.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List runs, the newest first.
    #[command(after_help = "\
Examples:
  orchestrator run list --task morning-briefing
  orchestrator run list --status failed --from 1h
  orchestrator run list --from '2026-11-20 00:00' --to '2026-11-21 00:00'
  orchestrator run list --limit 500 --output json

A length in --from and --to is counted back from now. Times without an offset are read on the wall clock
of the task, or without --task of this machine.")]
    List(ListArgs),
    /// Show a run and its steps.
    Show {
        /// Its id, or the name of a task: its newest run.
        run: String,
        /// What each step was given and what it answered, too.
        #[arg(long)]
        full: bool,
    },
    /// Follow a run to its end; exit with 0 when it succeeds.
    #[command(after_help = "\
Examples:
  orchestrator run watch morning-briefing       # its newest run
  orchestrator run watch 5e1d2f90 && echo well done

When standard output is no terminal, a line is written for each change.")]
    Watch {
        /// Its id, or the name of a task: its newest run.
        run: String,
    },
    /// End a run, or all that match.
    #[command(after_help = "\
Examples:
  orchestrator run cancel 5e1d2f90
  orchestrator run cancel --task crawl --status queued
  orchestrator run cancel --to 2d --status queued
  orchestrator run cancel --all --dry-run

A length in --from and --to is counted back from now.")]
    Cancel {
        /// Its id, or the name of a task: its newest run.
        run: Option<String>,
        /// Those that are queued, or running; without it, both.
        #[arg(long, conflicts_with = "run", value_parser = |text: &str| text.parse::<RunStatus>())]
        status: Option<RunStatus>,
        #[command(flatten)]
        many: Many,
    },
    /// Run a failed, canceled or expired run again, or all that match; steps that succeeded are not done
    /// again.
    #[command(after_help = "\
Examples:
  orchestrator run retry morning-briefing --watch
  orchestrator run retry 5e1d2f90 --from-step weather
  orchestrator run retry --task crawl --failed --error-kind timeout
  orchestrator run retry --failed --from 1h --yes

A length in --from and --to is counted back from now.")]
    Retry {
        /// Its id, or the name of a task: its newest run.
        run: Option<String>,
        /// A step of the outermost list: it and all after it are done again.
        #[arg(long, value_name = "STEP", requires = "run")]
        from_step: Option<String>,
        /// Follow it to its end.
        #[arg(long, short, requires = "run")]
        watch: bool,
        /// Those that failed; the default where there is another filter.
        #[arg(long, conflicts_with_all = ["run", "status"])]
        failed: bool,
        /// Those that failed, are canceled or expired.
        #[arg(long, conflicts_with = "run", value_parser = |text: &str| text.parse::<RunStatus>())]
        status: Option<RunStatus>,
        /// Those whose error is of this kind, as timeout or unreachable.
        #[arg(long, conflicts_with = "run", value_name = "KIND")]
        error_kind: Option<String>,
        #[command(flatten)]
        many: Many,
    },
}

/// Which runs are listed.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those of this task.
    #[arg(long)]
    task: Option<String>,
    /// Only those that are queued, running, waiting, succeeded, failed, canceled or expired.
    #[arg(long, value_parser = |text: &str| text.parse::<RunStatus>())]
    status: Option<RunStatus>,
    /// Only those made by schedule, event, condition, `run_now`, backfill or `run_task`.
    #[arg(long, value_parser = |text: &str| text.parse::<Trigger>())]
    trigger: Option<Trigger>,
    /// Only those scheduled at or after this: 2026-11-01, "2026-11-01 08:00", or how long ago: 1h.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Only those scheduled before this.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// How many.
    #[arg(long, default_value_t = 50, value_parser = crate::client::limit)]
    limit: usize,
}

/// Does it.
pub async fn run(verb: Verb, session: &Session) -> Result<ExitCode, Failure> {
    match verb {
        Verb::List(args) => list(args, session).await,
        Verb::Show { run, full } => show(&run, full, session).await,
        Verb::Watch { run } => watch(&text(&session.run(&run).await?, "id"), session).await,
        Verb::Cancel { run: None, status, many } => {
            let what = many::What { verb: "cancel", done: "canceled", status, error_kind: None };
            many::many(what, &many, session).await
        }
        Verb::Retry { run: None, failed, status, error_kind, many, .. } => {
            let status = status.or(failed.then_some(RunStatus::Failed));
            let what = many::What { verb: "retry", done: "queued", status, error_kind };
            many::many(what, &many, session).await
        }
        Verb::Cancel { run: Some(run), .. } => {
            let id = text(&session.run(&run).await?, "id");
            let answer = session.client.post(&path(&["runs", &id, "cancel"])?, &json!({})).await?;
            let note = match text(&answer, "status").as_str() {
                "canceled" => String::new(),
                _ => "its worker has been asked to end it".to_owned(),
            };
            told(&answer, note, session)
        }
        Verb::Retry { run: Some(run), from_step, watch: follow, .. } => {
            let id = text(&session.run(&run).await?, "id");
            let body = json!({"from_step": from_step});
            let answer = session.client.post(&path(&["runs", &id, "retry"])?, &body).await?;
            if follow {
                return watch(&id, session).await;
            }
            told(&answer, format!("`orchestrator run watch {id}` shows how it goes"), session)
        }
    }
}

fn told(run: &Value, note: String, session: &Session) -> Result<ExitCode, Failure> {
    session.show(run, |run| {
        facts(&[("run", text(run, "id")), ("status", text(run, "status")), ("", note)])
    })
}

async fn list(args: ListArgs, session: &Session) -> Result<ExitCode, Failure> {
    let now = Session::now();
    let mut zone = Zone::Here;
    let mut query = Vec::new();
    if let Some(reference) = &args.task {
        let task = session.task(reference).await?;
        zone = zone_of(&task);
        query.push(("task_id", text(&task, "id")));
    }
    for (name, given) in [("from", &args.from), ("to", &args.to)] {
        if let Some(given) = given {
            let at = parse_past(given, zone, now).map_err(Failure::Usage)?;
            query.push((name, at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)));
        }
    }
    query.extend(args.status.map(|status| ("status", status.to_string())));
    query.extend(args.trigger.map(|trigger| ("trigger", trigger.to_string())));
    let answer = session.client.list("runs", &query, args.limit).await?;
    let zones = match session.format {
        crate::output::Format::Table => session.zones(items(&answer)).await,
        _ => std::collections::BTreeMap::new(),
    };
    session.show(&answer, |answer| {
        let zone = |run: &Value| zones.get(&text(run, "task_id")).copied().unwrap_or(Zone::Here);
        rows(items(answer), zone, now)
    })
}

/// A table of runs; `zone` says on which wall clock the times of each are read.
pub fn rows(runs: &[Value], zone: impl Fn(&Value) -> Zone, now: DateTime<Utc>) -> String {
    let ids = Ids::among(runs.iter().filter_map(|run| run.get("id")?.as_str()));
    table(
        &["ID", "TASK", "STATUS", "TRIGGER", "SCHEDULED", "TOOK", "ATTEMPT", "ERROR"],
        runs.iter().map(|run| {
            vec![
                ids.show(&text(run, "id")),
                name_of_task(run),
                text(run, "status"),
                text(run, "trigger"),
                stamp(time_in(run, "scheduled_at"), zone(run), now),
                took(run, now),
                text(run, "attempt"),
                short(&error_of(run), 60),
            ]
        }),
    )
}

/// What people call the task of a run.
fn name_of_task(run: &Value) -> String {
    match (run.get("task_name"), run.get("task_title")) {
        (Some(Value::String(name)), _) => name.clone(),
        (_, Some(Value::String(title))) => short(title, 40),
        _ => "-".to_owned(),
    }
}

/// From the start to the end, or to now.
fn took(thing: &Value, now: DateTime<Utc>) -> String {
    let Some(start) = time_in(thing, "started_at") else { return "-".to_owned() };
    length(time_in(thing, "finished_at").unwrap_or(now) - start)
}

/// Why a run or a step failed, on one line; empty when it did not.
pub fn error_of(thing: &Value) -> String {
    let Some(error) = thing.get("error").filter(|error| !error.is_null()) else {
        return String::new();
    };
    let message = crate::output::plain(&text(error, "message"));
    match error.get("step").and_then(Value::as_str) {
        // A step that failed by itself need not say which it is.
        Some(step) if thing.get("path").and_then(Value::as_str) != Some(step) => {
            format!("{step}: {message}")
        }
        _ => message,
    }
}

async fn show(reference: &str, full: bool, session: &Session) -> Result<ExitCode, Failure> {
    let run = session.run(reference).await?;
    let zones = session.zones(std::slice::from_ref(&run)).await;
    let zone = zones.get(&text(&run, "task_id")).copied().unwrap_or(Zone::Here);
    let now = Session::now();
    session.show(&run, |run| drawn(run, zone, now, full))
}

fn drawn(run: &Value, zone: Zone, now: DateTime<Utc>, full: bool) -> String {
    let at = |field| stamp(time_in(run, field), zone, now);
    let waiting = match text(run, "status").as_str() {
        "queued" => at("run_at"),
        _ => String::new(),
    };
    let mut drawn = facts(&[
        ("run", text(run, "id")),
        ("task", name_of_task(run)),
        ("revision", text(run, "revision")),
        ("status", text(run, "status")),
        ("error", error_of(run)),
        ("trigger", text(run, "trigger")),
        ("attempt", text(run, "attempt")),
        ("nominal", at("nominal_at")),
        ("scheduled", at("scheduled_at")),
        ("not before", waiting),
        ("waits for", text(run, "waits_for")),
        ("started", at("started_at")),
        ("finished", at("finished_at")),
        ("took", took(run, now)),
        ("cancel asked", at("cancel_requested_at")),
        ("params", text(run, "params")),
        ("event", text(run, "event")),
        ("output", short(&text(run, "output"), if full { usize::MAX } else { 200 })),
    ]);
    let steps = run.get("steps").map_or(&[][..], items);
    if steps.is_empty() {
        return drawn;
    }
    drawn += "\n";
    drawn += &table(
        &["STEP", "USES", "STATUS", "ATTEMPT", "TOOK", "ERROR"],
        steps.iter().map(|step| {
            vec![
                text(step, "path"),
                text(step, "uses"),
                text(step, "status"),
                text(step, "attempt"),
                took(step, now),
                short(&error_of(step), if full { usize::MAX } else { 80 }),
            ]
        }),
    );
    if full {
        for step in steps {
            let _ = writeln!(drawn, "\n{} (attempt {})", text(step, "path"), text(step, "attempt"));
            drawn += &facts(&[
                ("  input", text(step, "input")),
                ("  output", text(step, "output")),
                ("  error", error_of(step)),
            ]);
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_shown_with_its_steps_and_why_it_failed() {
        let run = json!({
            "id": "0197a000-0000-7000-8000-0000aaaaaaaa", "task_name": null, "task_title": "Tidy",
            "status": "failed", "started_at": "2026-11-21T12:00:00Z",
            "finished_at": "2026-11-21T12:00:03.5Z",
            "error": {"kind": "refused", "message": "404\nNot Found", "step": "fetch"},
            "steps": [{"path": "fetch", "uses": "http.request", "status": "failed", "attempt": 3}],
        });
        let zone = Zone::named(Some("Europe/Berlin"));

        let shown = drawn(&run, zone, "2026-11-21T13:00:00Z".parse().unwrap(), false);

        for line in ["error     fetch: 404 Not Found", "started   2026-11-21 13:00 (1 h ago)"] {
            assert!(shown.contains(line), "{shown}");
        }
        assert!(shown.contains("took      3.5 s"), "{shown}");
        assert!(shown.lines().last().unwrap().starts_with("fetch"), "{shown}");
    }
}
