//! What is refused, with what words, and that it is refused without much looking.

use super::{compiled, instant, problems, spec};
use crate::schedule::ScheduleSpec;
use crate::task::ScheduleKind::{Condition, Cron, Event, Interval, Manual, Once, Rrule};
use crate::task::{DstGap, Policy};

#[test]
fn a_wrong_expression_is_refused_with_what_would_be_right() {
    for (kind, expr, words) in [
        (Rrule, "", "a recurrence rule is wanted"),
        (Rrule, "every monday", "\"FREQ=…\" is wanted"),
        (Rrule, "BYDAY=MO", "FREQ is missing"),
        (Rrule, "FREQ=DAYLY", "did you mean DAILY?"),
        (Rrule, "FREQ=DAILY;BYDAYS=MO", "did you mean BYDAY?"),
        (Rrule, "FREQ=DAILY;FREQ=DAILY", "FREQ is given twice"),
        (Rrule, "FREQ=DAILY;INTERVAL=0", "INTERVAL must be at least 1"),
        (Rrule, "FREQ=DAILY;INTERVAL=65536", "INTERVAL must be at most 65535"),
        (Rrule, "FREQ=DAILY;COUNT=100001", "COUNT must be at most 100000; use UNTIL"),
        (Rrule, "FREQ=DAILY;BYHOUR=24", "BYHOUR takes 0 to 23, not \"24\""),
        (Rrule, "FREQ=MONTHLY;BYMONTHDAY=0", "BYMONTHDAY has no 0"),
        (
            Rrule,
            "FREQ=MONTHLY;BYMONTHDAY=32",
            "BYMONTHDAY takes 1 to 31, or -31 to -1 from the end",
        ),
        (Rrule, "FREQ=WEEKLY;BYDAY=XX", "there are MO, TU"),
        (Rrule, "FREQ=MONTHLY;BYDAY=6MO", "at most five"),
        (Rrule, "FREQ=DAILY;UNTIL=tomorrow", "UNTIL: \"TOMORROW\" is no date or time"),
        (Rrule, "FREQ=YEARLY;BYEASTER=0", "BYEASTER is not in RFC 5545"),
        (Rrule, "FREQ=DAILY;RSCALE=CHINESE", "RFC 7529"),
        (Rrule, "EXRULE:FREQ=DAILY\nRRULE:FREQ=DAILY", "EXRULE was withdrawn"),
        (Rrule, "DTSTART:20260101T000000", "never repeats"),
        (
            Rrule,
            "DTSTART;TZID=Europe/Berlin:20260101T000000\nRRULE:FREQ=DAILY",
            "make them the same",
        ),
        (Rrule, "DTSTART:20260101\nDTSTART:20260102\nRRULE:FREQ=DAILY", "only one DTSTART"),
        (Rrule, "RDATE;VALUE=PERIOD:19960403T020000Z/PT3H", "VALUE=PERIOD is not taken"),
        (Rrule, "RDATE:20261225", "RDATE needs a time"),
        (Rrule, "SUMMARY:Lunch\nRRULE:FREQ=DAILY", "\"SUMMARY\" is not taken"),
        (Rrule, "FREQ=DAILY;UNTIL=20200101", "never fires"),
        (Once, "tomorrow", "an instant \"2026-12-24T17:00:00Z\" or a local time"),
        (Once, "2026-12-24", "is no time"),
        (Event, "a..b", "empty word"),
        (Manual, "* * * * *", "must be empty"),
        (Interval, "1 month", "no interval"),
    ] {
        let found = problems(&spec(kind, expr, "UTC"));
        assert_eq!(
            (found.len(), found[0].pointer.as_str()),
            (1, "/schedule_expr"),
            "{expr}: {found:?}"
        );
        assert!(found[0].message.contains(words), "{expr}: {}", found[0].message);
    }
    assert_eq!(problems(&spec(Condition, "x > 1", "UTC"))[0].pointer, "/schedule_kind");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let spec = ScheduleSpec {
        exclude: vec!["2026-12-25".into(), "Christmas".into()],
        ..spec(Rrule, "FREQ=DAILY;BYHOUR=30;BYMINUTE=99", "Europe/Berlni")
    };

    let places: Vec<String> = problems(&spec).into_iter().map(|problem| problem.pointer).collect();

    assert_eq!(places, ["/timezone", "/exclude/1", "/schedule_expr", "/schedule_expr"]);
}

#[test]
fn a_schedule_whose_bounds_or_exclusions_leave_nothing_is_refused_there() {
    let daily = spec(Cron, "0 9 * * *", "UTC");
    let ended = ScheduleSpec { ends_at: Some(instant("2026-01-01T08:00:00Z")), ..daily.clone() };
    assert_eq!(problems(&ended)[0].pointer, "/ends_at");

    let excluded = ScheduleSpec { exclude: vec!["2000-01-01/9999-12-31".into()], ..daily };
    assert_eq!(problems(&excluded)[0].pointer, "/exclude");

    let holiday = ScheduleSpec {
        exclude: vec!["2026-12-25".into()],
        ..spec(Once, "2026-12-25T09:00", "Europe/Berlin")
    };
    assert_eq!(problems(&holiday)[0].pointer, "/exclude");
}

#[test]
fn a_single_time_inside_a_gap_is_refused_where_gaps_are_skipped() {
    let policy = Policy { dst_gap: DstGap::Skip, ..Policy::default() };
    let spec = ScheduleSpec { policy, ..spec(Once, "2026-03-29T02:30", "Europe/Berlin") };

    assert!(problems(&spec)[0].message.contains("02:30 does not exist on 2026-03-29"));
}

/// Each of these would make a search walk second by second, or for ever. None may be looked at for
/// long: the searches count their steps, and this test ends.
#[test]
fn a_hostile_rule_is_given_up_or_answered_soon() {
    let all_seconds = (0..60).map(|second| second.to_string()).collect::<Vec<_>>().join(",");
    let all_hours = (0..24).map(|hour| hour.to_string()).collect::<Vec<_>>().join(",");
    let every_second = format!("BYHOUR={all_hours};BYMINUTE={all_seconds};BYSECOND={all_seconds}");
    let never = [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30".to_owned(),
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30".to_owned(),
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30".to_owned(),
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30;BYHOUR=3".to_owned(),
        "FREQ=HOURLY;INTERVAL=24;BYHOUR=5".to_owned(),
        "FREQ=MINUTELY;INTERVAL=60;BYMINUTE=7".to_owned(),
        "FREQ=SECONDLY;INTERVAL=65520;BYMINUTE=0;BYSECOND=1".to_owned(),
        "FREQ=SECONDLY;INTERVAL=2;BYHOUR=9;BYSECOND=1".to_owned(),
        "FREQ=MONTHLY;INTERVAL=12;BYMONTH=3".to_owned(),
        "FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6".to_owned(),
        format!("FREQ=DAILY;{every_second};BYSETPOS=366;BYMONTH=2;BYMONTHDAY=31"),
        format!("FREQ=DAILY;COUNT=100000;BYMONTH=2;BYMONTHDAY=31;{every_second}"),
    ];
    for expr in never {
        let found = problems(&spec(Rrule, &expr, "UTC"));
        assert!(found[0].message.contains("never fires"), "{expr}: {found:?}");
    }
    let slow = [
        format!("FREQ=YEARLY;{every_second};BYSETPOS=-1,1"),
        format!("FREQ=YEARLY;{every_second};BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS=366"),
        format!(
            "FREQ=HOURLY;BYMINUTE={all_seconds};BYSECOND={all_seconds};BYMONTH=2;BYMONTHDAY=29"
        ),
        "FREQ=SECONDLY;INTERVAL=65535;BYHOUR=9;BYMINUTE=0;BYSECOND=0".to_owned(),
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO".to_owned(),
        "FREQ=MONTHLY;COUNT=100000".to_owned(),
        "FREQ=MINUTELY;COUNT=100000".to_owned(),
        "FREQ=SECONDLY;COUNT=100000;BYYEARDAY=1;BYMINUTE=0;BYSECOND=0".to_owned(),
    ];
    for expr in slow {
        let schedule = compiled(&spec(Rrule, &expr, "America/New_York"));
        assert!(schedule.next_after(instant("2026-03-01T12:00:00Z")).is_some(), "{expr}");
    }
    let uncountable = "FREQ=MINUTELY;COUNT=100000;BYDAY=MO;BYHOUR=9;BYMINUTE=0";
    let refused = problems(&spec(Rrule, uncountable, "UTC"));
    assert!(refused[0].message.contains("too far to be counted"), "{refused:?}");
    let several = ["RRULE:FREQ=DAILY;COUNT=60000"; 2].join("\n");
    assert!(problems(&spec(Rrule, &several, "UTC"))[0].message.contains("together"));
}
