//! The kinds of schedules, their bounds, and how they are told to people.

use chrono::TimeDelta;

use super::{CREATED, compiled, fires, instant, spec};
use crate::schedule::{NominalKind, Schedule, ScheduleSpec};
use crate::task::Policy;
use crate::task::ScheduleKind::{Cron, Event, Interval, Manual, Once, Rrule};

#[test]
fn schedules_are_told_in_plain_words() {
    for (kind, expr, words) in [
        (
            Rrule,
            "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=8;BYMINUTE=30",
            "every Monday to Friday at 08:30, UTC",
        ),
        (Rrule, "FREQ=DAILY;BYHOUR=8,17;BYMINUTE=0", "every day at 08:00 and 17:00, UTC"),
        (Rrule, "FREQ=DAILY;INTERVAL=2", "every 2 days at 00:00, UTC"),
        (
            Rrule,
            "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH",
            "every 2 weeks on Monday and Thursday at 00:00, UTC",
        ),
        (
            Rrule,
            "FREQ=MONTHLY;BYDAY=2TU,-1FR;BYHOUR=9",
            "every month on the last Friday and the 2nd Tuesday at 09:00, UTC",
        ),
        (
            Rrule,
            "FREQ=MONTHLY;BYMONTHDAY=1,-1",
            "every month on the last day and the 1st at 00:00, UTC",
        ),
        (
            Rrule,
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            "every month on Monday to Friday at 00:00, only the last of these each time, UTC",
        ),
        (
            Rrule,
            "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
            "every year on the 29th in February at 00:00, UTC",
        ),
        (Rrule, "FREQ=YEARLY;COUNT=3", "every year on the 1st in January at 00:00, 3 times, UTC"),
        (
            Rrule,
            "FREQ=HOURLY;INTERVAL=6;UNTIL=20261231",
            "every 6 hours, until the end of 2026-12-31, UTC",
        ),
        (
            Rrule,
            "FREQ=MINUTELY;INTERVAL=15;BYHOUR=9,10,11;BYDAY=SA,SU",
            "every 15 minutes in the hours 9 to 11, on Saturday and Sunday, UTC",
        ),
        (Cron, "30 8 * * MON-FRI", "every Monday to Friday at 08:30, UTC"),
        (Cron, "*/15 * * * *", "every 15 minutes, UTC"),
        (Cron, "* * * * *", "every minute, UTC"),
        (Cron, "0 * * * *", "every hour, UTC"),
        (Cron, "5 * * * *", "every hour at minute 5, UTC"),
        (Cron, "0 */2 * * *", "every 2 hours, UTC"),
        (
            Cron,
            "*/10 9-17 * * 1-5",
            "every 10 minutes in the hours 9 to 17, every Monday to Friday, UTC",
        ),
        (Cron, "0 0 1 * *", "on the 1st of every month at 00:00, UTC"),
        (Cron, "0 0 L 6,12 *", "on the last day in June and December at 00:00, UTC"),
        (Cron, "0 0 13 * FRI", "on the 13th of every month and every Friday at 00:00, UTC"),
        (Cron, "0 9 * * 5#2", "on the 2nd Friday of every month at 09:00, UTC"),
        (Interval, "PT15M", "every 15 minutes"),
        (Interval, "P1W", "every week"),
        (Interval, "90", "every 90 seconds"),
        (Once, "2026-12-24T18:00", "once, on 2026-12-24 at 18:00, UTC"),
        (Event, "mail.*", "at every event mail.*"),
        (Manual, "", "only when somebody asks"),
    ] {
        assert_eq!(compiled(&spec(kind, expr, "UTC")).summary(), words, "{expr}");
    }
    let bounded = ScheduleSpec {
        starts_at: Some(instant("2026-02-01T00:00:00Z")),
        max_fires: Some(5),
        exclude: vec!["2026-12-25".into(), "2026-12-31/2027-01-01".into()],
        ..spec(Cron, "0 9 * * *", "Europe/Chisinau")
    };
    assert_eq!(
        compiled(&bounded).summary(),
        "every day at 09:00, Europe/Chisinau, from 2026-02-01 00:00 UTC, at most 5 times, \
         not on 2026-12-25 and 2026-12-31 to 2027-01-01"
    );
}

#[test]
fn an_interval_counts_from_its_start_or_from_the_creation() {
    let created = spec(Interval, "PT15M", "UTC");
    assert_eq!(fires(&compiled(&created), CREATED, 1), ["2026-01-01T00:15:00+00:00"]);

    let started = ScheduleSpec { starts_at: Some(instant("2026-01-01T00:07:00Z")), ..created };
    assert_eq!(
        fires(&compiled(&started), CREATED, 2),
        ["2026-01-01T00:07:00+00:00", "2026-01-01T00:22:00+00:00"]
    );
}

#[test]
fn a_single_time_is_an_instant_or_a_local_time() {
    for (expr, wanted) in [
        ("2026-12-24T17:00:00Z", "2026-12-24T18:00:00+01:00"),
        ("2026-12-24T18:00:00.250+01:00", "2026-12-24T18:00:00+01:00"),
        ("2026-12-24T18:00", "2026-12-24T18:00:00+01:00"),
        ("2026-12-24T18:00:30", "2026-12-24T18:00:30+01:00"),
        ("2026-03-29T02:30", "2026-03-29T03:30:00+02:00"),
        ("2026-10-25T02:30", "2026-10-25T02:30:00+02:00"),
    ] {
        let preview = compiled(&spec(Once, expr, "Europe/Berlin")).preview(instant(CREATED), 5, 0);
        let found: Vec<&str> = preview.fires.iter().map(|fire| fire.local.as_str()).collect();
        assert_eq!((found, preview.exhausted), (vec![wanted], true), "{expr}");
    }
}

#[test]
fn manual_and_event_schedules_have_no_times() {
    for schedule in [compiled(&spec(Manual, "", "UTC")), compiled(&spec(Event, "a.#", "UTC"))] {
        assert_eq!(schedule.next_after(instant(CREATED)), None);
        assert!(schedule.preview(instant(CREATED), 3, 0).exhausted);
    }
}

#[test]
fn both_bounds_belong_to_the_schedule() {
    let bounded = ScheduleSpec {
        starts_at: Some(instant("2026-01-02T09:00:00Z")),
        ends_at: Some(instant("2026-01-04T09:00:00Z")),
        ..spec(Cron, "0 9 * * *", "UTC")
    };

    let preview = compiled(&bounded).preview(instant(CREATED), 10, 0);

    let days: Vec<&str> = preview.fires.iter().map(|fire| &fire.local[..10]).collect();
    assert_eq!(days, ["2026-01-02", "2026-01-03", "2026-01-04"]);
    assert!(preview.exhausted);
}

#[test]
fn a_preview_stops_where_max_fires_is_reached() {
    let five = ScheduleSpec { max_fires: Some(5), ..spec(Cron, "0 9 * * *", "UTC") };
    let schedule = compiled(&five);

    assert_eq!(schedule.preview(instant(CREATED), 10, 0).fires.len(), 5);
    let rest = schedule.preview(instant(CREATED), 10, 3);
    assert_eq!((rest.fires.len(), rest.exhausted), (2, true));
    assert!(!schedule.preview(instant(CREATED), 1, 3).exhausted);
    assert!(schedule.preview(instant(CREATED), 1, 9).exhausted);
}

#[test]
fn a_preview_begins_with_a_fire_at_its_first_instant() {
    let schedule = compiled(&spec(Cron, "0 9 * * *", "UTC"));
    let nine = instant("2026-01-05T09:00:00Z");

    assert_eq!(schedule.preview(nine, 1, 0).fires[0].at, nine);
    let later = schedule.preview(nine + TimeDelta::milliseconds(1), 1, 0);
    assert_eq!(later.fires[0].at, nine + TimeDelta::days(1));
}

#[test]
fn an_excluded_time_is_in_the_ledger_and_noted_at_the_next_fire() {
    let spec = ScheduleSpec {
        exclude: vec!["2026-12-25/2026-12-26".into()],
        ..spec(Cron, "30 8 * * *", "Europe/Berlin")
    };
    let schedule = compiled(&spec);

    let excluded = schedule.next_after(instant("2026-12-24T12:00:00Z")).unwrap();
    assert_eq!(excluded.at, instant("2026-12-25T07:30:00Z"));
    assert_eq!(
        excluded.kind,
        NominalKind::Excluded { reason: "2026-12-25 is in exclude".to_owned() }
    );
    let fire = schedule.preview(instant("2026-12-24T12:00:00Z"), 1, 0).fires.remove(0);
    assert_eq!(fire.local, "2026-12-27T08:30:00+01:00");
    assert_eq!(fire.note.as_deref(), Some("Before this: 2026-12-25 is in exclude"));
}

#[test]
fn an_exclusion_is_about_the_local_date() {
    let spec = ScheduleSpec {
        exclude: vec!["2026-06-02".into()],
        ..spec(Interval, "PT1H", "America/New_York")
    };

    assert_eq!(
        fires(&compiled(&spec), "2026-06-02T02:30:00Z", 2),
        ["2026-06-01T23:00:00-04:00", "2026-06-03T00:00:00-04:00"]
    );
}

#[test]
fn the_start_of_a_rule_is_given_or_starts_at_or_the_creation() {
    let rule = spec(Rrule, "FREQ=DAILY", "Europe/Berlin");
    assert_eq!(fires(&compiled(&rule), CREATED, 1), ["2026-01-01T01:00:00+01:00"]);

    let start = Some(instant("2026-07-01T10:11:12Z"));
    let started = ScheduleSpec { starts_at: start, ..rule };
    assert_eq!(fires(&compiled(&started), CREATED, 1), ["2026-07-01T12:11:12+02:00"]);

    let given = "DTSTART:20260301T080000\nRRULE:FREQ=DAILY";
    let given = spec(Rrule, given, "Europe/Berlin");
    assert_eq!(fires(&compiled(&given), CREATED, 1), ["2026-03-01T08:00:00+01:00"]);
}

#[test]
fn until_as_a_date_includes_the_day() {
    let schedule = compiled(&spec(Rrule, "FREQ=DAILY;BYHOUR=9;UNTIL=20260103", "UTC"));

    assert_eq!(schedule.preview(instant(CREATED), 9, 0).fires.len(), 3);
}

#[test]
fn jitter_leaves_a_note_and_no_other_trace_in_a_preview() {
    let policy = Policy { jitter_seconds: 30, ..Policy::default() };
    let schedule = compiled(&ScheduleSpec { policy, ..spec(Cron, "0 9 * * *", "UTC") });

    let fire = schedule.preview(instant(CREATED), 1, 0).fires.remove(0);

    assert_eq!(fire.at, instant("2026-01-01T09:00:00Z"));
    assert_eq!(fire.note.as_deref(), Some("starts up to 30 s later (jitter)"));
}

#[test]
fn a_named_time_of_day_does_not_take_the_seconds_of_the_creation() {
    let created = instant("2026-01-01T12:34:56Z");
    for (rule, wanted) in [
        ("FREQ=DAILY;BYHOUR=8;BYMINUTE=30", "2026-01-02T08:30:00+00:00"),
        ("FREQ=DAILY;BYHOUR=8", "2026-01-02T08:00:00+00:00"),
        ("FREQ=MINUTELY;INTERVAL=20;BYHOUR=15", "2026-01-01T15:14:00+00:00"),
        ("FREQ=HOURLY;BYMINUTE=5", "2026-01-01T13:05:00+00:00"),
        // Nothing is named: the creation is the phase.
        ("FREQ=DAILY", "2026-01-01T12:34:56+00:00"),
        // Somebody chose the start: RFC 5545 takes what is missing from it.
        ("DTSTART:20260101T101112\nRRULE:FREQ=DAILY;BYHOUR=8", "2026-01-02T08:11:12+00:00"),
    ] {
        let schedule = Schedule::compile(&spec(Rrule, rule, "UTC"), created).unwrap();
        assert_eq!(fires(&schedule, "2026-01-01T12:34:56Z", 1), [wanted], "{rule}");
    }
}
