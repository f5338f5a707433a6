//! `run watch`: a run's steps as they happen.
//!
//! The server is asked again and again, gently; what has changed since the last look is shown by a
//! [`View`]: on a terminal a line a step that lives, elsewhere a line a change.

use std::collections::BTreeMap;
use std::fmt::Write as _; // writing into a String cannot fail
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, Utc};
use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::{error_of, name_of_task, took};
use crate::client::path;
use crate::failure::Failure;
use crate::output::{Format, items, plain, say, short, text};
use crate::session::Session;
use crate::times::{Zone, time_in};

/// How often the server is asked at first, while most runs end.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked at last: a run that waits for days needs no haste.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);
/// How many times in a row the server may fail to answer.
const MISSES_MAX: u32 = 20;
/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Follows the run with this id to its end. The exit code is 0 when it has succeeded, else 1.
///
/// # Errors
///
/// When there is no such run, or the server is away for long.
pub async fn watch(id: &str, session: &Session) -> Result<ExitCode, Failure> {
    let run = follow(id, session).await?;
    if session.format != Format::Table {
        session.show(&run, |_| String::new())?;
    }
    Ok(if has_succeeded(&run) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Follows the run with this id and returns it as it ended. For people all of it has been shown then;
/// for programs nothing.
///
/// # Errors
///
/// As [`watch`].
pub async fn follow(id: &str, session: &Session) -> Result<Value, Failure> {
    let path = path(&["runs", id])?;
    let mut view: Box<dyn View> = match session.format {
        Format::Table if std::io::stdout().is_terminal() => Box::new(Live::new()),
        Format::Table => Box::new(Lines::default()),
        Format::Json | Format::Yaml => Box::new(Silence),
    };
    let mut pause = LOOK_EVERY;
    let mut misses = 0;
    let run = loop {
        match session.client.get(&path).await {
            Ok(run) => {
                misses = 0;
                view.look(&run, Session::now());
                if is_over(&run) {
                    break run;
                }
            }
            // It may come back: the run goes on meanwhile.
            Err(failure) if may_pass(&failure) && misses < MISSES_MAX => misses += 1,
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f32(1.05).min(LOOK_EVERY_MAX);
    };
    view.end(&run, Session::now());
    Ok(run)
}

/// Whether the run ended well.
pub fn has_succeeded(run: &Value) -> bool {
    text(run, "status") == "succeeded"
}

fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Failed(_) => true,
        Failure::Refused(problem) => problem.status == 429 || problem.status >= 500,
        Failure::Usage(_) => false,
    }
}

fn is_over(run: &Value) -> bool {
    matches!(text(run, "status").as_str(), "succeeded" | "failed" | "canceled" | "expired")
}

/// How a run is shown while it goes on.
trait View {
    /// The run as it is now.
    fn look(&mut self, run: &Value, now: DateTime<Utc>);
    /// The run at its end, which has been looked at.
    fn end(&mut self, run: &Value, now: DateTime<Utc>);
}

/// The last attempt at each step, in the order of their first attempts.
fn latest(run: &Value) -> Vec<&Value> {
    let mut steps: Vec<&Value> = Vec::new();
    for record in run.get("steps").map_or(&[][..], items) {
        let path = text(record, "path");
        match steps.iter_mut().find(|step| text(step, "path") == path) {
            Some(step) => *step = record,
            None => steps.push(record),
        }
    }
    steps
}

/// A mark that needs no colour to be understood.
fn mark(status: &str) -> console::StyledObject<&'static str> {
    match status {
        "succeeded" => style("✓").green(),
        "failed" => style("✗").red(),
        "skipped" => style("-").dim(),
        "canceled" | "expired" => style("■").yellow(),
        "waiting" | "queued" => style("…").yellow(),
        _ => style("·"),
    }
}

/// What a step does and how it went, without how long it took.
fn words(step: &Value) -> String {
    let mut words = text(step, "path");
    if let Some(uses) = step.get("uses").and_then(Value::as_str) {
        let _ = write!(words, "  {}", style(uses).dim());
    }
    match step.get("attempt").and_then(Value::as_i64) {
        Some(attempt) if attempt > 1 => {
            let _ = write!(words, "  attempt {attempt}");
        }
        _ => {}
    }
    let error = error_of(step);
    if !error.is_empty() {
        let _ = write!(words, "  {}", style(short(&error, 120)).red());
    }
    words
}

/// How it ended, and after how long.
fn end_words(run: &Value, now: DateTime<Utc>) -> String {
    let took = match took(run, now).as_str() {
        "-" => String::new(),
        took => format!(" after {took}"),
    };
    format!("{}{took}", text(run, "status"))
}

/// Why it failed, or what it came to.
fn outcome_words(run: &Value) -> String {
    let error = error_of(run);
    if !error.is_empty() {
        return format!("{error}\n");
    }
    match run.get("output") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(output)) => {
            format!("{}\n", output.replace(|c: char| c.is_control() && c != '\n', " "))
        }
        Some(output) => {
            serde_json::to_string_pretty(output).map_or_else(|_| String::new(), |text| text + "\n")
        }
    }
}

/// A line a step, with a spinner while it runs.
struct Live {
    bars: MultiProgress,
    head: ProgressBar,
    /// By path: the attempt that is shown, and its line.
    steps: BTreeMap<String, (i64, ProgressBar)>,
}

impl Live {
    fn new() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let head = bars.add(ProgressBar::new_spinner());
        head.set_style(turning());
        head.enable_steady_tick(TICK);
        Self { bars, head, steps: BTreeMap::new() }
    }

    fn step(&mut self, step: &Value, now: DateTime<Utc>) {
        let path = text(step, "path");
        let depth = path.matches('/').count();
        let attempt = step.get("attempt").and_then(Value::as_i64).unwrap_or(1);
        let (shown, bar) = self.steps.entry(path).or_insert_with(|| {
            let since = time_in(step, "started_at").and_then(|at| (now - at).to_std().ok());
            let bar = ProgressBar::new_spinner().with_elapsed(since.unwrap_or_default());
            (0, self.bars.add(bar))
        });
        if *shown != attempt {
            // The first, or another after one that has ended.
            if *shown > 0 {
                bar.reset();
            }
            bar.set_style(turning());
            bar.enable_steady_tick(TICK);
            *shown = attempt;
        }
        let status = text(step, "status");
        let indent = "  ".repeat(depth + 1);
        if status == "running" {
            bar.set_prefix(indent);
            bar.set_message(words(step));
            return;
        }
        if bar.is_finished() {
            return;
        }
        bar.set_style(still());
        bar.set_prefix(format!("{indent}{}", mark(&status)));
        // Of a loop over a thousand things only what goes on or wrong is worth a line.
        if depth > 0 && status != "failed" {
            bar.finish_and_clear();
        } else {
            bar.finish_with_message(format!("{}  {}", words(step), style(took(step, now)).dim()));
        }
    }
}

fn turning() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}{spinner} {wide_msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn still() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl View for Live {
    fn look(&mut self, run: &Value, now: DateTime<Utc>) {
        let attempt = match run.get("attempt").and_then(Value::as_i64) {
            Some(attempt) if attempt > 1 => format!("  attempt {attempt}"),
            _ => String::new(),
        };
        let again = match (text(run, "status").as_str(), time_in(run, "run_at")) {
            ("queued", Some(at)) if at > now => {
                let error = error_of(run);
                format!("  again {}  {}", crate::times::away(at, now), style(error).red())
            }
            _ => String::new(),
        };
        let name = plain(&name_of_task(run));
        self.head.set_message(format!("{name}  {}{attempt}{again}", text(run, "status")));
        for step in latest(run) {
            self.step(step, now);
        }
    }

    fn end(&mut self, run: &Value, now: DateTime<Utc>) {
        for (_, bar) in self.steps.values().filter(|(_, bar)| !bar.is_finished()) {
            bar.finish_and_clear();
        }
        self.head.set_style(still());
        self.head.set_prefix(mark(&text(run, "status")).to_string());
        self.head.finish_with_message(format!(
            "{}  {}",
            plain(&name_of_task(run)),
            end_words(run, now)
        ));
        // The last line is not ended yet.
        say(&format!("\n{}", outcome_words(run)));
    }
}

/// A line for each change.
#[derive(Default)]
struct Lines {
    run: String,
    steps: BTreeMap<String, (String, String)>,
}

impl View for Lines {
    fn look(&mut self, run: &Value, now: DateTime<Utc>) {
        say(&self.changes(run, now));
    }

    fn end(&mut self, run: &Value, _: DateTime<Utc>) {
        say(&outcome_words(run));
    }
}

impl Lines {
    /// A line for each thing that is not as it was at the last look.
    fn changes(&mut self, run: &Value, now: DateTime<Utc>) -> String {
        let clock = Zone::Here.clock_with_seconds(now);
        let mut lines = String::new();
        for step in latest(run) {
            let (status, attempt) = (text(step, "status"), text(step, "attempt"));
            let state = (status.clone(), attempt);
            if self.steps.insert(text(step, "path"), state.clone()).as_ref() != Some(&state) {
                let took = if status == "running" {
                    String::new()
                } else {
                    format!("  {}", took(step, now))
                };
                let _ = writeln!(lines, "{clock}  step {status:9}  {}{took}", words(step));
            }
        }
        let status = text(run, "status");
        if status != self.run {
            let words = if is_over(run) { end_words(run, now) } else { status.clone() };
            let _ = writeln!(lines, "{clock}  run  {words}");
            self.run = status;
        }
        lines
    }
}

/// Nothing, for programs: they get the run at its end.
struct Silence;

impl View for Silence {
    fn look(&mut self, _: &Value, _: DateTime<Utc>) {}
    fn end(&mut self, _: &Value, _: DateTime<Utc>) {}
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(path: &str, status: &str, attempt: u32) -> Value {
        json!({"path": path, "status": status, "attempt": attempt, "uses": "http.request"})
    }

    #[test]
    fn without_a_terminal_each_change_is_told_once() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        let mut lines = Lines::default();
        let mut look = |status: &str, steps: &[Value]| {
            let text = lines.changes(&json!({"status": status, "steps": steps}), now);
            console::strip_ansi_codes(&text)
                .lines()
                .map(|line| line[21..].to_owned())
                .collect::<Vec<_>>()
        };

        let first = look("running", &[step("a", "running", 1)]);
        let same = look("running", &[step("a", "running", 1)]);
        let retried = look("running", &[step("a", "failed", 1), step("a", "running", 2)]);
        let ended = look("succeeded", &[step("a", "failed", 1), step("a", "succeeded", 2)]);

        assert_eq!(first, ["step running    a  http.request", "run  running"]);
        assert_eq!(same, [""; 0]);
        assert_eq!(retried, ["step running    a  http.request  attempt 2"]);
        assert_eq!(ended, ["step succeeded  a  http.request  attempt 2  -", "run  succeeded"]);
    }
}
