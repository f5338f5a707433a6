//! Cron expressions, whole.

use super::{compiled, fires, problems, spec};
use crate::task::ScheduleKind::Cron;

/// Expression, from when, the first local times (UTC) to the minute.
const ROWS: &[(&str, &str, &[&str])] = &[
    ("0 9 * * 1", "2026-11-21", &["2026-11-23T09:00", "2026-11-30T09:00"]),
    ("0 9 * * 0", "2026-11-21", &["2026-11-22T09:00"]),
    ("0 9 * * 7", "2026-11-21", &["2026-11-22T09:00", "2026-11-29T09:00"]),
    ("0 9 * * 5-7", "2026-11-21", &["2026-11-21T09:00", "2026-11-22T09:00", "2026-11-27T09:00"]),
    (
        "0 9 * * FRI-SUN",
        "2026-11-21",
        &["2026-11-21T09:00", "2026-11-22T09:00", "2026-11-27T09:00"],
    ),
    ("0 9 * * mon,Wed", "2026-11-21", &["2026-11-23T09:00", "2026-11-25T09:00"]),
    // Both days restricted: either will do.
    (
        "0 0 13 * 5",
        "2026-11-01",
        &[
            "2026-11-06T00:00",
            "2026-11-13T00:00",
            "2026-11-20T00:00",
            "2026-11-27T00:00",
            "2026-12-04T00:00",
            "2026-12-11T00:00",
            "2026-12-13T00:00",
        ],
    ),
    // One begins with a star: both must hold (every other day that is a Monday).
    ("0 0 */2 * 1", "2026-11-01", &["2026-11-09T00:00", "2026-11-23T00:00", "2026-12-07T00:00"]),
    ("0 0 L * *", "2028-02-01", &["2028-02-29T00:00", "2028-03-31T00:00", "2028-04-30T00:00"]),
    ("0 0 L-2 * *", "2026-02-01", &["2026-02-26T00:00", "2026-03-29T00:00"]),
    // The last of January, May and August 2026 is a weekend day.
    (
        "0 0 LW * *",
        "2026-01-01",
        &[
            "2026-01-30T00:00",
            "2026-02-27T00:00",
            "2026-03-31T00:00",
            "2026-04-30T00:00",
            "2026-05-29T00:00",
        ],
    ),
    ("0 0 15W * *", "2026-02-01", &["2026-02-16T00:00", "2026-03-16T00:00", "2026-04-15T00:00"]),
    // The 1st is a Saturday: not back into July but on to Monday.
    ("0 0 1W 8 *", "2026-01-01", &["2026-08-03T00:00"]),
    // The 31st is a Sunday: back to Friday, inside the month.
    ("0 0 31W 5 *", "2026-01-01", &["2026-05-29T00:00"]),
    ("0 0 31W * *", "2026-02-01", &["2026-03-31T00:00", "2026-05-29T00:00"]),
    ("0 0 * * 5#2", "2026-11-01", &["2026-11-13T00:00", "2026-12-11T00:00"]),
    ("0 0 * * MON#5", "2026-11-01", &["2026-11-30T00:00", "2027-03-29T00:00"]),
    ("0 0 * * 5L", "2026-11-01", &["2026-11-27T00:00", "2026-12-25T00:00"]),
    (
        "0 0 * * SUNL,3#1",
        "2026-11-01",
        &["2026-11-04T00:00", "2026-11-29T00:00", "2026-12-02T00:00"],
    ),
    (
        "5/20 8 ? JAN *",
        "2026-01-01",
        &["2026-01-01T08:05", "2026-01-01T08:25", "2026-01-01T08:45", "2026-01-02T08:05"],
    ),
    (
        "0 10-20/5 1,15 FEB-mar *",
        "2026-01-01",
        &["2026-02-01T10:00", "2026-02-01T15:00", "2026-02-01T20:00", "2026-02-15T10:00"],
    ),
    ("0 0 29 2 *", "2026-01-01", &["2028-02-29T00:00", "2032-02-29T00:00"]),
    ("30 15 10 * * *", "2026-01-01", &["2026-01-01T10:15", "2026-01-02T10:15"]),
    ("@hourly", "2026-01-01", &["2026-01-01T00:00", "2026-01-01T01:00"]),
    ("@daily", "2026-01-01", &["2026-01-01T00:00", "2026-01-02T00:00"]),
    ("@Midnight", "2026-01-01", &["2026-01-01T00:00", "2026-01-02T00:00"]),
    ("@weekly", "2026-01-01", &["2026-01-04T00:00", "2026-01-11T00:00"]),
    ("@monthly", "2026-01-02", &["2026-02-01T00:00"]),
    ("@yearly", "2026-01-02", &["2027-01-01T00:00"]),
    ("@annually", "2026-01-02", &["2027-01-01T00:00"]),
];

#[test]
fn every_form_has_the_times_that_its_manual_says() {
    for (expr, from, wanted) in ROWS {
        let schedule = compiled(&spec(Cron, expr, "UTC"));
        let found = fires(&schedule, &format!("{from}T00:00:00Z"), wanted.len());
        let found: Vec<&str> = found.iter().map(|local| &local[..16]).collect();
        assert_eq!(found, *wanted, "{expr}");
    }
}

#[test]
fn six_fields_begin_with_the_second() {
    let schedule = compiled(&spec(Cron, "*/20 * 8 * * *", "UTC"));

    assert_eq!(
        fires(&schedule, "2026-01-01T08:59:30Z", 2),
        ["2026-01-01T08:59:40+00:00", "2026-01-02T08:00:00+00:00"]
    );
}

#[test]
fn a_wrong_field_is_named_with_its_place_and_what_it_takes() {
    for (expr, words) in [
        (
            "60 * * * *",
            "field 1 (minute), \"60\" at character 1: 60 is out of range; allowed are 0-59",
        ),
        (
            "0 25 * * *",
            "field 2 (hour), \"25\" at character 3: 25 is out of range; allowed are 0-23",
        ),
        ("0 0 0 * *", "field 3 (day of month), \"0\" at character 5"),
        (
            "0 0 * 13 *",
            "field 4 (month), \"13\" at character 7: 13 is out of range; allowed are 1-12",
        ),
        (
            "0 0 * * 8",
            "field 5 (day of week), \"8\" at character 9: 8 is out of range; allowed are 0-7",
        ),
        ("0 0 * * THR", "did you mean \"THU\"?"),
        ("0 0 * FBE *", "did you mean \"FEB\"?"),
        ("0  0 * * X", "at character 10"),
        ("*/0 * * * *", "a step must be at least 1"),
        ("*/90 * * * *", "use schedule_kind \"interval\" for every 90 minutes"),
        ("0 22-6 * * *", "runs backwards; write two: 22-23,0-6"),
        ("0 0 * * 5#6", "# takes 1 to 5"),
        ("0 0 * * L", "L needs a day before it"),
        ("0 0 32W * *", "1 to 31"),
        ("1,,2 * * * *", "an entry of the list is empty"),
        ("* * * *", "there are 4"),
        ("0 0 0 1 1 * 2026", "there are 7"),
        ("", "there are 0"),
        ("@reboot", "@reboot has no time"),
        ("@dayly", "did you mean \"@daily\"?"),
        ("@every 5m", "\"PT5M\""),
        ("CRON_TZ=UTC 0 0 * * *", "use the field timezone"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
        ("0 0 31W 2 *", "never fires"),
    ] {
        let found = problems(&spec(Cron, expr, "UTC"));
        assert_eq!((found.len(), found[0].pointer.as_str()), (1, "/schedule_expr"), "{expr}");
        assert!(found[0].message.contains(words), "{expr}: {}", found[0].message);
    }
}

#[test]
fn every_wrong_field_is_told_at_once() {
    assert_eq!(problems(&spec(Cron, "99 99 99 99 99", "UTC")).len(), 5);
}
