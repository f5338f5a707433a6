//! From local times to instants: schedules on the wall clock, clock changes included.
//!
//! Around a clock change the order of local times is not the order of instants, and two local times
//! may be one instant (02:30 moved to 03:30 by a gap, and 03:30 itself). So a search begins a little
//! before the local time asked for, goes a little past the first answer, and keeps the earliest.

use chrono::{NaiveDateTime, TimeDelta};

use super::cron::Cron;
use super::rule::DayRule;
use super::rule_fine::{FineRule, Frame};
use super::zone::{Resolved, Zone, naive, seconds};
use super::{Nominal, NominalKind, zone};
use crate::task::{DstFold, DstGap};

/// How local times become instants where clocks change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// As the task's policy says; times are moved, dropped or doubled, with a note.
    Fixed(DstGap, DstFold),
    /// As time passes: what the clock does not show does not come, what it shows twice comes twice.
    Passing,
}

/// What gives the local times.
#[derive(Clone, Debug)]
pub(super) enum LocalTimes {
    Cron(Cron),
    Days(DayRule),
    /// In [`Frame::Wall`].
    Fine(FineRule),
}

impl LocalTimes {
    fn at_or_after(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        match self {
            Self::Cron(cron) => cron.at_or_after(local),
            Self::Days(rule) => rule.at_or_after(local),
            Self::Fine(rule) => rule.at_or_after(seconds(local)).map(naive),
        }
    }
}

/// Where the times of a schedule come from; a schedule may have several.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Local times, resolved; none after the instant.
    Wall(LocalTimes, Changes, Option<i64>),
    /// A rule in [`Frame::Elapsed`].
    Elapsed(FineRule),
    Interval(super::interval::Interval),
    /// In order.
    Listed(Vec<Nominal>),
}

impl Source {
    /// The first nominal time after `after`, dropped ones included.
    pub(super) fn next_after(&self, zone: Zone, after: i64) -> Option<Nominal> {
        match self {
            Self::Wall(times, changes, end) => {
                if end.is_some_and(|end| end <= after) {
                    return None;
                }
                let found = next_on_wall(times, *changes, zone, after)?;
                end.is_none_or(|end| found.at.timestamp() <= end).then_some(found)
            }
            Self::Elapsed(rule) => {
                rule.at_or_after(after.saturating_add(1)).map(|at| passing(zone, at))
            }
            Self::Interval(interval) => Some(passing(zone, interval.next_after(after))),
            Self::Listed(list) => {
                let next = list.partition_point(|nominal| nominal.at.timestamp() <= after);
                list.get(next).cloned()
            }
        }
    }
}

/// A plain fire at `at`.
fn passing(zone: Zone, at: i64) -> Nominal {
    Nominal { at: zone::instant(at), local: zone.local_at(at), kind: NominalKind::Fire, note: None }
}

fn next_on_wall(times: &LocalTimes, changes: Changes, zone: Zone, after: i64) -> Option<Nominal> {
    let change = zone.change_around(after);
    let mut from = naive(seconds(zone.local_at(after)) + if change == 0 { 1 } else { -change });
    let mut best: Option<Nominal> = None;
    let mut end: Option<NaiveDateTime> = None;
    while let Some(local) = times.at_or_after(from) {
        if end.is_some_and(|end| end < local) {
            break;
        }
        for nominal in nominals(local, changes, zone) {
            let earlier = best.as_ref().is_none_or(|best| nominal.comes_before(best));
            if nominal.at.timestamp() > after && earlier {
                best = Some(nominal);
            }
        }
        if let Some(best) = &best {
            let at = best.at.timestamp();
            let change = zone.change_around(at);
            if change == 0 {
                break;
            }
            end = Some(naive(seconds(zone.local_at(at)) + change));
        }
        from = local + TimeDelta::seconds(1);
    }
    best
}

/// What `local` stands for: no, one or two nominal times.
pub(super) fn nominals(
    local: NaiveDateTime,
    changes: Changes,
    zone: Zone,
) -> impl Iterator<Item = Nominal> {
    let made = |at: i64, kind: NominalKind, note: Option<String>| {
        Some(Nominal { at: zone::instant(at), local, kind, note })
    };
    let fire = NominalKind::Fire;
    let place = || format!("on {} in {}", local.date(), zone.name());
    let twice = |which: &str| {
        Some(format!("{} comes twice {}; this is the {which}", time_of(local), place()))
    };
    let pair = match (zone.resolve(local), changes) {
        (Resolved::Once(at), _) => [made(at, fire, None), None],
        (Resolved::Gap(_), Changes::Passing) => [None, None],
        (Resolved::Gap(at), Changes::Fixed(DstGap::Shift, _)) => {
            let moved = zone.local_at(at);
            let to = if moved.date() == local.date() {
                time_of(moved)
            } else {
                format!("{} {}", moved.date(), time_of(moved))
            };
            let note = format!("{} does not exist {}; moved to {to}", time_of(local), place());
            [made(at, fire, Some(note)), None]
        }
        (Resolved::Gap(at), Changes::Fixed(DstGap::Skip, _)) => {
            let note = format!("{} does not exist {}; left out", time_of(local), place());
            [made(at, NominalKind::DroppedByDst, Some(note)), None]
        }
        (Resolved::Twice(first, last), Changes::Passing) => {
            [made(first, fire.clone(), None), made(last, fire, None)]
        }
        (Resolved::Twice(first, last), Changes::Fixed(_, fold)) => match fold {
            DstFold::First => [made(first, fire, twice("first")), None],
            DstFold::Last => [made(last, fire, twice("second")), None],
            DstFold::Both => {
                [made(first, fire.clone(), twice("first")), made(last, fire, twice("second"))]
            }
        },
    };
    pair.into_iter().flatten()
}

/// `02:30`, with seconds where there are some.
pub(super) fn time_of(local: NaiveDateTime) -> String {
    use chrono::Timelike;
    let shape = if local.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    local.format(shape).to_string()
}

/// Whether a rule of hours or less counts elapsed time, and how its local times pass a clock change
/// when it does not.
pub(super) fn frame_of(rule: &super::rule_text::RuleText, zone: Zone) -> Frame {
    let plain_hours = rule.interval == 1 && !rule.minutes.is_empty();
    let hourly = rule.freq == super::rule_text::Freq::Hourly;
    // Every hour at minutes that are named: the wall clock's minutes, in every hour it shows.
    if !rule.hours.is_empty() || (hourly && plain_hours) {
        Frame::Wall
    } else {
        Frame::Elapsed(zone)
    }
}
