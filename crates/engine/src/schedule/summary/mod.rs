//! Schedules in plain English.
//!
//! The common shapes read as a person would say them; the rare ones are still complete, if stiff.

mod cron;
mod rule;
mod words;

use chrono::{DateTime, Utc};

pub(super) use self::cron::cron;
pub(super) use self::rule::rule;
use self::words::{every, list};
use super::ScheduleSpec;
use super::exclude::Excluded;
use super::wall::time_of;
use super::zone::Zone;
use crate::task::ScheduleKind;

/// The words of the expression with the zone, the bounds and the exclusions.
pub(super) fn whole(spec: &ScheduleSpec, words: &str, excluded: &Excluded) -> String {
    let mut said = vec![words.to_owned()];
    if matches!(spec.kind, ScheduleKind::Cron | ScheduleKind::Rrule | ScheduleKind::Once) {
        said.push(spec.timezone.clone());
    }
    said.extend(spec.starts_at.map(|at| format!("from {}", minute(at))));
    said.extend(spec.ends_at.map(|at| format!("until {}", minute(at))));
    said.extend(spec.max_fires.map(|max| match max {
        1 => "one time".to_owned(),
        max => format!("at most {max} times"),
    }));
    let ranges: Vec<String> = excluded
        .ranges()
        .iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first} to {last}") }
            },
        )
        .collect();
    match ranges.len() {
        0 => {}
        1..=3 => said.push(format!("not on {}", list(&ranges))),
        more => said.push(format!("not on {more} excluded dates or ranges")),
    }
    said.extend(excluded.calendars().map(|name| format!("not on days of calendar {name}")));
    said.join(", ")
}

fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

/// "every 15 minutes"
pub(super) fn interval(seconds: i64) -> String {
    let (count, unit) = [(604_800, "week"), (86_400, "day"), (3_600, "hour"), (60, "minute")]
        .into_iter()
        .find(|(length, _)| seconds % length == 0)
        .map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
    every(count, unit)
}

/// "once, on 2026-12-24 at 18:00"
pub(super) fn once(at: DateTime<Utc>, zone: Zone) -> String {
    let local = zone.local_at(at.timestamp());
    format!("once, on {} at {}", local.date(), time_of(local))
}

/// RDATE lines.
pub(super) fn listed(count: usize) -> String {
    if count == 1 { "on one listed time".to_owned() } else { format!("on {count} listed times") }
}
