//! What became of every run: what the record says held against what the receiver saw.
//!
//! [`judge`] is pure: it is given everything that is known and says what is wrong.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::receiver::Call;
use crate::tasks::{KEY_LIMIT, KEYED, QUICK, SERIAL, STEP_RETRIED, steps_of};

/// A run, as the API tells of it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// Its task, by name.
    pub task: String,
    /// Its status.
    pub status: String,
    /// How many attempts the record shows.
    pub attempt: i64,
    /// The attempt whose call gave the output.
    pub answered: Option<i64>,
    /// The records of its steps.
    pub steps: Vec<Step>,
}

/// A record of a try of a step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which step.
    pub path: String,
    /// Its status.
    pub status: String,
    /// Why it failed.
    pub error_kind: Option<String>,
}

/// What became of the times of a task with a schedule.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The task, by name.
    pub task: String,
    /// Times from the first to the last that has come.
    pub times: i64,
    /// How many of them have a disposition.
    pub decided: i64,
    /// How many of them made a run.
    pub fired: i64,
}

/// Everything that is known when the queue is empty, or was waited for in vain.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Runs that the API accepted: the task and the id.
    pub accepted: Vec<(&'static str, Uuid)>,
    /// Events that the API accepted.
    pub events: HashSet<Uuid>,
    /// Events that the database holds, with the runs they started.
    pub started: HashMap<Uuid, Vec<Uuid>>,
    /// Runs that have finished.
    pub runs: Vec<Run>,
    /// Runs that are still in the queue.
    pub left: i64,
    /// When each run was written down as finished, once for each time that it was.
    pub finishes: Vec<(Uuid, DateTime<Utc>)>,
    /// What the schedules did.
    pub ledgers: Vec<Ledger>,
    /// What the receiver saw.
    pub calls: Vec<Call>,
}

/// What was counted. Everything that is wrong counts into a field that should be 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Runs and events that the API accepted.
    pub accepted: usize,
    /// Runs that finished, those of events and schedules with them.
    pub finished: usize,
    /// Calls that the receiver saw.
    pub calls: usize,
    /// Calls whose caller was gone before the answer.
    pub calls_cut_off: usize,
    /// Attempts that the records show beyond the first of each run.
    pub further_attempts: i64,
    /// Calls beyond those that the records explain, over all steps; each step may have one.
    pub calls_unexplained: usize,

    /// Accepted, and not to be found, or not finished.
    pub lost: usize,
    /// Written down as finished more than once, or more runs than were asked for.
    pub twice: usize,
    /// Finished, but not as succeeded.
    pub not_succeeded: usize,
    /// Succeeded with a step that has no record of success, or no answered call.
    pub not_done: usize,
    /// Ended with the result of an attempt that was no longer the run's.
    pub stale: usize,
    /// Steps that were called more often than their records explain and once more.
    pub called_too_often: usize,
    /// The most runs of the concurrency key that had a call on at once; at most `KEY_LIMIT`.
    pub key_at_once: usize,
    /// The most runs of a task whose runs go one at a time that had a call on at once; at most 1.
    pub serial_at_once: usize,
    /// Times of a schedule without a disposition, or fired without their run.
    pub times_undecided: i64,
}

/// Holds it against each other.
#[must_use]
pub fn judge(known: &Known) -> Figures {
    let by_id: HashMap<Uuid, &Run> = known.runs.iter().map(|run| (run.id, run)).collect();
    let mut finished_at: HashMap<Uuid, DateTime<Utc>> = HashMap::new();
    for (run, at) in &known.finishes {
        let first = finished_at.entry(*run).or_insert(*at);
        *first = (*first).min(*at);
    }
    let mut calls: HashMap<(Uuid, &str), Vec<&Call>> = HashMap::new();
    for call in &known.calls {
        calls.entry((call.run, call.step.as_str())).or_default().push(call);
    }
    let mut figures = Figures {
        accepted: known.accepted.len() + known.events.len(),
        finished: known.runs.len(),
        calls: known.calls.len(),
        calls_cut_off: known.calls.iter().filter(|call| call.status.is_none()).count(),
        further_attempts: known.runs.iter().map(|run| run.attempt - 1).sum(),
        lost: lost(known, &by_id),
        twice: known.finishes.len() - finished_at.len() + unasked(known),
        key_at_once: at_once(known, KEYED, &finished_at),
        serial_at_once: SERIAL
            .iter()
            .map(|task| at_once(known, task, &finished_at))
            .max()
            .unwrap_or_default(),
        times_undecided: undecided(known),
        ..Figures::default()
    };
    for run in &known.runs {
        figures.not_succeeded += usize::from(run.status != "succeeded");
        figures.stale +=
            usize::from(run.status == "succeeded" && run.answered != Some(run.attempt));
        let paths: HashSet<&str> = run.steps.iter().map(|step| step.path.as_str()).collect();
        figures.not_done +=
            usize::from(run.status == "succeeded" && paths.len() != steps_of(&run.task));
        for path in paths {
            let of_step = calls.get(&(run.id, path)).map_or(&[][..], Vec::as_slice);
            let has_succeeded =
                run.steps.iter().any(|step| step.path == path && step.status == "succeeded");
            let was_answered =
                run.task == QUICK || of_step.iter().any(|call| call.status == Some(200));
            figures.not_done +=
                usize::from(run.status == "succeeded" && !(has_succeeded && was_answered));
            let unexplained = of_step.len().saturating_sub(explained(run, path));
            figures.calls_unexplained += unexplained;
            figures.called_too_often += usize::from(unexplained > 1);
        }
    }
    figures
}

/// How many calls of a step the record explains: one for each attempt of the run, and one for each
/// failed try of a step that tries again by itself, because those tries use up no attempt.
fn explained(run: &Run, path: &str) -> usize {
    let own_tries = run
        .steps
        .iter()
        .filter(|step| {
            run.task == STEP_RETRIED
                && step.path == path
                && step.status == "failed"
                && step.error_kind.as_deref() != Some("lease_lost")
        })
        .count();
    usize::try_from(run.attempt).unwrap_or_default() + own_tries
}

fn lost(known: &Known, by_id: &HashMap<Uuid, &Run>) -> usize {
    let runs = known.accepted.iter().filter(|(_, id)| !by_id.contains_key(id)).count();
    let of_events = |event: &Uuid| known.started.get(event).map_or(&[][..], Vec::as_slice);
    let events = known
        .events
        .iter()
        .filter(|event| !of_events(event).iter().any(|run| by_id.contains_key(run)))
        .count();
    runs + events
}

/// Runs that nobody asked for: two requests answered with one run, or one that made two.
fn unasked(known: &Known) -> usize {
    let asked: HashSet<Uuid> = known.accepted.iter().map(|(_, id)| *id).collect();
    let shared = known.accepted.len() - asked.len();
    let of_events: usize = known.started.values().map(Vec::len).sum();
    let events_twice = of_events.saturating_sub(known.events.len());
    let fired: i64 = known.ledgers.iter().map(|ledger| ledger.fired).sum();
    let expected = asked.len() + of_events + usize::try_from(fired).unwrap_or_default();
    let there = known.runs.len() + usize::try_from(known.left).unwrap_or_default();
    shared + events_twice + there.saturating_sub(expected)
}

fn undecided(known: &Known) -> i64 {
    let mut runs: BTreeMap<&str, i64> = BTreeMap::new();
    for run in &known.runs {
        *runs.entry(&run.task).or_default() += 1;
    }
    known
        .ledgers
        .iter()
        .map(|ledger| {
            let there = runs.get(ledger.task.as_str()).copied().unwrap_or_default();
            (ledger.times - ledger.decided).abs() + (ledger.fired - there).abs()
        })
        .sum()
}

/// The most runs of `task` that had a call on at once.
///
/// Runs are counted and not calls: a worker that was paused and its successor may both call for one
/// run, which has one place. And a call counts only until its run is written down as finished: what
/// comes later is from a worker that does not know yet that it has lost the run.
fn at_once(known: &Known, task: &str, finished_at: &HashMap<Uuid, DateTime<Utc>>) -> usize {
    let mut changes: Vec<(DateTime<Utc>, bool, Uuid)> = Vec::new();
    for call in known.calls.iter().filter(|call| call.task == task) {
        let finished = finished_at.get(&call.run).copied().unwrap_or(DateTime::<Utc>::MAX_UTC);
        let ended = call.ended.unwrap_or(DateTime::<Utc>::MAX_UTC).min(finished);
        if call.began < ended {
            changes.push((call.began, true, call.run));
            changes.push((ended, false, call.run));
        }
    }
    changes.sort_unstable(); // at the same instant, ends go before beginnings
    let mut on: HashMap<Uuid, usize> = HashMap::new();
    let mut most = 0;
    for (_, begins, run) in changes {
        let calls = on.entry(run).or_default();
        if begins {
            *calls += 1;
        } else {
            *calls -= 1;
        }
        if *calls == 0 {
            on.remove(&run);
        }
        most = most.max(on.len());
    }
    most
}

impl Figures {
    /// What is wrong, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let zero = [
            (self.lost, "accepted runs or events were lost"),
            (self.twice, "runs were finished twice, or made without being asked for"),
            (self.not_succeeded, "runs did not succeed"),
            (self.not_done, "steps are recorded as done and were not, or the other way round"),
            (self.stale, "runs ended with the result of an attempt that had lost them"),
            (self.called_too_often, "steps were called more than once more than recorded"),
            (self.key_at_once.saturating_sub(KEY_LIMIT), "runs too many of a key were on at once"),
            (self.serial_at_once.saturating_sub(1), "runs too many of a serial task were on"),
            (
                usize::try_from(self.times_undecided).unwrap_or(usize::MAX),
                "times of schedules were left out, or fired without their run",
            ),
        ];
        zero.iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(ms)
    }

    fn call(task: &str, run: Uuid, attempt: i64, began: i64, ended: i64) -> Call {
        Call {
            task: task.to_owned(),
            run,
            step: "call-1".to_owned(),
            attempt,
            began: at(began),
            ended: Some(at(ended)),
            status: Some(200),
        }
    }

    /// A run of `task` that succeeded in its first attempt at 100 ms.
    fn fine(task: &'static str) -> (Known, Uuid) {
        let id = Uuid::new_v4();
        let step =
            Step { path: "call-1".to_owned(), status: "succeeded".to_owned(), error_kind: None };
        let run = Run {
            id,
            task: task.to_owned(),
            status: "succeeded".to_owned(),
            attempt: 1,
            answered: Some(1),
            steps: vec![step],
        };
        let known = Known {
            accepted: vec![(task, id)],
            runs: vec![run],
            finishes: vec![(id, at(100))],
            calls: vec![call(task, id, 1, 0, 50)],
            ..Known::default()
        };
        (known, id)
    }

    #[test]
    fn nothing_is_wrong_with_a_run_that_was_done_once() {
        let (known, _) = fine("plain");

        assert_eq!(judge(&known).problems(), Vec::<String>::new());
    }

    #[test]
    fn an_accepted_run_or_event_that_is_not_there_is_lost() {
        let (mut known, _) = fine("plain");
        known.accepted.push(("plain", Uuid::new_v4()));
        known.events.insert(Uuid::new_v4());

        assert_eq!(judge(&known).lost, 2);
    }

    #[test]
    fn a_second_finish_a_second_run_and_a_shared_run_count_as_twice() {
        let (mut again, id) = fine("plain");
        again.finishes.push((id, at(120)));
        let (mut more, _) = fine("plain");
        more.runs.push(Run { id: Uuid::new_v4(), ..more.runs[0].clone() });
        let (mut shared, id) = fine("plain");
        shared.accepted.push(("plain", id));

        for known in [again, more, shared] {
            assert_eq!(judge(&known).twice, 1);
        }
    }

    #[test]
    fn the_result_of_an_earlier_attempt_is_stale() {
        let (mut known, _) = fine("plain");
        known.runs[0].attempt = 2;

        assert_eq!(judge(&known).stale, 1);
    }

    #[test]
    fn a_step_may_be_called_once_more_than_the_record_explains_and_not_twice() {
        let (mut known, id) = fine("plain");
        known.calls.push(call("plain", id, 1, 60, 70));
        let once_more = judge(&known);
        known.calls.push(call("plain", id, 1, 80, 90));
        let twice_more = judge(&known);

        assert_eq!((once_more.calls_unexplained, once_more.called_too_often), (1, 0));
        assert_eq!((twice_more.calls_unexplained, twice_more.called_too_often), (2, 1));
    }

    #[test]
    fn a_recorded_step_without_an_answered_call_was_not_done() {
        let (mut known, _) = fine("plain");
        known.calls[0].status = None;

        assert_eq!(judge(&known).not_done, 1);
    }

    #[test]
    fn runs_on_at_once_are_counted_until_they_have_finished() {
        let (mut known, first) = fine(SERIAL[0]);
        let second = Uuid::new_v4();
        // Of the first run, from a worker that woke up too late: it does not count.
        known.calls.push(call(SERIAL[0], first, 1, 110, 160));
        known.calls.push(call(SERIAL[0], second, 1, 105, 155));
        let one = judge(&known).serial_at_once;
        // While the first was on: it counts.
        known.calls.push(call(SERIAL[0], second, 1, 40, 60));
        let two = judge(&known).serial_at_once;

        assert_eq!((one, two), (1, 2));
    }

    #[test]
    fn a_time_without_a_disposition_and_one_without_its_run_are_told() {
        let (mut known, _) = fine("plain");
        let ledger = Ledger { task: SERIAL[0].to_owned(), times: 10, decided: 9, fired: 1 };
        known.ledgers.push(ledger);

        assert_eq!(judge(&known).times_undecided, 2);
    }
}
