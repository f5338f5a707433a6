//! Others' answers to the same questions: python-dateutil and croniter, with clock changes resolved in
//! Python (fixtures, made by `tests/data/make_fixtures.py`; `make fuzz-time` asks them live), and the
//! crates `rrule`, left to walk from DTSTART on, and `croner`, without zones.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::{compiled, instant, spec};
use crate::schedule::{Schedule, ScheduleSpec};
use crate::task::ScheduleKind::{self, Cron, Rrule};
use crate::task::{DstFold, DstGap, Policy};

#[derive(serde::Deserialize)]
struct Fixture {
    kind: ScheduleKind,
    far_days: i64,
    cases: Vec<Case>,
}

/// Expression, zone, policies for gap and fold, from when, whether the times are all of them, times.
type Case = (String, String, String, DateTime<Utc>, bool, Vec<DateTime<Utc>>);

fn agrees(fixture: &str) {
    let fixture: Fixture = serde_json::from_str(fixture).unwrap();
    assert!(fixture.cases.len() > 1_000);
    let mut wrong = Vec::new();
    for (expr, zone, policies, from, complete, wanted) in &fixture.cases {
        let (gap, fold) = policies.split_once(' ').unwrap();
        let dst_gap = if gap == "skip" { DstGap::Skip } else { DstGap::Shift };
        let dst_fold = match fold {
            "first" => DstFold::First,
            "last" => DstFold::Last,
            _ => DstFold::Both,
        };
        let policy = Policy { dst_gap, dst_fold, ..Policy::default() };
        let spec = ScheduleSpec { policy, ..spec(fixture.kind, expr, zone) };
        let found: Vec<DateTime<Utc>> = match Schedule::compile(&spec, instant(super::CREATED)) {
            Ok(schedule) => {
                let count = wanted.len() + usize::from(*complete);
                let fires = schedule.preview(*from, count, 0).fires;
                let far = *from + TimeDelta::days(fixture.far_days);
                fires.iter().map(|fire| fire.at).filter(|at| *at < far).collect()
            }
            // A rule that never fires is refused.
            Err(problems) if problems[0].message.contains("never fires") => Vec::new(),
            Err(problems) => panic!("{expr}: {problems:?}"),
        };
        if found != *wanted {
            wrong.push(format!(
                "{expr} in {zone}, {policies}, from {from}\n  wanted {wanted:?}\n  found  {found:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), fixture.cases.len(), wrong.join("\n"));
}

#[test]
fn random_rules_have_the_times_that_dateutil_gives_them() {
    agrees(include_str!("../../../tests/data/dateutil.json"));
}

#[test]
fn random_rules_in_zones_have_the_instants_that_dateutil_and_zoneinfo_give_them() {
    agrees(include_str!("../../../tests/data/dateutil_zones.json"));
}

#[test]
fn random_cron_expressions_have_the_instants_that_croniter_and_zoneinfo_give_them() {
    agrees(include_str!("../../../tests/data/croniter.json"));
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

/// Where the crate `croner` and we differ, so that nobody replaces one by the other unseen: the first
/// time after 1 November 2026 there (`None`: refused or not found), and here.
#[test]
fn croner_differs_where_the_decision_record_says() {
    for (expr, theirs, ours) in [
        // Every second day that is a Monday: one field begins with *, so both must hold.
        ("0 0 */2 * 1", Some("2026-11-02"), Some("2026-11-09")),
        ("0 0 1 * */2", Some("2026-11-03"), Some("2026-12-01")),
        ("0 0 L-3 * *", None, Some("2026-11-27")),
        ("0 0 5/20 * *", None, Some("2026-11-05")),
        ("0 0 30 2 *", None, None),
    ] {
        let from = instant("2026-11-01T00:00:00Z");
        let date = |at: DateTime<Utc>| at.date_naive().to_string();
        let found = expr.parse::<croner::Cron>().ok();
        let found = found.and_then(|cron| cron.find_next_occurrence(&from, false).ok());
        assert_eq!(found.map(date).as_deref(), theirs, "{expr}");
        let schedule = Schedule::compile(&spec(Cron, expr, "UTC"), from).ok();
        let found = schedule.and_then(|schedule| schedule.next_after(from));
        assert_eq!(found.map(|nominal| date(nominal.at)).as_deref(), ours, "{expr}");
    }
}
