//! Others' answers to the same questions: python-dateutil (a fixture, made by
//! `tests/data/make_dateutil.py`), and the crates `rrule` and `croner`, expanded without zones.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::{compiled, instant, spec};
use crate::schedule::Schedule;
use crate::task::ScheduleKind::{Cron, Rrule};

#[derive(serde::Deserialize)]
struct Fixture {
    far_days: i64,
    /// Start, rule, whether the times are all of them until far, the first times.
    cases: Vec<(NaiveDateTime, String, bool, Vec<NaiveDateTime>)>,
}

#[test]
fn random_rules_have_the_times_that_dateutil_gives_them() {
    let text = include_str!("../../../tests/data/dateutil.json");
    let fixture: Fixture = serde_json::from_str(text).unwrap();
    assert!(fixture.cases.len() > 500);
    let mut wrong = Vec::new();
    for (start, rule, complete, wanted) in &fixture.cases {
        let expr = format!("DTSTART:{}\nRRULE:{rule}", start.format("%Y%m%dT%H%M%S"));
        let far = start.and_utc() + TimeDelta::days(fixture.far_days);
        let schedule = Schedule::compile(&spec(Rrule, &expr, "UTC"), instant(super::CREATED));
        let found: Vec<NaiveDateTime> = match &schedule {
            Ok(schedule) => {
                let count = wanted.len() + usize::from(*complete);
                let fires = schedule.preview(start.and_utc(), count, 0).fires;
                fires
                    .iter()
                    .map(|fire| fire.at)
                    .filter(|at| *at < far)
                    .map(|at| at.naive_utc())
                    .collect()
            }
            // A rule that never fires is refused.
            Err(problems) if problems[0].message.contains("never fires") => Vec::new(),
            Err(problems) => panic!("{expr}: {problems:?}"),
        };
        if found != *wanted {
            wrong.push(format!("{expr}\n  wanted {wanted:?}\n  found  {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), fixture.cases.len(), wrong.join("\n"));
}

/// Far from DTSTART the period is worked out from its number; the crate walks there.
#[test]
fn a_rule_asked_far_from_its_start_agrees_with_one_that_walked_there() {
    for rule in [
        "FREQ=WEEKLY;INTERVAL=3;WKST=SU;BYDAY=TU,SU",
        "FREQ=MONTHLY;INTERVAL=5;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2",
        "FREQ=YEARLY;INTERVAL=3;BYWEEKNO=1,53;BYDAY=MO,SU",
        "FREQ=DAILY;INTERVAL=13;BYMONTH=2,7",
        "FREQ=HOURLY;INTERVAL=7;BYMINUTE=5,50",
        "FREQ=HOURLY;INTERVAL=5;BYHOUR=3,4",
        "FREQ=MINUTELY;INTERVAL=1001;BYSECOND=1,2",
        "FREQ=MONTHLY;COUNT=60;BYMONTHDAY=31",
    ] {
        let text = format!("DTSTART:20160229T101112Z\nRRULE:{rule}");
        let walked: rrule::RRuleSet = text.parse().unwrap();
        let mut walked = walked.into_iter().map(|at| at.to_utc());
        let schedule = compiled(&spec(Rrule, &text, "UTC"));
        let from = instant("2023-07-05T00:00:00Z");
        let wanted: Vec<DateTime<Utc>> =
            walked.by_ref().skip_while(|at| *at < from).take(20).collect();
        let found: Vec<_> =
            schedule.preview(from, 20, 0).fires.iter().map(|fire| fire.at).collect();
        assert_eq!(found, wanted, "{rule}");
    }
}

/// One cron field from its kind: `*`, a step, a range, or a list.
fn field(low: u32, high: u32) -> impl Strategy<Value = String> {
    let range = (low..=high).prop_flat_map(move |from| (Just(from), from..=high));
    prop_oneof![
        3 => Just("*".to_owned()),
        1 => (1..=(high - low) / 2).prop_map(|step| format!("*/{step}")),
        2 => (low..=high).prop_map(|value| value.to_string()),
        1 => range.clone().prop_map(|(from, to)| format!("{from}-{to}")),
        1 => (range, 1..4u32).prop_map(|((from, to), step)| format!("{from}-{to}/{step}")),
        1 => proptest::collection::vec(low..=high, 2..4)
            .prop_map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
    ]
}

proptest! {
    #[test]
    fn random_cron_expressions_have_the_times_that_croner_gives_them(
        (minute, hour, day, month, weekday) in
            (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6)),
        start in 0..2_000_000_000_i64,
    ) {
        // Where one of both days begins with a star but is not one, croner means either, Vixie both.
        prop_assume!(!day.starts_with("*/") && !weekday.starts_with("*/"));
        let expr = format!("{minute} {hour} {day} {month} {weekday}");
        let other: croner::Cron = expr.parse().unwrap();
        let schedule = compiled(&spec(Cron, &expr, "UTC"));
        let mut at = DateTime::from_timestamp(start, 0).unwrap();
        for _ in 0..5 {
            let wanted = other.find_next_occurrence(&at, false).unwrap();
            let found = schedule.next_after(at).map(|nominal| nominal.at);
            prop_assert_eq!(found, Some(wanted), "{} after {}", expr, at);
            at = wanted;
        }
    }
}
