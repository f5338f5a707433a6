//! What becomes of the times of one task that have come: a pure function from what is known to what
//! is to be written.
//!
//! A time seen within [`GRACE`] of its moment is on time and runs. An older one was missed, and the
//! task's `catch_up` policy decides; its run waits for its turn. Then `overlap` is looked at. Every
//! time gets exactly one disposition.

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::explain::{left_out, length};
use orchestrator_engine::id::{RunId, TaskId};
use orchestrator_engine::run::Trigger;
use orchestrator_engine::schedule::{Nominal, Schedule};
use orchestrator_engine::store::fire::{Decision, Disposition, DueTask, Occurrence};
use orchestrator_engine::store::queue::{Held, NewWork};
use orchestrator_engine::task::{CatchUp, Overlap, TaskSpec};

/// How long after its moment a time still counts as seen on time.
pub const GRACE: TimeDelta = TimeDelta::seconds(10);
/// The most times of one task that are looked at in one transaction; the rest follow in the next.
pub const TIMES_MAX: usize = 1_000;
/// The most missed times of one task that are caught up one by one.
pub const CATCH_UP_MAX: usize = 1_000;
/// The most runs of one task that wait for one another.
const WAITING_MAX: i64 = 1_000;

/// A revision of a task, ready to be asked.
pub struct Plan {
    /// What it declares.
    pub spec: TaskSpec,
    /// When it is due.
    pub schedule: Schedule,
}

/// The times of a task that have come, in order.
struct Come {
    times: Vec<Nominal>,
    /// There are more than were looked at.
    more: bool,
    /// The first time after those looked at.
    next: Option<DateTime<Utc>>,
}

/// Decides about every time of `task` after its cursor that has come by `now`. `new_run` draws run
/// ids.
pub fn decide(
    task: &DueTask,
    plan: &Plan,
    now: DateTime<Utc>,
    mut new_run: impl FnMut() -> RunId,
) -> Decision {
    let come = look(task, plan, now);
    let mut decision = Decision {
        task_id: task.id,
        revision: task.revision,
        cursor_at: come.times.last().map_or(task.cursor_at, |last| last.at),
        next_fire_at: come.next,
        fires: task.fires,
        occurrences: Vec::with_capacity(come.times.len()),
        work: Vec::new(),
        supersedes: false,
    };
    let limit = plan.spec.max_fires.map(|max| i32::try_from(max).unwrap_or(i32::MAX));
    let mut queue = Ahead { runs: task.in_flight, waiting: task.waiting };
    let verdicts = verdicts(task, plan, &come, now);
    for (nominal, verdict) in come.times.iter().zip(verdicts) {
        if limit.is_some_and(|limit| decision.fires >= limit) {
            decision.cursor_at = nominal.at;
            decision.next_fire_at = None;
            break;
        }
        let (place, caught_up) = match verdict {
            Verdict::Leave(disposition, reason) => {
                Occurrence::note(&mut decision.occurrences, nominal.at, disposition, reason);
                continue;
            }
            Verdict::Run(caught_up) => (queue.place(plan.spec.policy.overlap), caught_up),
        };
        if let Place::Refused(reason) = place {
            let reason = Some(reason.to_owned());
            Occurrence::note(
                &mut decision.occurrences,
                nominal.at,
                Disposition::SkippedOverlap,
                reason,
            );
            continue;
        }
        if place == Place::Replaces {
            replace(&mut decision);
        }
        let run_id = new_run();
        decision.fires += 1;
        settle_coalesced(&mut decision.occurrences, run_id);
        let held = match place {
            _ if caught_up.is_some() => Some(Held::CatchUp),
            Place::Free => None,
            _ => Some(Held::Overlap),
        };
        decision.occurrences.push(fired(nominal, run_id, caught_up));
        queue.runs += 1;
        queue.waiting += i64::from(held.is_some());
        decision.work.push(NewWork { held, ..work(task, plan, nominal, run_id, now) });
    }
    if limit.is_some_and(|limit| decision.fires >= limit) {
        decision.next_fire_at = None;
    }
    // Snoozed: whatever comes before that moment is looked at then.
    if let (Some(next), Some(until)) = (decision.next_fire_at, task.snoozed_until)
        && until > now
    {
        decision.next_fire_at = Some(next.max(until));
    }
    decision
}

/// What is to become of one time, before overlap is looked at.
enum Verdict {
    /// It runs; how it comes to that, where it is caught up.
    Run(Option<String>),
    Leave(Disposition, Option<String>),
}

/// The runs of the task that have not ended.
struct Ahead {
    runs: i64,
    /// Those of them that have not been let in.
    waiting: i64,
}

/// Where a new run of a task stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It may begin.
    Free,
    /// It begins when those before it have ended.
    Behind,
    /// Those before it are ended for it.
    Replaces,
    /// It is not made.
    Refused(&'static str),
}

impl Ahead {
    fn place(&self, overlap: Overlap) -> Place {
        match overlap {
            _ if self.runs == 0 => Place::Free,
            Overlap::Allow => Place::Free,
            Overlap::Skip => Place::Refused("the previous run had not ended"),
            Overlap::QueueOne if self.waiting > 0 => {
                Place::Refused("the previous run had not ended, and another waits for it already")
            }
            Overlap::QueueAll if self.waiting >= WAITING_MAX => {
                Place::Refused("the previous run had not ended, and 1,000 others wait for it")
            }
            Overlap::QueueOne | Overlap::QueueAll => Place::Behind,
            Overlap::CancelRunning => Place::Replaces,
        }
    }
}

/// Makes room for a run that takes the place of all before it: those of the database are canceled when
/// the decision is written, one of this decision is not made at all.
fn replace(decision: &mut Decision) {
    decision.supersedes = true;
    let Some(work) = decision.work.pop() else { return };
    decision.fires -= 1;
    for occurrence in &mut decision.occurrences {
        if occurrence.run_id != Some(work.run_id) {
            continue;
        }
        occurrence.run_id = None;
        if occurrence.disposition == Disposition::Fired {
            occurrence.disposition = Disposition::SkippedOverlap;
            occurrence.reason = Some("the next time came before its run began".to_owned());
        }
    }
}

fn look(task: &DueTask, plan: &Plan, now: DateTime<Utc>) -> Come {
    let mut times = Vec::new();
    let mut cursor = task.cursor_at;
    loop {
        match plan.schedule.next_after(cursor) {
            None => return Come { times, more: false, next: None },
            Some(nominal) if nominal.at > now => {
                return Come { times, more: false, next: Some(nominal.at) };
            }
            Some(nominal) if times.len() == TIMES_MAX => {
                return Come { times, more: true, next: Some(nominal.at) };
            }
            Some(nominal) => {
                cursor = nominal.at;
                times.push(nominal);
            }
        }
    }
}

fn verdicts(task: &DueTask, plan: &Plan, come: &Come, now: DateTime<Utc>) -> Vec<Verdict> {
    let policy = &plan.spec.policy;
    let window = TimeDelta::seconds(i64::from(policy.catch_up_window_seconds));
    // Times put off by a snooze come together when it ends: as old as that moment, and as one.
    let age = |at: DateTime<Utc>| now - task.snoozed_until.map_or(at, |until| until.max(at));
    let snoozed = |at: DateTime<Utc>| task.snoozed_until.is_some_and(|until| at < until);
    let last_snoozed =
        come.times.iter().rev().find(|one| one.fires() && snoozed(one.at)).map(|one| one.at);
    // With `latest`, the missed times stand behind the last of them, or behind one that is on time.
    let stands_for_missed = come
        .times
        .iter()
        .filter(|nominal| nominal.fires() && age(nominal.at) <= GRACE)
        .map(|nominal| nominal.at)
        .next()
        .or_else(|| come.times.iter().rev().find(|nominal| nominal.fires()).map(|one| one.at))
        .filter(|_| !come.more);

    // So many times were missed that only the latest are caught up.
    let too_many = (come.more && policy.catch_up == CatchUp::All)
        .then(|| latest(&plan.schedule, now - window, now, CATCH_UP_MAX));

    let absent = |at: DateTime<Utc>| {
        if task.resumed_at.is_some_and(|resumed| at < resumed) {
            "the task was paused at the time"
        } else {
            "nobody was there at the time"
        }
    };

    let verdict = |nominal: &Nominal| {
        let absent = absent(nominal.at);
        if let Some((disposition, reason)) = left_out(nominal) {
            return Verdict::Leave(disposition, Some(reason));
        }
        if snoozed(nominal.at) && Some(nominal.at) != last_snoozed {
            let reason = "it was snoozed; a later run stands for it".to_owned();
            return Verdict::Leave(Disposition::Coalesced, Some(reason));
        }
        let age = age(nominal.at);
        if age <= GRACE {
            return Verdict::Run(None);
        }
        if policy.catch_up == CatchUp::None {
            return Verdict::Leave(
                Disposition::SkippedTooOld,
                Some(format!("{absent}, and catch_up is none")),
            );
        }
        if age > window {
            return Verdict::Leave(
                Disposition::SkippedTooOld,
                Some(format!(
                    "{absent}, and it was seen later than catch_up_window_seconds ({})",
                    policy.catch_up_window_seconds
                )),
            );
        }
        if too_many.is_some_and(|from| nominal.at <= from) {
            return Verdict::Leave(
                Disposition::SkippedTooOld,
                Some(format!(
                    "{absent}, and of the times missed only the latest \
                     {CATCH_UP_MAX} are caught up"
                )),
            );
        }
        if policy.catch_up == CatchUp::All || Some(nominal.at) == stands_for_missed {
            return Verdict::Run(Some(format!(
                "{absent}; caught up {} later (catch_up {})",
                length(age),
                policy.catch_up
            )));
        }
        Verdict::Leave(Disposition::Coalesced, Some(format!("{absent}; a later run stands for it")))
    };
    come.times.iter().map(verdict).collect()
}

/// An instant after which at most `most` times come up to `now`, not before `from`.
fn latest(
    schedule: &Schedule,
    from: DateTime<Utc>,
    now: DateTime<Utc>,
    most: usize,
) -> DateTime<Utc> {
    let few = |after: DateTime<Utc>| {
        let first = schedule.next_after(after);
        std::iter::successors(first, |nominal| schedule.next_after(nominal.at))
            .take_while(|nominal| nominal.at <= now)
            .take(most + 1)
            .count()
            <= most
    };
    if few(from) {
        return from;
    }
    let (mut many, mut fits) = (from, now);
    while fits - many > TimeDelta::seconds(1) {
        let middle = many + (fits - many) / 2;
        if few(middle) {
            fits = middle;
        } else {
            many = middle;
        }
    }
    fits
}

fn fired(nominal: &Nominal, run_id: RunId, caught_up: Option<String>) -> Occurrence {
    let reasons: Vec<String> = [nominal.note.clone(), caught_up].into_iter().flatten().collect();
    Occurrence {
        nominal_at: nominal.at,
        disposition: Disposition::Fired,
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        run_id: Some(run_id),
        stretch: None,
    }
}

/// Points the coalesced times before a run to that run.
fn settle_coalesced(occurrences: &mut [Occurrence], run_id: RunId) {
    for occurrence in occurrences.iter_mut().rev() {
        if occurrence.disposition == Disposition::Coalesced && occurrence.run_id.is_none() {
            occurrence.run_id = Some(run_id);
        }
    }
}

fn work(
    task: &DueTask,
    plan: &Plan,
    nominal: &Nominal,
    run_id: RunId,
    now: DateTime<Utc>,
) -> NewWork {
    let start = nominal.at + jitter(task.id, plan, nominal.at);
    let of = (task.id, task.revision);
    NewWork {
        delay: (start - now).to_std().unwrap_or_default(),
        nominal_at: Some(nominal.at),
        ..NewWork::of_task(run_id, task.agent_id, of, &plan.spec, Trigger::Schedule, start)
    }
}

fn jitter(task: TaskId, plan: &Plan, nominal: DateTime<Utc>) -> TimeDelta {
    if plan.spec.policy.jitter_seconds == 0 {
        return TimeDelta::zero();
    }
    plan.schedule.jitter(task.0, nominal)
}
