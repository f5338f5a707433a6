//! Reads one recurrence rule (`FREQ=WEEKLY;BYDAY=MO`) and refuses what RFC 5545 §3.3.10 forbids,
//! with its reason.

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc, Weekday};

use crate::problem::nearest;

/// The largest INTERVAL.
pub(super) const RULE_INTERVAL_MAX: u32 = 65_535;
/// The largest COUNT: so many times are counted once, when the rule is read.
pub(super) const RULE_COUNT_MAX: u32 = 100_000;

/// How often a rule's period comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Freq {
    Yearly,
    Monthly,
    Weekly,
    Daily,
    Hourly,
    Minutely,
    Secondly,
}

const FREQS: [(&str, Freq); 7] = [
    ("YEARLY", Freq::Yearly),
    ("MONTHLY", Freq::Monthly),
    ("WEEKLY", Freq::Weekly),
    ("DAILY", Freq::Daily),
    ("HOURLY", Freq::Hourly),
    ("MINUTELY", Freq::Minutely),
    ("SECONDLY", Freq::Secondly),
];

/// A point in time as iCalendar writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// `20261225`
    Date(NaiveDate),
    /// `20261225T083000`
    Local(NaiveDateTime),
    /// `20261225T083000Z`
    Instant(DateTime<Utc>),
}

impl Stamp {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            format!(
                "{text:?} is no date or time; 20261225, 20261225T083000 or 20261225T083000Z is wanted"
            )
        };
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        match (text.len(), digits) {
            (8, 8) => NaiveDate::parse_from_str(text, "%Y%m%d").map(Self::Date),
            (15, 14) => NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S").map(Self::Local),
            (16, 14) => NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ")
                .map(|utc| Self::Instant(utc.and_utc())),
            _ => return Err(wrong()),
        }
        .map_err(|_| wrong())
    }
}

/// A rule as written; empty lists where a part is not given. Lists are sorted and without doubles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleText {
    pub(super) freq: Freq,
    pub(super) interval: u32,
    pub(super) count: Option<u32>,
    pub(super) until: Option<Stamp>,
    pub(super) wkst: Weekday,
    pub(super) seconds: Vec<i32>,
    pub(super) minutes: Vec<i32>,
    pub(super) hours: Vec<i32>,
    /// 0: every such day; 2: the second; -1: the last.
    pub(super) weekdays: Vec<(i32, Weekday)>,
    pub(super) monthdays: Vec<i32>,
    pub(super) yeardays: Vec<i32>,
    pub(super) weeknos: Vec<i32>,
    pub(super) months: Vec<i32>,
    pub(super) setpos: Vec<i32>,
}

const PARTS: [&str; 14] = [
    "FREQ",
    "INTERVAL",
    "COUNT",
    "UNTIL",
    "WKST",
    "BYSECOND",
    "BYMINUTE",
    "BYHOUR",
    "BYDAY",
    "BYMONTHDAY",
    "BYYEARDAY",
    "BYWEEKNO",
    "BYMONTH",
    "BYSETPOS",
];

/// Reads the part behind `RRULE:`. The errors are sentences for the caller, all at once.
pub(super) fn parse(text: &str) -> Result<RuleText, Vec<String>> {
    let mut problems = Vec::new();
    let mut rule = RuleText {
        freq: Freq::Daily,
        interval: 1,
        count: None,
        until: None,
        wkst: Weekday::Mon,
        seconds: Vec::new(),
        minutes: Vec::new(),
        hours: Vec::new(),
        weekdays: Vec::new(),
        monthdays: Vec::new(),
        yeardays: Vec::new(),
        weeknos: Vec::new(),
        months: Vec::new(),
        setpos: Vec::new(),
    };
    let mut seen: Vec<String> = Vec::new();
    for part in text.trim().trim_end_matches(';').split(';') {
        let Some((name, value)) = part.split_once('=') else {
            problems.push(format!("{:?} is no part of a rule; NAME=VALUE is wanted", part.trim()));
            continue;
        };
        let (name, value) = (name.trim().to_ascii_uppercase(), value.trim().to_ascii_uppercase());
        if seen.contains(&name) {
            problems.push(format!("{name} is given twice"));
            continue;
        }
        if let Err(said) = rule.read_part(&name, &value) {
            problems.push(said);
        }
        seen.push(name);
    }
    if !seen.iter().any(|name| name == "FREQ") {
        problems.push(
            "FREQ is missing: YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY, MINUTELY or SECONDLY".into(),
        );
    } else if problems.is_empty() {
        rule.forbidden(&mut problems);
    }
    if problems.is_empty() { Ok(rule) } else { Err(problems) }
}

impl RuleText {
    /// Sets to zero what is finer than the times of day that the rule names and would be taken from
    /// a start that nobody chose: `BYHOUR=8;BYMINUTE=30` is 08:30:00, whatever the second in which
    /// the task was created.
    pub(super) fn round_times(&mut self) {
        if !self.hours.is_empty() && self.minutes.is_empty() && self.freq <= Freq::Hourly {
            self.minutes = vec![0];
        }
        let named = !self.hours.is_empty() || !self.minutes.is_empty();
        if named && self.seconds.is_empty() && self.freq <= Freq::Minutely {
            self.seconds = vec![0];
        }
    }

    fn read_part(&mut self, name: &str, value: &str) -> Result<(), String> {
        let list = |low, high| numbers(name, value, low, high);
        match name {
            "FREQ" => self.freq = freq(value)?,
            "INTERVAL" => self.interval = amount(name, value, RULE_INTERVAL_MAX, "")?,
            "COUNT" => {
                let hint = "; use UNTIL or the field max_fires for more";
                self.count = Some(amount(name, value, RULE_COUNT_MAX, hint)?);
            }
            "UNTIL" => {
                self.until = Some(Stamp::read(value).map_err(|said| format!("UNTIL: {said}"))?);
            }
            "WKST" => self.wkst = weekday(value).ok_or_else(|| not_a_day(name, value))?,
            // A leap second counts as the second before it (RFC 5545 §3.3.10).
            "BYSECOND" => {
                self.seconds = list(0, 60)?;
                self.seconds.iter_mut().for_each(|second| *second = (*second).min(59));
                self.seconds.dedup();
            }
            "BYMINUTE" => self.minutes = list(0, 59)?,
            "BYHOUR" => self.hours = list(0, 23)?,
            "BYDAY" => self.weekdays = weekdays(value)?,
            "BYMONTHDAY" => self.monthdays = list(-31, 31)?,
            "BYYEARDAY" => self.yeardays = list(-366, 366)?,
            "BYWEEKNO" => self.weeknos = list(-53, 53)?,
            "BYMONTH" => self.months = list(1, 12)?,
            "BYSETPOS" => self.setpos = list(-366, 366)?,
            "RSCALE" | "SKIP" => {
                return Err(format!(
                    "{name} (RFC 7529) is not taken: rules follow the Gregorian calendar"
                ));
            }
            "BYEASTER" => {
                return Err("BYEASTER is not in RFC 5545; list the dates with RDATE".to_owned());
            }
            _ => {
                return Err(match nearest(name, PARTS) {
                    Some(close) => format!("a rule has no part {name:?}; did you mean {close}?"),
                    None => format!("a rule has no part {name:?}; there are {}", PARTS.join(", ")),
                });
            }
        }
        Ok(())
    }

    /// The table and the sentences of RFC 5545 §3.3.10 that say MUST NOT.
    fn forbidden(&self, problems: &mut Vec<String>) {
        let mut forbid = |when: bool, message: &str| {
            if when {
                problems.push(format!("{message} (RFC 5545 §3.3.10)"));
            }
        };
        forbid(
            self.count.is_some() && self.until.is_some(),
            "COUNT and UNTIL must not occur in the same rule",
        );
        forbid(
            !self.weeknos.is_empty() && self.freq != Freq::Yearly,
            "BYWEEKNO must not be used when FREQ is anything other than YEARLY",
        );
        forbid(
            !self.yeardays.is_empty()
                && matches!(self.freq, Freq::Daily | Freq::Weekly | Freq::Monthly),
            "BYYEARDAY must not be used when FREQ is DAILY, WEEKLY or MONTHLY",
        );
        forbid(
            !self.monthdays.is_empty() && self.freq == Freq::Weekly,
            "BYMONTHDAY must not be used when FREQ is WEEKLY",
        );
        let numbered = self.weekdays.iter().any(|(nth, _)| *nth != 0);
        forbid(
            numbered && !matches!(self.freq, Freq::Yearly | Freq::Monthly),
            "BYDAY must not have a number (2MO) when FREQ is not MONTHLY or YEARLY",
        );
        forbid(
            numbered && !self.weeknos.is_empty(),
            "BYDAY must not have a number (2MO) together with BYWEEKNO",
        );
        let others = [
            self.weekdays.is_empty(),
            [&self.seconds, &self.minutes, &self.hours].iter().all(|list| list.is_empty()),
            [&self.monthdays, &self.yeardays].iter().all(|list| list.is_empty()),
            [&self.weeknos, &self.months].iter().all(|list| list.is_empty()),
        ];
        forbid(
            !self.setpos.is_empty() && others == [true; 4],
            "BYSETPOS must only be used together with another BY part",
        );
        let in_month = self.freq == Freq::Monthly || !self.months.is_empty();
        if numbered && in_month && self.weekdays.iter().any(|(nth, _)| nth.abs() > 5) {
            problems
                .push("a month has at most five of a weekday, so BYDAY takes -5 to 5 there".into());
        }
    }
}

fn freq(value: &str) -> Result<Freq, String> {
    let known = FREQS.map(|(name, _)| name);
    if let Some((_, freq)) = FREQS.iter().find(|(name, _)| *name == value) {
        return Ok(*freq);
    }
    Err(match nearest(value, known) {
        Some(close) => format!("FREQ has no value {value:?}; did you mean {close}?"),
        None => format!("FREQ has no value {value:?}; there are {}", known.join(", ")),
    })
}

fn amount(name: &str, value: &str, most: u32, hint: &str) -> Result<u32, String> {
    let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<u32>() {
        Ok(number) if (1..=most).contains(&number) && plain => Ok(number),
        _ if plain && value.trim_start_matches('0').is_empty() => {
            Err(format!("{name} must be at least 1"))
        }
        _ if plain => Err(format!("{name} must be at most {most}{hint}")),
        _ => Err(format!("{name} must be a whole number from 1 to {most}, not {value:?}")),
    }
}

/// A list of numbers from `low` to `high`, sorted; 0 is not among them when `low` is negative.
fn numbers(name: &str, value: &str, low: i32, high: i32) -> Result<Vec<i32>, String> {
    let mut list = Vec::new();
    for text in value.split(',') {
        let text = text.trim();
        let shaped = text.trim_start_matches(['+', '-']).bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<i32>() {
            Ok(0) if low < 0 => {
                return Err(format!("{name} has no 0: it counts from 1, or from -1 back"));
            }
            Ok(number) if (low..=high).contains(&number) && shaped => list.push(number),
            _ => {
                let back =
                    if low < 0 { format!(", or {low} to -1 from the end") } else { String::new() };
                return Err(format!(
                    "{name} takes {} to {high}{back}, not {text:?}",
                    low.max(0).max(i32::from(low < 0))
                ));
            }
        }
    }
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

fn weekday(text: &str) -> Option<Weekday> {
    Some(match text {
        "MO" => Weekday::Mon,
        "TU" => Weekday::Tue,
        "WE" => Weekday::Wed,
        "TH" => Weekday::Thu,
        "FR" => Weekday::Fri,
        "SA" => Weekday::Sat,
        "SU" => Weekday::Sun,
        _ => return None,
    })
}

fn not_a_day(name: &str, text: &str) -> String {
    format!("{name} has no day {text:?}; there are MO, TU, WE, TH, FR, SA and SU")
}

fn weekdays(value: &str) -> Result<Vec<(i32, Weekday)>, String> {
    let mut list = Vec::new();
    for text in value.split(',') {
        let text = text.trim();
        let split = text.len().saturating_sub(2);
        let (number, day) = text.split_at_checked(split).unwrap_or(("", text));
        let day = weekday(day).ok_or_else(|| not_a_day("BYDAY", text))?;
        let nth = match number {
            "" => 0,
            number => match number.parse::<i32>() {
                Ok(nth @ (-53..=-1 | 1..=53)) => nth,
                _ => {
                    return Err(format!(
                        "BYDAY takes 1 to 53 or -53 to -1 before the day, not {text:?}"
                    ));
                }
            },
        };
        if !list.contains(&(nth, day)) {
            list.push((nth, day));
        }
    }
    list.sort_unstable_by_key(|(nth, day)| (*nth, day.num_days_from_monday()));
    Ok(list)
}
