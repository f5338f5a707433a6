//! `schedule preview`: when something would happen, without making a task; `schedule rezone`: what
//! this program's zone data change.

use std::process::ExitCode;

use orchestrator_boot::Service;
use orchestrator_engine::config::{Database, Env, Problems};
use orchestrator_engine::schedule::ZONE_DATA;
use orchestrator_engine::task::ScheduleKind;
use orchestrator_scheduler::rezone;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Format, items, render, say, table, text};
use crate::session::Session;
use crate::times::{Zone, away, parse_time, time_in};

/// What can be done with schedules.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show what a schedule would do.
    #[command(after_help = "\
Examples:
  orchestrator schedule preview '30 8 * * MON-FRI' --timezone Europe/Chisinau
  orchestrator schedule preview 'FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=17' --count 12
  orchestrator schedule preview PT15M --from '2026-12-24 08:00'
  orchestrator schedule preview 2026-12-24T18:00:00+02:00

The kind is guessed: five or six fields or @daily are cron, FREQ=… is rrule, PT15M is interval,
a time is once.")]
    Preview {
        /// The schedule.
        expr: String,
        /// What it is written in, where the guess is wrong.
        #[arg(long, value_parser = kind)]
        kind: Option<ScheduleKind>,
        /// The zone whose wall clock it follows, such as Europe/Berlin. Default: the server's.
        #[arg(long, short = 'z')]
        timezone: Option<String>,
        /// How many times to show.
        #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        count: u16,
        /// From when on. Default: now.
        #[arg(long)]
        from: Option<String>,
    },
    /// Move the next times of tasks that this program's zone data change. Schedulers do so at their
    /// start after an upgrade; this shows it before. Talks to the database
    /// itself.
    Rezone {
        /// Only show which would move.
        #[arg(long)]
        dry_run: bool,
    },
}

fn kind(text: &str) -> Result<ScheduleKind, String> {
    text.parse()
}

/// Does it.
pub async fn run(verb: Verb, env: &Env, format: Format) -> Result<ExitCode, Failure> {
    let (expr, kind, timezone, count, from) = match verb {
        Verb::Rezone { dry_run } => return show_moves(dry_run, env, format).await,
        Verb::Preview { expr, kind, timezone, count, from } => (expr, kind, timezone, count, from),
    };
    let session = Session::open(env, format)?;
    let kind = kind.or_else(|| guess_kind(&expr)).ok_or_else(|| {
        Failure::Usage(format!(
            "{expr:?} looks like no kind of schedule: say which with --kind cron, rrule, interval or \
             once"
        ))
    })?;
    let zone = Zone::named(timezone.as_deref());
    let mut asked = json!({"schedule_kind": kind, "schedule_expr": expr, "count": count});
    if let Some(from) = from {
        asked["from"] = json!(parse_time(&from, zone, Session::now()).map_err(Failure::Usage)?);
    }
    if let Some(timezone) = timezone {
        asked["timezone"] = json!(timezone);
    }
    let answer = session.client.post("schedules/preview", &asked).await?;
    session.show(&answer, |answer| drawn(answer, Some(kind)))
}

async fn show_moves(dry_run: bool, env: &Env, format: Format) -> Result<ExitCode, Failure> {
    let mut problems = Problems::default();
    let database = Database::read(env, &mut problems);
    if !problems.is_empty() {
        return Err(Failure::Usage(problems.to_string()));
    }
    let pool = orchestrator_boot::connect(&database, Service::Cli).await?;
    let moves = rezone::moves(&pool, !dry_run).await;
    pool.close().await;
    let moves = moves.map_err(|error| Failure::failed(error.to_string()))?;
    let found: Vec<_> = moves
        .iter()
        .map(|one| json!({"task_id": one.task, "name": one.name, "from": one.from, "to": one.to}))
        .collect();
    let version = ZONE_DATA;
    let answer = json!({"zone_data": version, "dry_run": dry_run, "items": found});
    let drawn = render(format, &answer, |answer| {
        let rows = items(answer)
            .iter()
            .map(|one| vec![text(one, "name"), text(one, "from"), text(one, "to")]);
        let drawn = table(&["TASK", "DUE", "WITH THIS ZONE DATA"], rows);
        let verb = if dry_run { "would move" } else { "moved" };
        format!("{drawn}{} {verb} with zone data {version}\n", moves.len())
    })?;
    say(&drawn);
    Ok(ExitCode::SUCCESS)
}

/// A preview of a schedule of this kind as people read it; also that of a task's schedule.
pub fn drawn(preview: &Value, kind: Option<ScheduleKind>) -> String {
    let now = Session::now();
    let fires = preview.get("fires").map_or(&[][..], items);
    let end = match preview.get("exhausted") {
        Some(Value::Bool(true)) if fires.is_empty() => without_times(kind),
        Some(Value::Bool(true)) => "Nothing comes after that.\n",
        _ => "",
    };
    let mut drawn = format!("{}\n", text(preview, "summary"));
    if !fires.is_empty() {
        let rows = fires.iter().map(|fire| {
            let distance = time_in(fire, "at").map_or_else(String::new, |at| away(at, now));
            let note = fire.get("note").and_then(Value::as_str).unwrap_or_default();
            vec![text(fire, "local").replacen('T', " ", 1), distance, note.to_owned()]
        });
        drawn += "\n";
        drawn += &table(&["LOCAL TIME", "", "NOTE"], rows);
    }
    drawn + end
}

/// What is said of a schedule of this kind that names no time.
fn without_times(kind: Option<ScheduleKind>) -> &'static str {
    match kind {
        Some(ScheduleKind::Manual) => {
            "It has no times of its own: `orchestrator task run` makes it run.\n"
        }
        Some(ScheduleKind::Event) => {
            "It has no times of its own: an event of that topic makes it run (`orchestrator event publish`), \
             and so does `orchestrator task run`.\n"
        }
        _ => "It never fires.\n",
    }
}

/// What a schedule is written in, as far as its look tells.
fn guess_kind(expr: &str) -> Option<ScheduleKind> {
    let expr = expr.trim();
    let upper = expr.to_ascii_uppercase();
    if upper.contains("FREQ=") || upper.starts_with("DTSTART") {
        return Some(ScheduleKind::Rrule);
    }
    if expr.starts_with('@') || matches!(expr.split_whitespace().count(), 5 | 6) {
        return Some(ScheduleKind::Cron);
    }
    let after_p = upper.strip_prefix('P').unwrap_or_default();
    if after_p.starts_with(|c: char| c == 'T' || c.is_ascii_digit()) {
        return Some(ScheduleKind::Interval);
    }
    let date = expr.get(..10).unwrap_or_default();
    date.parse::<chrono::NaiveDate>().ok().map(|_| ScheduleKind::Once)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_schedule_is_seen_from_its_look() {
        for (expr, kind) in [
            ("30 8 * * MON-FRI", Some(ScheduleKind::Cron)),
            ("0 30 8 * * *", Some(ScheduleKind::Cron)),
            ("@daily", Some(ScheduleKind::Cron)),
            ("FREQ=DAILY;BYHOUR=8", Some(ScheduleKind::Rrule)),
            ("RRULE:freq=daily", Some(ScheduleKind::Rrule)),
            ("DTSTART:20261124T080000\nRRULE:FREQ=DAILY", Some(ScheduleKind::Rrule)),
            ("PT15M", Some(ScheduleKind::Interval)),
            ("P1DT12H", Some(ScheduleKind::Interval)),
            ("2026-12-24T18:00:00+02:00", Some(ScheduleKind::Once)),
            ("2026-12-24 18:00", Some(ScheduleKind::Once)),
            ("mail.arrived", None),
            ("PARTY", None),
            ("", None),
        ] {
            assert_eq!(guess_kind(expr), kind, "{expr:?}");
        }
    }
}
