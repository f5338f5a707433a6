//! Why a task did or did not run at some time: one plain sentence, and the facts it is made of.
//!
//! Pure: who asks gathers the [`Facts`] from the ledger, the schedule of the revision that was in
//! force, and the run.

use chrono::{DateTime, TimeDelta, Utc};

use crate::run::RunStatus;
use crate::schedule::{Nominal, NominalKind, Schedule};
use crate::store::fire::Disposition;
use crate::store::ledger::LedgerRow;
use crate::store::queue::Held;
use crate::store::run::RunRow;
use crate::store::task::TaskRow;
use crate::task::TaskStatus;

/// What is known about a time of a task.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The task as it is now.
    pub task: &'a TaskRow,
    /// The schedule that was in force at `at`; for a time to come, that is in force now.
    pub schedule: &'a Schedule,
    /// The time that is asked about, in whole seconds.
    pub at: DateTime<Utc>,
    /// The present.
    pub now: DateTime<Utc>,
    /// The row of the ledger that reaches `at`.
    pub row: Option<&'a LedgerRow>,
    /// The run that the row names.
    pub run: Option<&'a RunRow>,
    /// How often the task is to have fired before `at`, counted only for times to come.
    pub fires_before: i64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The disposition in the ledger, or `planned`, `undecided`, `not_due`, `not_followed`.
    pub verdict: String,
    /// One plain sentence, or a few.
    pub answer: String,
}

/// Why the task did, did not, will or will not run at that time.
#[must_use]
pub fn explain(facts: &Facts<'_>) -> Explanation {
    let named = facts.schedule.names(facts.at);
    let recorded = facts.row.filter(|row| row.nominal_at == facts.at || named.is_some());
    let (verdict, answer) = match (recorded, &named) {
        (Some(row), _) => (row.disposition.clone(), past(facts, row)),
        (None, _) if facts.at < facts.task.created_at => (
            "not_followed".to_owned(),
            format!(
                "The task did not exist then: it was made at {}.",
                facts.local(facts.task.created_at)
            ),
        ),
        (None, None) => ("not_due".to_owned(), not_due(facts)),
        (None, Some(nominal)) if facts.at > facts.now => future(facts, nominal),
        (None, Some(nominal)) => unrecorded(facts, nominal),
    };
    Explanation { verdict, answer }
}

impl Facts<'_> {
    fn local(&self, at: DateTime<Utc>) -> String {
        self.schedule.local(at)
    }
}

/// A time that the ledger knows.
fn past(facts: &Facts<'_>, row: &LedgerRow) -> String {
    let run = row.run_id.map(|id| format!("run {id}")).unwrap_or_default();
    let because = row.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut answer = match row.disposition.parse() {
        Ok(Disposition::Fired) => {
            let note = row.reason.as_ref().map(|reason| format!(" {}.", capital(reason)));
            format!("{}{}", ran(facts, &run), note.unwrap_or_default())
        }
        Ok(Disposition::Backfilled) => format!("{} It was made later{because}.", ran(facts, &run)),
        Ok(Disposition::Coalesced) if row.run_id.is_some() => {
            format!("It has no run of its own, {run} stands for it{because}.")
        }
        Ok(Disposition::SkippedDuplicate) => {
            format!("It did not run again, {run} stands for it{because}.")
        }
        _ if row.reason.is_some() => format!("It did not run{because}."),
        Ok(Disposition::SkippedPaused) => "It did not run: the task was paused.".to_owned(),
        _ => format!("It did not run ({}).", row.disposition),
    };
    if let Some(until) = row.until_at {
        let (first, last) = (facts.local(row.nominal_at), facts.local(until));
        answer = format!("{answer} The same holds for {} times from {first} to {last}.", row.count);
    }
    answer
}

/// What became of the run that was made.
fn ran(facts: &Facts<'_>, name: &str) -> String {
    let Some(run) = facts.run else {
        return format!("It ran as {name}, whose record has been removed since (RETENTION_DAYS).");
    };
    let began = run.started_at.map(|at| after(at - facts.at)).unwrap_or_default();
    let said = run.error.as_ref().and_then(|error| error.get("message")?.as_str());
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    match run.status {
        RunStatus::Queued => match run.waits_for {
            Some(Held::Overlap) => {
                format!("It has {name}, which waits until the run of the task before it has ended.")
            }
            Some(Held::CatchUp) => format!(
                "It has {name}, which waits for its turn: missed runs begin at CATCH_UP_RATE a second."
            ),
            Some(Held::Concurrency) => format!(
                "It has {name}, which waits for a free place among the runs of its concurrency_key."
            ),
            Some(Held::Rate) => {
                format!("It has {name}, which waits for its turn by the rate_limit of its task.")
            }
            None if run.run_at.is_some_and(|at| at > facts.now) => {
                format!(
                    "It has {name}, which is not to begin yet{}.",
                    if said.is_empty() {
                        String::new()
                    } else {
                        format!("; its last attempt failed{said}")
                    }
                )
            }
            None => format!("It has {name}, which no worker has begun yet."),
        },
        RunStatus::Running | RunStatus::Waiting => {
            format!("It runs as {name}, which began {began} and has not ended.")
        }
        RunStatus::Succeeded => format!("It ran: {name} began {began} and succeeded."),
        RunStatus::Failed => format!("It ran: {name} began {began} and failed{said}."),
        RunStatus::Canceled if run.started_at.is_none() => {
            format!("Its {name} was canceled before it began{said}.")
        }
        RunStatus::Canceled => format!("It ran: {name} began {began} and was canceled{said}."),
        RunStatus::Expired => format!("Its {name} was not begun in time and expired{said}."),
    }
}

/// A time that the schedule does not name.
fn not_due(facts: &Facts<'_>) -> String {
    let (schedule, at) = (facts.schedule, facts.at);
    let mut answer = format!(
        "The schedule does not name {}: it is due {}.",
        facts.local(at),
        schedule.summary()
    );
    let before = schedule.last_before(at, facts.task.created_at);
    let next = schedule.next_after(at);
    let sentence = match (before, next) {
        (Some(before), Some(next)) => {
            format!(
                " The times around it are {} and {}.",
                facts.local(before.at),
                facts.local(next.at)
            )
        }
        (None, Some(next)) => format!(" The next time after it is {}.", facts.local(next.at)),
        (Some(before), None) => format!(" Its last time is {}.", facts.local(before.at)),
        (None, None) => String::new(),
    };
    answer += &sentence;
    answer
}

/// A time to come that the schedule names.
fn future(facts: &Facts<'_>, nominal: &Nominal) -> (String, String) {
    let task = facts.task;
    let no = |answer: String| ("not_followed".to_owned(), answer);
    match task.status {
        TaskStatus::Canceled => return no("It will not run: the task is canceled.".to_owned()),
        TaskStatus::Completed => return no("It will not run: the task is completed.".to_owned()),
        TaskStatus::Paused => return no(paused(facts)),
        TaskStatus::Active => {}
    }
    if task.spec.max_fires.is_some_and(|max| facts.fires_before >= i64::from(max)) {
        return no(format!(
            "It will not run: by then the task has fired the {} times that max_fires allows.",
            task.spec.max_fires.unwrap_or_default()
        ));
    }
    if let Some(until) = task.snoozed_until.filter(|until| *until > facts.at) {
        return no(format!(
            "It will have no run of its own: the task is snoozed until {}, and one run then stands for \
             every time that has come.",
            facts.local(until)
        ));
    }
    if let Some((disposition, reason)) = left_out(nominal) {
        return (disposition.to_string(), format!("It will not run: {reason}."));
    }
    let note = nominal.note.as_ref().map(|note| format!(" {}.", capital(note)));
    (
        "planned".to_owned(),
        format!("It is planned: due {}.{}", facts.schedule.summary(), note.unwrap_or_default()),
    )
}

/// What the schedule itself says of a time that it names and that does not fire, and why; `None`: it fires.
/// The ledger is told with the next time that does, or with the next change of the task.
#[must_use]
pub fn left_out(nominal: &Nominal) -> Option<(Disposition, String)> {
    match &nominal.kind {
        NominalKind::Fire => None,
        NominalKind::Excluded { reason } => Some((Disposition::SkippedExcluded, reason.clone())),
        NominalKind::DroppedByDst => {
            Some((Disposition::SkippedDst, nominal.note.clone().unwrap_or_default()))
        }
    }
}

fn paused(facts: &Facts<'_>) -> String {
    let task = facts.task;
    let who = task.paused_by.as_ref().map(|who| format!(" by {who}")).unwrap_or_default();
    let why = task.pause_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let since = task.paused_at.map(|at| format!(" since {}", facts.local(at))).unwrap_or_default();
    format!("It will run only if the task is resumed before: it is paused{since}{who}{why}.")
}

/// A time that has come, that the schedule names, and that the ledger does not know.
fn unrecorded(facts: &Facts<'_>, nominal: &Nominal) -> (String, String) {
    let task = facts.task;
    let is_over = matches!(task.status, TaskStatus::Canceled | TaskStatus::Completed);
    if facts.at > task.cursor_at
        && !(is_over && facts.at > task.updated_at)
        && let Some((disposition, reason)) = left_out(nominal)
    {
        return (disposition.to_string(), format!("It did not run: {reason}."));
    }
    let undecided = |answer: String| ("undecided".to_owned(), answer);
    if facts.at > task.cursor_at {
        match task.status {
            TaskStatus::Active if task.snoozed_until.is_some_and(|until| until > facts.now) => {
                let until = task.snoozed_until.map(|until| facts.local(until)).unwrap_or_default();
                return undecided(format!("It was put off: the task is snoozed until {until}."));
            }
            TaskStatus::Active => {
                let late = after(facts.now - facts.at);
                return undecided(format!(
                    "Its time came{} and no scheduler has dealt with it yet; is one running? (\
                     orchestrator doctor, GET /health)",
                    late.strip_suffix(" after its time")
                        .map_or(String::new(), |late| format!(" {late} ago")),
                ));
            }
            TaskStatus::Paused => {
                let since = task.paused_at.map(|at| facts.local(at)).unwrap_or_default();
                return undecided(format!(
                    "It did not run: the task is paused since {since}{}. What becomes of the time is \
                     written when the task is resumed.",
                    task.pause_reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
                ));
            }
            over => {
                return (
                    "not_followed".to_owned(),
                    format!(
                        "It did not run: the task was {over}, at {}.",
                        facts.local(task.updated_at)
                    ),
                );
            }
        }
    }
    (
        "not_followed".to_owned(),
        "It did not run: the schedule of that revision names the time, but was not followed then; \
         it was made or changed later, or the record has been removed since."
            .to_owned(),
    )
}

/// "0.012 s after its time".
fn after(late: TimeDelta) -> String {
    let seconds = late.as_seconds_f64();
    if seconds < 0.0 {
        "before its time".to_owned()
    } else if seconds < 10.0 {
        format!("{seconds:.3} s after its time")
    } else {
        format!("{} after its time", length(late))
    }
}

/// A length in its two largest units: "3 min 20 s".
#[must_use]
pub fn length(length: TimeDelta) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let parts: Vec<String> = units
        .iter()
        .scan(length.num_seconds().max(0), |rest, (size, unit)| {
            let count = *rest / size;
            *rest %= size;
            Some((count, unit))
        })
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_told_in_its_two_largest_units() {
        for (seconds, words) in
            [(0, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (7_200, "2 h"), (90_061, "1 d 1 h")]
        {
            assert_eq!(length(TimeDelta::seconds(seconds)), words);
        }
    }
}
