//! Doing something to a task: `run`, `pause`, `resume`, `snooze`, `cancel`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::RunArgs;
use crate::client::path;
use crate::failure::Failure;
use crate::output::{facts, text};
use crate::session::{Session, zone_of};
use crate::times::{parse_length, parse_time, stamp, time_in};

/// Said when `run_now` made no run of its own.
const STANDS: &str =
    "no second run was made, this earlier one stands for it (debounce, singleton or dedupe_key)";

pub(super) async fn run(args: RunArgs, session: &Session) -> Result<ExitCode, Failure> {
    let task = session.task(&args.task).await?;
    let params: Map<_, _> = args.params.into_iter().collect();
    let answer = session
        .client
        .post(&path(&["tasks", &text(&task, "id"), "run_now"])?, &json!({"params": params}))
        .await?;
    let run = text(&answer, "run_id");
    let repeated = answer.get("deduplicated") == Some(&Value::Bool(true));
    if args.watch {
        if repeated {
            eprintln!("orchestrator: {STANDS}");
        }
        return crate::run::watch(&run, session).await;
    }
    session.show(&answer, |_| {
        let note = if repeated {
            STANDS.to_owned()
        } else {
            format!("`orchestrator run watch {run}` shows how it goes")
        };
        facts(&[("run", run.clone()), ("", note)])
    })
}

pub(super) async fn pause(
    reference: &str,
    reason: Option<&str>,
    session: &Session,
) -> Result<ExitCode, Failure> {
    act(reference, "pause", &json!({"reason": reason}), session).await
}

pub(super) async fn resume(
    reference: &str,
    skip_missed: bool,
    session: &Session,
) -> Result<ExitCode, Failure> {
    act(reference, "resume", &json!({"skip_missed": skip_missed}), session).await
}

pub(super) async fn cancel(reference: &str, session: &Session) -> Result<ExitCode, Failure> {
    act(reference, "cancel", &json!({}), session).await
}

pub(super) async fn snooze(
    reference: &str,
    by: Option<&str>,
    until: Option<&str>,
    session: &Session,
) -> Result<ExitCode, Failure> {
    let body = match (by, until) {
        (Some(by), _) => {
            let seconds = parse_length(by).ok_or_else(|| {
                Failure::Usage(format!("{by:?} is no length of time: write 30m, 2h or 1d12h"))
            })?;
            json!({"delay_seconds": seconds})
        }
        (None, until) => {
            let zone = zone_of(&session.task(reference).await?);
            let until = parse_time(until.unwrap_or_default(), zone, Session::now());
            json!({"until": until.map_err(Failure::Usage)?})
        }
    };
    act(reference, "snooze", &body, session).await
}

async fn act(
    reference: &str,
    verb: &str,
    body: &Value,
    session: &Session,
) -> Result<ExitCode, Failure> {
    let task = session.task(reference).await?;
    let answer = session.client.post(&path(&["tasks", &text(&task, "id"), verb])?, body).await?;
    let now = Session::now();
    session.show(&answer, |task| {
        facts(&[
            ("task", text(task, "name")),
            ("id", text(task, "id")),
            ("status", text(task, "status")),
            ("next", stamp(time_in(task, "next_fire_at"), zone_of(task), now)),
            ("snoozed", stamp(time_in(task, "snoozed_until"), zone_of(task), now)),
        ])
    })
}
