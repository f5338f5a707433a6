//! What schedules cost: to compile, and to ask for the next fire.
//!
//! `cargo run --release -p orchestrator-engine --example schedule_cost` prints a table. The first part
//! is of schedules ten years old, the second of texts made to be hard, among them some that never
//! fire; "next fire" is the slow end of nine in ten. It exits with 1 when a line is over its limit: 1 ms for the next fire of the first part,
//! 50 ms to refuse one that never fires, 100 ms to compile anything.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::task::{DstFold, Policy, ScheduleKind};

const NEXT_LIMIT: Duration = Duration::from_millis(1);
const NEVER_LIMIT: Duration = Duration::from_millis(50);
const COMPILE_LIMIT: Duration = Duration::from_millis(100);
/// How many times the next fire is asked for, each from another instant.
const ASKED: u32 = 200;

const OLD: [(ScheduleKind, &str); 16] = [
    (ScheduleKind::Rrule, "FREQ=MINUTELY"),
    (ScheduleKind::Rrule, "FREQ=SECONDLY;INTERVAL=7"),
    (ScheduleKind::Rrule, "FREQ=HOURLY;INTERVAL=5;BYDAY=MO,TU,WE,TH,FR"),
    (ScheduleKind::Rrule, "FREQ=MINUTELY;INTERVAL=20;BYHOUR=9,10,11"),
    (ScheduleKind::Rrule, "FREQ=DAILY"),
    (ScheduleKind::Rrule, "FREQ=DAILY;BYDAY=MO,TU,WE,TH,FR;BYHOUR=8;BYMINUTE=30"),
    (ScheduleKind::Rrule, "FREQ=DAILY;COUNT=50000"),
    (ScheduleKind::Rrule, "FREQ=WEEKLY;INTERVAL=3"),
    (ScheduleKind::Rrule, "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH;WKST=SU"),
    (ScheduleKind::Rrule, "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18"),
    (ScheduleKind::Rrule, "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2"),
    (ScheduleKind::Rrule, "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"),
    (ScheduleKind::Rrule, "FREQ=YEARLY;BYWEEKNO=53;BYDAY=MO"),
    (ScheduleKind::Cron, "*/5 * * * *"),
    (ScheduleKind::Cron, "0 0 29 2 *"),
    (ScheduleKind::Interval, "PT15M"),
];

/// Rules that are hard in another way each; `true`: it never fires.
const HARD: [(&str, bool); 27] = [
    ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", true),
    ("FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30", true),
    ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", true),
    ("FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30", true),
    ("FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30", true),
    ("FREQ=YEARLY;BYWEEKNO=53;BYYEARDAY=180", true),
    ("FREQ=YEARLY;BYWEEKNO=53;BYMONTH=6", true),
    ("FREQ=DAILY;INTERVAL=7;BYDAY=TU", true),
    ("FREQ=DAILY;INTERVAL=371;BYDAY=TU", true),
    ("FREQ=MONTHLY;INTERVAL=12;BYMONTH=3", true),
    ("DTSTART:20170101T000000\nRRULE:FREQ=YEARLY;INTERVAL=2;BYMONTH=2;BYMONTHDAY=29", true),
    ("FREQ=WEEKLY;BYDAY=MO,TU,WE;BYSETPOS=4", true),
    ("FREQ=MONTHLY;BYMONTHDAY=1,2;BYSETPOS=366", true),
    ("FREQ=MINUTELY;INTERVAL=1440;BYHOUR=5", true),
    ("FREQ=SECONDLY;INTERVAL=65520;BYMINUTE=0;BYSECOND=1", true),
    ("FREQ=SECONDLY;INTERVAL=2;BYSECOND=1", true),
    ("FREQ=SECONDLY;INTERVAL=2;BYHOUR=9;BYSECOND=1", true),
    ("FREQ=HOURLY;INTERVAL=24;BYHOUR=5;BYMINUTE={60};BYSECOND={60}", true),
    ("FREQ=HOURLY;BYMINUTE={60};BYSECOND=1,2,3,4,5;BYSETPOS=366", true),
    ("FREQ=HOURLY;INTERVAL=25;BYMINUTE={60};BYSECOND={60};BYDAY=MO;BYSETPOS=-366", false),
    ("FREQ=YEARLY;BYHOUR={24};BYMINUTE={60};BYSECOND={60};BYSETPOS=-1,366", false),
    ("FREQ=DAILY;COUNT=100000;BYHOUR={24};BYMINUTE={60};BYSECOND={60}", false),
    ("FREQ=DAILY;COUNT=100000", false),
    ("FREQ=DAILY;COUNT=100000;BYDAY=MO,TU,WE,TH,FR,SA", false),
    ("FREQ=MONTHLY;COUNT=100000;BYMONTHDAY=31", false),
    ("FREQ=MINUTELY;COUNT=100000;BYDAY=MO;BYHOUR=9", false),
    ("FREQ=SECONDLY;COUNT=100000;BYYEARDAY=1;BYMINUTE=0;BYSECOND=0", false),
];

fn main() -> ExitCode {
    let created = at("2016-01-01T00:00:30Z");
    let mut over = 0;
    println!("{:>10}  {:>10}  schedule", "compile", "next fire");
    for (kind, expr) in OLD {
        over += u32::from(!shown(kind, expr, created, Some(NEXT_LIMIT)));
    }
    println!();
    for (expr, never) in HARD {
        let expr = filled(expr);
        let (taken, schedule) = compiled(ScheduleKind::Rrule, &expr, created);
        if never {
            let fits = schedule.is_none() && taken < NEVER_LIMIT;
            over += u32::from(!fits);
            println!("{:>10}  {:>10}  {}", told(taken), mark("refused", fits), short(&expr));
        } else {
            over += u32::from(!shown(ScheduleKind::Rrule, &expr, created, None));
        }
    }
    println!();
    for text in several() {
        let (taken, _) = compiled(ScheduleKind::Rrule, &text, created);
        let fits = taken < COMPILE_LIMIT;
        over += u32::from(!fits);
        println!("{:>10}  {:>10}  {}", told(taken), mark("", fits), short(&text));
    }
    if over == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a line; whether it is within its limits.
fn shown(kind: ScheduleKind, expr: &str, created: DateTime<Utc>, limit: Option<Duration>) -> bool {
    let (taken, schedule) = compiled(kind, expr, created);
    let Some(schedule) = schedule else {
        println!(
            "{:>10}  {:>10}  {}",
            told(taken),
            mark("refused", taken < COMPILE_LIMIT),
            short(expr)
        );
        return taken < COMPILE_LIMIT;
    };
    let mut asked = Vec::new();
    for step in 0..ASKED {
        let from = at("2026-03-20T00:00:00Z") + TimeDelta::hours(i64::from(step));
        let begun = Instant::now();
        let found = schedule.next_fire_after(from);
        asked.push(begun.elapsed());
        std::hint::black_box(found);
    }
    // Not the slowest: the machine may have been busy with something else just then.
    asked.sort_unstable();
    let worst = asked[asked.len() * 9 / 10];
    let fits = taken < COMPILE_LIMIT && limit.is_none_or(|limit| worst < limit);
    println!("{:>10}  {:>10}  {}", told(taken), mark(&told(worst), fits), short(expr));
    fits
}

/// As many hard rules in one text as it may have.
fn several() -> Vec<String> {
    let ten = |rule: &str| vec![format!("RRULE:{}", filled(rule)); 10].join("\n");
    vec![
        ten("FREQ=YEARLY;BYWEEKNO=53;BYYEARDAY=180"),
        ten("FREQ=DAILY;INTERVAL=7;BYDAY=TU"),
        ten("FREQ=WEEKLY;INTERVAL=2;BYMONTH=2;BYDAY=SU;BYSETPOS=2"),
        ten("FREQ=DAILY;INTERVAL=29;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO"),
        ten("FREQ=YEARLY;INTERVAL=3;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO"),
        ten("FREQ=SECONDLY;INTERVAL=65535;BYHOUR=9;BYMINUTE=0;BYSECOND=0;BYMONTH=2"),
        ten("FREQ=SECONDLY;INTERVAL=61;BYMINUTE=7;BYSECOND=1;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO"),
        ten("FREQ=DAILY;COUNT=100000"),
        ten("FREQ=DAILY;COUNT=10000;BYDAY=MO,TU,WE,TH,FR"),
        ten("FREQ=MINUTELY;COUNT=10000;BYDAY=MO"),
        ten("FREQ=YEARLY;COUNT=10000;BYDAY=MO"),
    ]
}

fn compiled(kind: ScheduleKind, expr: &str, at: DateTime<Utc>) -> (Duration, Option<Schedule>) {
    let spec = ScheduleSpec {
        kind,
        expr: expr.to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        starts_at: None,
        ends_at: None,
        max_fires: None,
        exclude: Vec::new(),
        policy: Policy { dst_fold: DstFold::Both, ..Policy::default() },
    };
    let begun = Instant::now();
    let schedule = Schedule::compile(&spec, at).ok();
    (begun.elapsed(), schedule)
}

/// `{60}` becomes the numbers from 0 to 59.
fn filled(rule: &str) -> String {
    let numbers = |count: u32| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    rule.replace("{60}", &numbers(60)).replace("{24}", &numbers(24))
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_default()
}

fn told(taken: Duration) -> String {
    format!("{:.3} ms", taken.as_secs_f64() * 1_000.0)
}

fn mark(text: &str, fits: bool) -> String {
    if fits { text.to_owned() } else { format!("{text} !") }
}

fn short(text: &str) -> String {
    let line = text.replace('\n', " ");
    let cut: String = line.chars().take(100).collect();
    if cut.len() < line.len() { format!("{cut}… ({} bytes)", text.len()) } else { cut }
}
