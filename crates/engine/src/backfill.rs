//! Making up for times that have passed: which of them get a run, and what that does to the ledger.
//!
//! Pure: who asks reads the ledger and writes what comes out, while it holds the task.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::id::RunId;
use crate::schedule::{NominalKind, Schedule};
use crate::store::fire::{Disposition, Occurrence};
use crate::store::ledger::LedgerRow;

/// The most runs of one backfill.
pub const RUNS_MAX: usize = 1_000;
/// The most times of the schedule that one backfill looks at.
pub const TIMES_MAX: usize = 10_000;
/// The longest stretch of the ledger that is taken apart.
pub const STRETCH_MAX: i32 = 100_000;

/// A row of the ledger, and the schedule of the revision that decided it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The row.
    pub row: &'a LedgerRow,
    /// The revision.
    pub revision: i32,
    /// Its schedule; `None` where this version cannot follow it.
    pub schedule: Option<&'a Schedule>,
}

impl Known<'_> {
    fn holds(&self, at: DateTime<Utc>) -> bool {
        self.row.nominal_at == at
            || (self.row.nominal_at < at
                && self.row.until_at.is_some_and(|until| at <= until)
                && self.schedule.is_some_and(|schedule| schedule.names(at).is_some()))
    }
}

/// What a backfill does about one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gets a run; what the ledger said of it so far.
    Run(Option<String>),
    /// It is left as it is, and why.
    Leave(String),
}

/// One time of the range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The nominal time.
    pub at: DateTime<Utc>,
    /// What is done about it.
    pub fate: Fate,
}

/// What becomes of every time that `schedule` names from `from` on and before `to`. Times after
/// `decided_to` are the scheduler's to decide.
///
/// # Errors
///
/// A sentence, when the range holds more than [`RUNS_MAX`] times to run or [`TIMES_MAX`] in all.
pub fn plan(
    schedule: &Schedule,
    known: &[Known<'_>],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    decided_to: DateTime<Utc>,
) -> Result<Vec<Planned>, String> {
    let mut planned = Vec::new();
    let mut runs = 0;
    let mut after = from - TimeDelta::seconds(1);
    while let Some(nominal) = schedule.next_after(after).filter(|nominal| nominal.at < to) {
        after = nominal.at;
        if nominal.at < from {
            continue; // `from` lies within a second
        }
        if planned.len() == TIMES_MAX {
            return Err(format!(
                "the range holds more than {TIMES_MAX} times of the schedule; take a shorter one"
            ));
        }
        let fate = match nominal.kind {
            NominalKind::Excluded { reason } => Fate::Leave(reason),
            NominalKind::DroppedByDst => Fate::Leave(nominal.note.unwrap_or_default()),
            NominalKind::Fire => fate(known, nominal.at, decided_to),
        };
        runs += usize::from(matches!(fate, Fate::Run(_)));
        if runs > RUNS_MAX {
            return Err(format!(
                "more than {RUNS_MAX} runs would be made; take a shorter range, and then the next"
            ));
        }
        planned.push(Planned { at: nominal.at, fate });
    }
    Ok(planned)
}

fn fate(known: &[Known<'_>], at: DateTime<Utc>, decided_to: DateTime<Utc>) -> Fate {
    let Some(found) = known.iter().rev().find(|known| known.holds(at)) else {
        if at > decided_to {
            return Fate::Leave("the scheduler has not dealt with it yet".to_owned());
        }
        return Fate::Run(None);
    };
    let run = || found.row.run_id.map(|run| format!(" (run {run})")).unwrap_or_default();
    match found.row.disposition.parse() {
        Ok(Disposition::Fired) => Fate::Leave(format!("it ran at the time{}", run())),
        Ok(Disposition::Backfilled) => Fate::Leave(format!("it was made up for before{}", run())),
        Ok(Disposition::SkippedExcluded | Disposition::SkippedDst) => {
            Fate::Leave(found.row.reason.clone().unwrap_or_else(|| found.row.disposition.clone()))
        }
        _ => Fate::Run(Some(match &found.row.reason {
            Some(reason) => format!("{}: {reason}", found.row.disposition),
            None => found.row.disposition.clone(),
        })),
    }
}

/// How the ledger changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerChange {
    /// Rows that go, by where they begin.
    pub removed: Vec<DateTime<Utc>>,
    /// Rows that come, with the revision that decided each.
    pub added: Vec<(Occurrence, i32)>,
}

/// The ledger's change when the times `runs` get these runs under `revision`: each is `backfilled`;
/// a stretch that holds some of them is taken apart around them.
///
/// # Errors
///
/// A sentence, when a stretch is longer than [`STRETCH_MAX`].
pub fn change(
    known: &[Known<'_>],
    runs: &BTreeMap<DateTime<Utc>, (RunId, String)>,
    revision: i32,
) -> Result<LedgerChange, String> {
    let mut change = LedgerChange::default();
    for (at, (run_id, reason)) in runs {
        let row = Occurrence {
            nominal_at: *at,
            disposition: Disposition::Backfilled,
            reason: Some(reason.clone()),
            run_id: Some(*run_id),
            stretch: None,
        };
        change.added.push((row, revision));
    }
    for found in known {
        let until = found.row.until_at.unwrap_or(found.row.nominal_at);
        if !runs.range(found.row.nominal_at..=until).any(|(at, _)| found.holds(*at)) {
            continue;
        }
        change.removed.push(found.row.nominal_at);
        if let (Some(until), Some(schedule)) = (found.row.until_at, found.schedule) {
            if found.row.count > STRETCH_MAX {
                return Err(format!(
                    "the ledger keeps {} times from {} to {until} as one; more than {STRETCH_MAX} \
                     cannot be taken apart",
                    found.row.count, found.row.nominal_at
                ));
            }
            let rest = rest_of(found, schedule, until, runs);
            change.added.extend(rest.into_iter().map(|row| (row, found.revision)));
        }
    }
    Ok(change)
}

/// What is left of a stretch when the times in `runs` are taken out.
fn rest_of(
    stretch: &Known<'_>,
    schedule: &Schedule,
    until: DateTime<Utc>,
    runs: &BTreeMap<DateTime<Utc>, (RunId, String)>,
) -> Vec<Occurrence> {
    let Ok(disposition) = stretch.row.disposition.parse() else { return Vec::new() };
    let times = std::iter::successors(Some(stretch.row.nominal_at), |at| {
        schedule.next_after(*at).map(|nominal| nominal.at).filter(|at| *at <= until)
    });
    let mut left: Vec<Occurrence> = Vec::new();
    let mut open = false;
    for at in times {
        if runs.contains_key(&at) {
            open = false;
            continue;
        }
        match left.last_mut().filter(|_| open) {
            Some(row) => {
                let count = row.stretch.map_or(1, |(_, count)| count);
                row.stretch = Some((at, count + 1));
            }
            None => left.push(Occurrence {
                nominal_at: at,
                disposition,
                reason: stretch.row.reason.clone(),
                run_id: stretch.row.run_id,
                stretch: None,
            }),
        }
        open = true;
    }
    left
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::schedule::ScheduleSpec;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn hourly() -> Schedule {
        let spec: ScheduleSpec = serde_json::from_value(serde_json::json!({
            "schedule_kind": "cron", "schedule_expr": "0 * * * *", "exclude": ["2026-03-02"],
        }))
        .unwrap();
        Schedule::compile(&spec, at("2026-01-01T00:00:00Z")).unwrap()
    }

    fn row(nominal: &str, disposition: &str, until: Option<(&str, i32)>) -> LedgerRow {
        LedgerRow {
            nominal_at: at(nominal),
            disposition: disposition.to_owned(),
            reason: None,
            run_id: None,
            until_at: until.map(|(until, _)| at(until)),
            count: until.map_or(1, |(_, count)| count),
        }
    }

    #[test]
    fn only_times_that_did_not_run_and_were_to_run_get_one() {
        let schedule = hourly();
        let rows = [
            row("2026-03-01T20:00:00Z", "fired", None),
            row("2026-03-01T21:00:00Z", "skipped_too_old", Some(("2026-03-01T23:00:00Z", 3))),
            row("2026-03-02T00:00:00Z", "skipped_excluded", None),
        ];
        let known =
            rows.each_ref().map(|row| Known { row, revision: 1, schedule: Some(&schedule) });

        let planned = plan(
            &schedule,
            &known,
            at("2026-03-01T19:00:00Z"),
            at("2026-03-02T01:00:00Z"),
            at("2026-03-02T00:30:00Z"),
        )
        .unwrap();

        let runs: Vec<_> = planned.iter().map(|one| matches!(one.fate, Fate::Run(_))).collect();
        assert_eq!(runs, [true, false, true, true, true, false]);
    }

    #[test]
    fn a_stretch_is_taken_apart_around_what_was_made_up_for() {
        let schedule = hourly();
        let stretch =
            row("2026-03-01T01:00:00Z", "skipped_paused", Some(("2026-03-01T08:00:00Z", 8)));
        let known = [Known { row: &stretch, revision: 1, schedule: Some(&schedule) }];
        let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
        let mut run = || (RunId::new(at("2026-03-03T00:00:00Z"), &mut rng), "asked".to_owned());
        let runs = BTreeMap::from([
            (at("2026-03-01T03:00:00Z"), run()),
            (at("2026-03-01T04:00:00Z"), run()),
        ]);

        let change = change(&known, &runs, 2).unwrap();

        assert_eq!(change.removed, [at("2026-03-01T01:00:00Z")]);
        let shape: Vec<_> = change
            .added
            .iter()
            .map(|(row, revision)| {
                (row.nominal_at.format("%H").to_string(), row.stretch.map_or(1, |s| s.1), *revision)
            })
            .collect();
        let wanted = [("03", 1, 2), ("04", 1, 2), ("01", 2, 1), ("05", 4, 1)]
            .map(|(h, n, r)| (h.to_owned(), n, r));
        assert_eq!(shape, wanted);
    }

    #[test]
    fn too_many_runs_are_refused_with_what_to_do() {
        let refused = plan(
            &hourly(),
            &[],
            at("2025-01-01T00:00:00Z"),
            at("2026-01-01T00:00:00Z"),
            at("2026-01-01T00:00:00Z"),
        );
        assert!(refused.unwrap_err().contains("shorter range"));
    }
}
