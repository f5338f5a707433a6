//! What holds for every schedule.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::{CREATED, compiled, instant, spec};
use crate::schedule::{Nominal, Schedule, ScheduleSpec};
use crate::task::{DstFold, DstGap, Policy, ScheduleKind};

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
];

const EXPRESSIONS: [(ScheduleKind, &str); 14] = [
    (ScheduleKind::Cron, "*/20 * * * *"),
    (ScheduleKind::Cron, "0,30 0-3 * * *"),
    (ScheduleKind::Cron, "15 2 * * SUN"),
    (ScheduleKind::Cron, "0 0 L * *"),
    (ScheduleKind::Cron, "0 0 13 * FRI"),
    (ScheduleKind::Interval, "PT7H"),
    (ScheduleKind::Rrule, "FREQ=DAILY;BYHOUR=0,1,2,3;BYMINUTE=0,30"),
    (ScheduleKind::Rrule, "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=15"),
    (ScheduleKind::Rrule, "FREQ=MONTHLY;BYDAY=-1SU;BYHOUR=0,23"),
    (ScheduleKind::Rrule, "FREQ=HOURLY;INTERVAL=5"),
    (ScheduleKind::Rrule, "FREQ=HOURLY;BYMINUTE=0,20,40"),
    (ScheduleKind::Rrule, "FREQ=MINUTELY;INTERVAL=25;BYDAY=SA,SU"),
    (ScheduleKind::Rrule, "FREQ=MINUTELY;BYHOUR=0,1,2,3;INTERVAL=20"),
    (
        ScheduleKind::Rrule,
        "RRULE:FREQ=HOURLY\nRRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=30\nEXDATE:20120101T020000",
    ),
];

/// Clock changes of the zones, to ask around: Apia's missing day is the last.
const CHANGES: [&str; 6] = [
    "2026-03-29T01:00:00Z",
    "2026-10-25T01:00:00Z",
    "2026-10-03T15:30:00Z",
    "2017-10-15T03:00:00Z",
    "2017-02-19T02:00:00Z",
    "2011-12-30T10:00:00Z",
];

fn any_schedule() -> impl Strategy<Value = (String, Schedule)> {
    let gap = prop_oneof![Just(DstGap::Shift), Just(DstGap::Skip)];
    let fold = prop_oneof![Just(DstFold::First), Just(DstFold::Last), Just(DstFold::Both)];
    let excluded =
        prop_oneof![Just(vec![]), Just(vec!["2026-03-29".to_owned(), "2011-12-30".to_owned()])];
    let chosen = (0..EXPRESSIONS.len(), 0..ZONES.len());
    (chosen, gap, fold, excluded).prop_map(|((expr, zone), gap, fold, exclude)| {
        let (kind, expr) = EXPRESSIONS[expr];
        let policy = Policy { dst_gap: gap, dst_fold: fold, ..Policy::default() };
        let spec = ScheduleSpec { exclude, policy, ..spec(kind, expr, ZONES[zone]) };
        let schedule = Schedule::compile(&spec, instant("2011-01-01T00:10:00Z")).unwrap();
        (format!("{spec:?}"), schedule)
    })
}

fn any_instant() -> impl Strategy<Value = DateTime<Utc>> {
    (0..CHANGES.len(), -200_000..200_000_i64)
        .prop_map(|(change, seconds)| instant(CHANGES[change]) + TimeDelta::seconds(seconds))
}

/// Every nominal time after `from`, `count` of them.
fn walk(schedule: &Schedule, from: DateTime<Utc>, count: usize) -> Vec<Nominal> {
    let first = schedule.next_after(from);
    std::iter::successors(first, |nominal| schedule.next_after(nominal.at)).take(count).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn times_only_grow((spec, schedule) in any_schedule(), from in any_instant()) {
        let times = walk(&schedule, from, 40);
        prop_assert!(times.first().is_some_and(|first| first.at > from), "{}", spec);
        prop_assert!(times.windows(2).all(|pair| pair[0].at < pair[1].at), "{}", spec);
    }

    #[test]
    fn asking_from_anywhere_between_two_times_gives_the_second(
        (spec, schedule) in any_schedule(), from in any_instant(), later in 0.0..1.0_f64,
    ) {
        for pair in walk(&schedule, from, 30).windows(2) {
            let gap = (pair[1].at - pair[0].at).num_seconds();
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any place will do")]
            let into = (gap as f64 * later) as i64;
            let between = pair[0].at + TimeDelta::seconds(into.min(gap - 1));
            let next = schedule.next_after(between);
            prop_assert_eq!(next.as_ref(), Some(&pair[1]), "{} {}", spec, between);
        }
    }

    #[test]
    fn a_preview_is_what_asking_again_and_again_gives(
        (spec, schedule) in any_schedule(), from in any_instant(),
    ) {
        let preview = schedule.preview(from, 12, 0);
        let just_before = from - TimeDelta::seconds(1);
        let first = schedule.next_fire_after(just_before);
        let asked: Vec<_> = std::iter::successors(first, |fire| schedule.next_fire_after(fire.at))
            .take(12)
            .map(|nominal| nominal.at)
            .collect();
        let shown: Vec<_> = preview.fires.iter().map(|fire| fire.at).collect();
        prop_assert_eq!(shown, asked, "{}", spec);
        prop_assert!(!preview.exhausted);
    }

    #[test]
    fn skipping_an_excluded_stretch_loses_no_fire(
        (spec, schedule) in any_schedule(), from in any_instant(),
    ) {
        let slow = walk(&schedule, from, 400).into_iter().find(Nominal::fires);
        if let Some(slow) = slow {
            prop_assert_eq!(schedule.next_fire_after(from), Some(slow), "{}", spec);
        }
    }

    #[test]
    fn no_text_makes_it_panic(kind in 0..ScheduleKind::ALL.len(), expr in "[@*/0-9A-Z,;:=#? LW\n-]{0,40}") {
        let kind = ScheduleKind::ALL[kind];
        if let Ok(schedule) = Schedule::compile(&spec(kind, &expr, "Europe/Berlin"), instant(CREATED)) {
            let _ = schedule.preview(instant(CREATED), 3, 0);
        }
    }

    #[test]
    fn jitter_is_the_same_each_time_and_ends_before_the_next_fire(
        task in any::<u128>(), jitter_seconds in 0..5_000_u32,
    ) {
        let policy = Policy { jitter_seconds, ..Policy::default() };
        let schedule = compiled(&ScheduleSpec { policy, ..spec(ScheduleKind::Cron, "*/10 * * * *", "UTC") });
        let (task, nominal) = (uuid::Uuid::from_u128(task), instant("2026-05-05T10:20:00Z"));
        let jitter = schedule.jitter(task, nominal);
        prop_assert_eq!(jitter, schedule.jitter(task, nominal));
        prop_assert!(jitter >= TimeDelta::zero());
        prop_assert!(jitter < TimeDelta::seconds(i64::from(jitter_seconds.clamp(1, 600))));
    }
}

#[test]
fn the_ends_of_time_are_answered_calmly() {
    for (kind, expr) in EXPRESSIONS {
        let schedule = compiled(&spec(kind, expr, "Pacific/Apia"));
        assert!(schedule.next_after(DateTime::<Utc>::MIN_UTC).is_some(), "{expr}");
        let _ = schedule.next_after(DateTime::<Utc>::MAX_UTC);
        let _ = schedule.next_after(instant("9999-12-31T23:59:59Z"));
    }
}
