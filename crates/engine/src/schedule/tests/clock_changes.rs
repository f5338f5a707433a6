//! Days on which clocks change.

use super::{compiled, fires, instant, spec, with_changes};
use crate::schedule::NominalKind;
use crate::task::DstFold::{Both, First, Last};
use crate::task::DstGap::{Shift, Skip};
use crate::task::ScheduleKind::{Cron, Interval, Rrule};
use crate::task::{DstFold, DstGap};

type Row = (&'static str, &'static str, DstGap, DstFold, &'static str, &'static [&'static str]);

/// Expression, zone, policy, from when, the fires that follow.
const ROWS: &[Row] = &[
    (
        "30 2 * * *",
        "Europe/Berlin",
        Shift,
        First,
        "2026-03-28T12:00:00Z",
        &["2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"],
    ),
    (
        "30 2 * * *",
        "Europe/Berlin",
        Skip,
        First,
        "2026-03-28T12:00:00Z",
        &["2026-03-30T02:30:00+02:00"],
    ),
    (
        "30 2 * * *",
        "Europe/Berlin",
        Shift,
        First,
        "2026-10-24T12:00:00Z",
        &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"],
    ),
    (
        "30 2 * * *",
        "Europe/Berlin",
        Shift,
        Last,
        "2026-10-24T12:00:00Z",
        &["2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
    ),
    (
        "30 2 * * *",
        "Europe/Berlin",
        Shift,
        Both,
        "2026-10-24T12:00:00Z",
        &["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
    ),
    // 02:30 moves to 03:30, where the schedule fires anyway: once.
    (
        "30 2,3 * * *",
        "Europe/Berlin",
        Shift,
        First,
        "2026-03-28T12:00:00Z",
        &["2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"],
    ),
    // Moved times mingle with those that follow, in the order of instants.
    (
        "0,30 2,3 * * *",
        "Europe/Berlin",
        Shift,
        First,
        "2026-03-28T12:00:00Z",
        &["2026-03-29T03:00:00+02:00", "2026-03-29T03:30:00+02:00", "2026-03-30T02:00:00+02:00"],
    ),
    (
        "45 2 * * *",
        "Europe/Berlin",
        Shift,
        First,
        "2026-03-29T01:40:00Z",
        &["2026-03-29T03:45:00+02:00"],
    ),
    (
        "0,20 2,3 * * *",
        "Europe/Berlin",
        Shift,
        Both,
        "2026-10-24T12:00:00Z",
        &[
            "2026-10-25T02:00:00+02:00",
            "2026-10-25T02:20:00+02:00",
            "2026-10-25T02:00:00+01:00",
            "2026-10-25T02:20:00+01:00",
            "2026-10-25T03:00:00+01:00",
        ],
    ),
    (
        "30 2 * * *",
        "America/New_York",
        Shift,
        First,
        "2026-03-07T12:00:00Z",
        &["2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"],
    ),
    (
        "30 1 * * *",
        "America/New_York",
        Shift,
        Last,
        "2026-10-31T12:00:00Z",
        &["2026-11-01T01:30:00-05:00"],
    ),
    // Half an hour: 02:15 becomes 02:45.
    (
        "15 2 * * *",
        "Australia/Lord_Howe",
        Shift,
        First,
        "2026-10-03T12:00:00Z",
        &["2026-10-04T02:45:00+11:00", "2026-10-05T02:15:00+11:00"],
    ),
    (
        "45 1 * * *",
        "Australia/Lord_Howe",
        Shift,
        Both,
        "2026-04-04T12:00:00Z",
        &["2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30"],
    ),
    // 30 December 2011 was left out; what was due then and the day after is one instant.
    (
        "0 9 * * *",
        "Pacific/Apia",
        Shift,
        First,
        "2011-12-29T00:00:00Z",
        &["2011-12-29T09:00:00-10:00", "2011-12-31T09:00:00+14:00", "2012-01-01T09:00:00+14:00"],
    ),
    (
        "0 9 * * *",
        "Pacific/Apia",
        Skip,
        First,
        "2011-12-29T00:00:00Z",
        &["2011-12-29T09:00:00-10:00", "2011-12-31T09:00:00+14:00", "2012-01-01T09:00:00+14:00"],
    ),
    (
        "0 9 30 12 *",
        "Pacific/Apia",
        Shift,
        First,
        "2011-01-01T00:00:00Z",
        &["2011-12-31T09:00:00+14:00", "2012-12-30T09:00:00+14:00"],
    ),
    (
        "0 9 30 12 *",
        "Pacific/Apia",
        Skip,
        First,
        "2011-01-01T00:00:00Z",
        &["2012-12-30T09:00:00+14:00"],
    ),
    // The gap begins at midnight.
    (
        "0 0 * * *",
        "America/Sao_Paulo",
        Shift,
        First,
        "2017-10-14T12:00:00Z",
        &["2017-10-15T01:00:00-02:00", "2017-10-16T00:00:00-02:00"],
    ),
    (
        "0 0 * * *",
        "America/Sao_Paulo",
        Skip,
        First,
        "2017-10-14T12:00:00Z",
        &["2017-10-16T00:00:00-02:00"],
    ),
    (
        "0 23 * * *",
        "America/Sao_Paulo",
        Shift,
        Both,
        "2017-02-18T12:00:00Z",
        &["2017-02-18T23:00:00-02:00", "2017-02-18T23:00:00-03:00", "2017-02-19T23:00:00-03:00"],
    ),
    // Ramadan: the clock goes back in February and forth in March.
    (
        "30 2 * * *",
        "Africa/Casablanca",
        Shift,
        First,
        "2026-02-14T12:00:00Z",
        &["2026-02-15T02:30:00+01:00", "2026-02-16T02:30:00+00:00"],
    ),
    (
        "30 2 * * *",
        "Africa/Casablanca",
        Shift,
        First,
        "2026-03-21T12:00:00Z",
        &["2026-03-22T03:30:00+01:00", "2026-03-23T02:30:00+01:00"],
    ),
    (
        "30 8 * * *",
        "Asia/Kathmandu",
        Shift,
        First,
        "2026-03-28T12:00:00Z",
        &["2026-03-29T08:30:00+05:45"],
    ),
];

#[test]
fn a_fixed_local_time_follows_the_policy_for_gaps_and_folds() {
    for (expr, zone, gap, fold, from, wanted) in ROWS {
        let schedule = with_changes(Cron, expr, zone, *gap, *fold);
        assert_eq!(fires(&schedule, from, wanted.len()), *wanted, "{expr} {zone} {gap} {fold}");
    }
}

#[test]
fn a_rule_of_days_follows_the_same_policy() {
    let daily = "DTSTART:20260101T023000\nRRULE:FREQ=DAILY";
    let schedule = with_changes(Rrule, daily, "Europe/Berlin", Shift, Last);

    assert_eq!(
        fires(&schedule, "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:30:00+02:00", "2026-03-30T02:30:00+02:00"]
    );
    assert_eq!(fires(&schedule, "2026-10-24T12:00:00Z", 1), ["2026-10-25T02:30:00+01:00"]);
}

#[test]
fn what_has_no_hour_of_its_own_follows_the_passing_of_time() {
    for (kind, expr) in [
        (Cron, "*/30 * * * *"),
        (Rrule, "DTSTART:20260101T000000\nRRULE:FREQ=MINUTELY;INTERVAL=30"),
        (Rrule, "DTSTART:20260101T000000\nRRULE:FREQ=HOURLY;BYMINUTE=0,30"),
        (Interval, "PT30M"),
    ] {
        let schedule = with_changes(kind, expr, "Europe/Berlin", Shift, First);
        for from in ["2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z"] {
            let fires = schedule.preview(instant(from), 8, 0).fires;
            for (index, fire) in (0..).zip(&fires) {
                assert_eq!(
                    fire.at,
                    instant(from) + chrono::TimeDelta::minutes(30 * index),
                    "{expr}"
                );
                assert_eq!(fire.note, None);
            }
        }
    }
}

#[test]
fn an_hourly_rule_keeps_its_phase_in_elapsed_time() {
    let schedule = compiled(&spec(
        Rrule,
        "DTSTART:20260328T230000\nRRULE:FREQ=HOURLY;INTERVAL=2",
        "Europe/Berlin",
    ));

    assert_eq!(
        fires(&schedule, "2026-03-28T22:00:00Z", 4),
        [
            "2026-03-28T23:00:00+01:00",
            "2026-03-29T01:00:00+01:00",
            "2026-03-29T04:00:00+02:00",
            "2026-03-29T06:00:00+02:00"
        ]
    );
}

#[test]
fn an_hourly_rule_with_named_hours_is_about_the_wall() {
    let rule = "DTSTART:20260101T003000\nRRULE:FREQ=HOURLY;BYHOUR=2";
    let schedule = with_changes(Rrule, rule, "Europe/Berlin", Shift, Both);

    assert_eq!(fires(&schedule, "2026-03-28T12:00:00Z", 1), ["2026-03-29T03:30:00+02:00"]);
    assert_eq!(
        fires(&schedule, "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]
    );
}

#[test]
fn elapsed_rules_ask_the_local_date_and_minute_of_each_instant() {
    let rule = "DTSTART:20260101T000000\nRRULE:FREQ=HOURLY;BYDAY=SU";
    let sundays = compiled(&spec(Rrule, rule, "Europe/Berlin"));
    assert_eq!(fires(&sundays, "2026-03-28T12:00:00Z", 1), ["2026-03-29T00:00:00+01:00"]);
    assert_eq!(fires(&sundays, "2026-03-29T21:00:00Z", 2)[0], "2026-03-29T23:00:00+02:00");
    assert_eq!(fires(&sundays, "2026-03-29T22:00:00Z", 1), ["2026-04-05T00:00:00+02:00"]);

    let rule = "DTSTART:20260101T000000\nRRULE:FREQ=SECONDLY;BYMINUTE=10;BYSECOND=5";
    let minutes = compiled(&spec(Rrule, rule, "Australia/Lord_Howe"));
    assert_eq!(
        fires(&minutes, "2026-10-03T14:00:00Z", 3),
        ["2026-10-04T01:10:05+10:30", "2026-10-04T03:10:05+11:00", "2026-10-04T04:10:05+11:00"]
    );
}

#[test]
fn a_dropped_time_has_its_place_in_the_ledger() {
    let schedule = with_changes(Cron, "30 2 * * *", "Europe/Berlin", Skip, First);

    let dropped = schedule.next_after(instant("2026-03-28T12:00:00Z")).unwrap();

    assert_eq!(dropped.kind, NominalKind::DroppedByDst);
    assert_eq!(dropped.at, instant("2026-03-29T01:30:00Z"));
    assert_eq!(dropped.local.to_string(), "2026-03-29 02:30:00");
    assert_eq!(
        dropped.note.as_deref(),
        Some("02:30 does not exist on 2026-03-29 in Europe/Berlin; left out")
    );
    let after = schedule.next_after(dropped.at).unwrap();
    assert_eq!((after.at, after.fires()), (instant("2026-03-30T00:30:00Z"), true));
}

#[test]
fn every_touched_time_says_what_happened() {
    let note = |schedule: &crate::schedule::Schedule, from: &str| {
        schedule.preview(instant(from), 1, 0).fires.remove(0).note.unwrap()
    };
    let shift = with_changes(Cron, "30 2 * * *", "Europe/Berlin", Shift, Last);
    assert_eq!(
        note(&shift, "2026-03-28T12:00:00Z"),
        "02:30 does not exist on 2026-03-29 in Europe/Berlin; moved to 03:30"
    );
    assert_eq!(
        note(&shift, "2026-10-24T12:00:00Z"),
        "02:30 comes twice on 2026-10-25 in Europe/Berlin; this is the second"
    );
    let skip = with_changes(Cron, "30 2 * * *", "Europe/Berlin", Skip, First);
    assert_eq!(
        note(&skip, "2026-03-28T12:00:00Z"),
        "Before this: 02:30 does not exist on 2026-03-29 in Europe/Berlin; left out"
    );
    let apia = with_changes(Cron, "0 9 30 12 *", "Pacific/Apia", Shift, First);
    assert_eq!(
        note(&apia, "2011-12-01T00:00:00Z"),
        "09:00 does not exist on 2011-12-30 in Pacific/Apia; moved to 2011-12-31 09:00"
    );
}

#[test]
fn a_rule_that_only_meets_gaps_still_ends() {
    let rule =
        "DTSTART:20260101T000000\nRRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU;BYHOUR=2;BYMINUTE=30";
    let schedule = with_changes(Rrule, rule, "Europe/Berlin", Shift, First);

    assert_eq!(
        fires(&schedule, "2026-01-01T00:00:00Z", 2),
        ["2026-03-29T03:30:00+02:00", "2027-03-28T03:30:00+02:00"]
    );
}
