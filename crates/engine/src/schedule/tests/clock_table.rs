//! Every policy in every kind of clock change, with the exact instants, for cron, rrule and interval.

use chrono::TimeDelta;

use super::{compiled, instant, spec, with_changes};
use crate::schedule::ScheduleSpec;
use crate::task::DstFold::{Both, First, Last};
use crate::task::DstGap::{Shift, Skip};
use crate::task::ScheduleKind::{Cron, Interval, Rrule};
use crate::task::{DstFold, DstGap};

/// A time of day that a clock change leaves out: zone, hour and minute, from when, the fires where
/// gaps are shifted, and where they are skipped.
type GapRow = (&'static str, (u32, u32), &'static str, [&'static str; 2], &'static [&'static str]);

const GAPS: &[GapRow] = &[
    (
        "Europe/Berlin",
        (2, 30),
        "2026-03-28T12:00:00Z",
        ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"],
        &["2026-03-30T00:30:00Z"],
    ),
    (
        "America/New_York",
        (2, 30),
        "2026-03-07T12:00:00Z",
        ["2026-03-08T07:30:00Z", "2026-03-09T06:30:00Z"],
        &["2026-03-09T06:30:00Z"],
    ),
    // Half an hour.
    (
        "Australia/Lord_Howe",
        (2, 15),
        "2026-10-03T12:00:00Z",
        ["2026-10-03T15:45:00Z", "2026-10-04T15:15:00Z"],
        &["2026-10-04T15:15:00Z"],
    ),
    // The end of Ramadan.
    (
        "Africa/Casablanca",
        (2, 30),
        "2026-03-21T12:00:00Z",
        ["2026-03-22T02:30:00Z", "2026-03-23T01:30:00Z"],
        &["2026-03-23T01:30:00Z"],
    ),
    // 30 December 2011 was left out: what was due then and the day after is one instant, so that
    // both policies have the same fires.
    (
        "Pacific/Apia",
        (9, 0),
        "2011-12-29T20:00:00Z",
        ["2011-12-30T19:00:00Z", "2011-12-31T19:00:00Z"],
        &["2011-12-30T19:00:00Z", "2011-12-31T19:00:00Z"],
    ),
    // The gap begins at midnight.
    (
        "America/Sao_Paulo",
        (0, 30),
        "2017-10-14T12:00:00Z",
        ["2017-10-15T03:30:00Z", "2017-10-16T02:30:00Z"],
        &["2017-10-16T02:30:00Z"],
    ),
    // No change ever comes.
    (
        "Asia/Kathmandu",
        (8, 30),
        "2026-03-28T12:00:00Z",
        ["2026-03-29T02:45:00Z", "2026-03-30T02:45:00Z"],
        &["2026-03-29T02:45:00Z", "2026-03-30T02:45:00Z"],
    ),
];

/// A time of day that comes twice: zone, hour and minute, from when, the first, the second, and the
/// fire of the next day.
type FoldRow = (&'static str, (u32, u32), &'static str, [&'static str; 3]);

const FOLDS: &[FoldRow] = &[
    (
        "Europe/Berlin",
        (2, 30),
        "2026-10-24T12:00:00Z",
        ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"],
    ),
    (
        "America/New_York",
        (1, 30),
        "2026-10-31T12:00:00Z",
        ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"],
    ),
    (
        "Australia/Lord_Howe",
        (1, 45),
        "2026-04-04T12:00:00Z",
        ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z", "2026-04-05T15:15:00Z"],
    ),
    (
        "Africa/Casablanca",
        (2, 30),
        "2026-02-14T12:00:00Z",
        ["2026-02-15T01:30:00Z", "2026-02-15T02:30:00Z", "2026-02-16T02:30:00Z"],
    ),
    (
        "Pacific/Apia",
        (3, 30),
        "2012-03-31T00:00:00Z",
        ["2012-03-31T13:30:00Z", "2012-03-31T14:30:00Z", "2012-04-01T14:30:00Z"],
    ),
    (
        "America/Sao_Paulo",
        (23, 30),
        "2017-02-18T12:00:00Z",
        ["2017-02-19T01:30:00Z", "2017-02-19T02:30:00Z", "2017-02-20T02:30:00Z"],
    ),
];

/// The same time of day in four notations.
fn notations((hour, minute): (u32, u32)) -> [(crate::task::ScheduleKind, String); 4] {
    [
        (Cron, format!("{minute} {hour} * * *")),
        (Rrule, format!("DTSTART:20110101T{hour:02}{minute:02}00\nRRULE:FREQ=DAILY")),
        (
            Rrule,
            format!(
                "DTSTART:20110101T000000\nRRULE:FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR={hour};BYMINUTE={minute}"
            ),
        ),
        (
            Rrule,
            format!("DTSTART:20110101T000000\nRRULE:FREQ=MINUTELY;BYHOUR={hour};BYMINUTE={minute}"),
        ),
    ]
}

fn check(zone: &str, time: (u32, u32), from: &str, gap: DstGap, fold: DstFold, wanted: &[&str]) {
    for (kind, expr) in notations(time) {
        let schedule = with_changes(kind, &expr, zone, gap, fold);
        let fires = schedule.preview(instant(from), wanted.len(), 0).fires;
        let found: Vec<_> = fires.iter().map(|fire| fire.at).collect();
        let wanted: Vec<_> = wanted.iter().map(|at| instant(at)).collect();
        assert_eq!(found, wanted, "{expr} {zone} {gap} {fold}");
    }
}

#[test]
fn a_time_that_is_left_out_is_shifted_or_skipped_to_the_second() {
    for (zone, time, from, shifted, skipped) in GAPS {
        for fold in [First, Last, Both] {
            check(zone, *time, from, Shift, fold, shifted);
            check(zone, *time, from, Skip, fold, skipped);
        }
    }
}

#[test]
fn a_time_that_comes_twice_fires_first_last_or_both_to_the_second() {
    for (zone, time, from, [first, last, next]) in FOLDS {
        for gap in [Shift, Skip] {
            check(zone, *time, from, gap, First, &[first, next]);
            check(zone, *time, from, gap, Last, &[last, next]);
            check(zone, *time, from, gap, Both, &[first, last, next]);
        }
    }
}

#[test]
fn an_interval_sees_no_clock_change() {
    let changes =
        GAPS.iter().map(|row| (row.0, row.2)).chain(FOLDS.iter().map(|row| (row.0, row.2)));
    for (zone, from) in changes {
        let start = instant(from);
        let spec = ScheduleSpec { starts_at: Some(start), ..spec(Interval, "PT30M", zone) };
        let fires = compiled(&spec).preview(start, 96, 0).fires;
        for (index, fire) in (0..).zip(&fires) {
            assert_eq!(fire.at, start + TimeDelta::minutes(30 * index), "{zone}");
        }
    }
}
