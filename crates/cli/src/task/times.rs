//! Asking about a task's times, and making up for them: `explain`, `backfill`.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use super::BackfillArgs;
use crate::client::path;
use crate::failure::Failure;
use crate::output::{facts, items, table, text};
use crate::session::{Session, zone_of};
use crate::times::{Zone, parse_past, stamp, time_in};

/// Why the task did or did not run at `at`; without it, at the last time it was due.
pub(super) async fn explain(
    reference: &str,
    at: Option<&str>,
    session: &Session,
) -> Result<ExitCode, Failure> {
    let task = session.task(reference).await?;
    let zone = zone_of(&task);
    let now = Session::now();
    let explain = path(&["tasks", &text(&task, "id"), "explain"])?;
    let ask =
        async |at: &str| session.client.send(Method::GET, &explain, &[("at", at)], None).await;
    let asked = at.map_or_else(|| now.to_rfc3339(), |at| on_clock(at, zone, now));
    let mut answer = ask(&asked).await?;
    if at.is_none()
        && text(&answer, "verdict") == "not_due"
        && let Some(previous) = answer.get("previous").and_then(Value::as_str).map(str::to_owned)
    {
        answer = ask(&previous).await?;
    }
    session.show(&answer, |told| {
        let run = told.get("run").filter(|run| !run.is_null());
        facts(&[
            ("time", format!("{} ({})", text(told, "local"), text(told, "at"))),
            ("verdict", text(told, "verdict")),
            ("answer", text(told, "answer")),
            (
                "schedule",
                format!("{} (revision {})", text(told, "schedule"), text(told, "revision")),
            ),
            ("run", run.map(|run| text(run, "id")).unwrap_or_default()),
            ("before", stamp(time_in(told, "previous"), zone, now)),
            ("after", stamp(time_in(told, "next"), zone, now)),
        ])
    })
}

/// What the server is asked: a time alone is one of today, and a local time is left to the server,
/// which knows the task's clock changes.
fn on_clock(at: &str, zone: Zone, now: DateTime<Utc>) -> String {
    let is_time = |text: &str| {
        text.len() <= 8
            && text.contains(':')
            && text.bytes().all(|b| b.is_ascii_digit() || b == b':')
    };
    if is_time(at) {
        let today = zone.rfc3339(now);
        let day = today.split('T').next().unwrap_or_default();
        let wide = if at.find(':') == Some(1) { format!("0{at}") } else { at.to_owned() };
        return format!("{day}T{wide}");
    }
    at.to_owned()
}

pub(super) async fn backfill(args: BackfillArgs, session: &Session) -> Result<ExitCode, Failure> {
    let task = session.task(&args.task).await?;
    let zone = zone_of(&task);
    let now = Session::now();
    let past = |said: &str| parse_past(said, zone, now).map_err(Failure::Usage);
    let from = past(&args.from)?;
    let to = args.to.as_deref().map_or(Ok(now), past)?;
    let body = json!({"from": from, "to": to, "dry_run": args.dry_run});
    let answer =
        session.client.post(&path(&["tasks", &text(&task, "id"), "backfill"])?, &body).await?;
    session.show(&answer, |answer| {
        let rows = items(answer).iter().map(|item| {
            vec![
                text(item, "local"),
                text(item, "action"),
                text(item, "run_id"),
                text(item, "reason"),
            ]
        });
        let drawn = table(&["TIME", "ACTION", "RUN", "WHY"], rows);
        let (prefix, verb) = if args.dry_run { ("dry run: ", "would be") } else { ("", "were") };
        format!("{drawn}{prefix}{} runs {verb} made\n", text(answer, "runs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_alone_is_one_of_today_on_the_tasks_clock() {
        let now = "2026-03-01T23:30:00Z".parse().unwrap();
        let zone = Zone::named(Some("Europe/Chisinau"));

        assert_eq!(on_clock("8:30", zone, now), "2026-03-02T08:30");
        assert_eq!(on_clock("08:30:15", zone, now), "2026-03-02T08:30:15");
        assert_eq!(on_clock("2026-02-01 08:30", zone, now), "2026-02-01 08:30");
    }
}
