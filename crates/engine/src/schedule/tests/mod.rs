//! What must stay true of whole schedules. Small parts are tested at the foot of their own files.

mod clock_changes;
mod clock_table;
mod cron;
mod laws;
mod oracle;
mod refusals;
mod rfc5545;
mod shapes;
mod vevent;

use chrono::{DateTime, Utc};

use super::{Schedule, ScheduleSpec};
use crate::problem::Problem;
use crate::task::{DstFold, DstGap, Policy, ScheduleKind};

/// When the tasks of these tests were created, unless they say otherwise.
const CREATED: &str = "2026-01-01T00:00:00Z";

pub(super) fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(super) fn spec(kind: ScheduleKind, expr: &str, zone: &str) -> ScheduleSpec {
    ScheduleSpec {
        kind,
        expr: expr.to_owned(),
        timezone: zone.to_owned(),
        starts_at: None,
        ends_at: None,
        max_fires: None,
        exclude: Vec::new(),
        policy: Policy::default(),
    }
}

pub(super) fn with_changes(
    kind: ScheduleKind,
    expr: &str,
    zone: &str,
    gap: DstGap,
    fold: DstFold,
) -> Schedule {
    let policy = Policy { dst_gap: gap, dst_fold: fold, ..Policy::default() };
    compiled(&ScheduleSpec { policy, ..spec(kind, expr, zone) })
}

pub(super) fn compiled(spec: &ScheduleSpec) -> Schedule {
    Schedule::compile(spec, instant(CREATED))
        .unwrap_or_else(|problems| panic!("{}: {problems:?}", spec.expr))
}

pub(super) fn problems(spec: &ScheduleSpec) -> Vec<Problem> {
    match Schedule::compile(spec, instant(CREATED)) {
        Ok(schedule) => panic!("{} was taken: {}", spec.expr, schedule.summary()),
        Err(problems) => problems,
    }
}

/// The first `count` fires from `from` on, in local time with offset.
pub(super) fn fires(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
    let preview = schedule.preview(instant(from), count, 0);
    preview.fires.into_iter().map(|fire| fire.local).collect()
}
