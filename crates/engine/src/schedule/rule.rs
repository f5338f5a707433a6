//! Recurrence rules of days and longer periods, expanded in local time (RFC 5545 §3.3.10).
//!
//! Every period (a year, month, week or day, every so many as INTERVAL says) is worked out by itself from its
//! number, so the next time costs the same ten years from DTSTART as on its first day. DTSTART is a
//! time of the rule only when the rule matches it, and periods are never cut: BYSETPOS counts in the
//! whole first week although DTSTART stands in the middle of it.

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike};

use super::rule_days::{DayFilter, week_start, year_length};
use super::rule_text::{Freq, RuleText};
use super::times::Times;

/// How many days one search may look at: a whole cycle of the calendar, in periods of any length,
/// so that what was not found within does not exist.
pub(super) const SEARCH_DAYS: i64 = 150_000;
/// The last year that is looked at.
pub(super) const LAST_YEAR: i32 = 9_999;

/// A rule with FREQ of DAILY or longer.
#[derive(Clone, Debug)]
pub(super) struct DayRule {
    freq: Freq,
    interval: i64,
    start: NaiveDateTime,
    filter: DayFilter,
    times: Times,
    setpos: Vec<i32>,
    into_week: u32,
    /// The last time, from UNTIL or counted from COUNT.
    end: Option<NaiveDateTime>,
}

impl DayRule {
    /// `rule` from `start` on. COUNT is counted here, once.
    pub(super) fn new(rule: &RuleText, start: NaiveDateTime, until: Option<NaiveDateTime>) -> Self {
        let listed = |list: &[i32], default: u32| match list {
            [] => vec![default],
            list => list.iter().filter_map(|&number| u32::try_from(number).ok()).collect(),
        };
        let mut made = Self {
            freq: rule.freq,
            interval: i64::from(rule.interval),
            start,
            filter: DayFilter::new(rule, start.date()),
            times: Times {
                hours: listed(&rule.hours, start.hour()),
                minutes: listed(&rule.minutes, start.minute()),
                seconds: listed(&rule.seconds, start.second()),
            },
            setpos: rule.setpos.clone(),
            into_week: start.weekday().days_since(rule.wkst),
            end: until,
        };
        if let Some(count) = rule.count {
            made.end = made.last_of(count);
        }
        made
    }

    /// The first time not before `local`; `None` when there is none to the end of the rule, of a
    /// cycle of the calendar, or of the year 9999.
    pub(super) fn at_or_after(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let local = local.max(self.start);
        if self.end.is_some_and(|end| end < local) {
            return None;
        }
        let mut number = self.number_of(local.date());
        let mut looked = 0;
        let mut set = PeriodSet::new(&self.times);
        while looked <= SEARCH_DAYS {
            let (first, length) = self.period(number)?;
            if self.end.is_some_and(|end| end.date() < first) {
                return None;
            }
            looked += length;
            set.fill(self, first, length);
            let index = set.index_at_or_after(local);
            if index < set.len() {
                return Some(set.nth(index))
                    .filter(|&found| self.end.is_none_or(|end| found <= end));
            }
            number += 1;
        }
        None
    }

    /// The `count`th time; `None` when the rule has fewer, or when it lies behind four hundred years
    /// (of days looked at): an end so far away is none.
    fn last_of(&self, count: u32) -> Option<NaiveDateTime> {
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        let mut looked = 0;
        let mut set = PeriodSet::new(&self.times);
        for number in 0.. {
            let (first, length) = self.period(number)?;
            looked += length;
            if looked > SEARCH_DAYS {
                break;
            }
            set.fill(self, first, length);
            let before = if number == 0 { set.index_at_or_after(self.start) } else { 0 };
            let found = set.len() - before;
            if left <= found {
                return Some(set.nth(before + left - 1));
            }
            left -= found;
        }
        None
    }

    /// The number of the last period that begins on or before `date`, which is not before the start.
    fn number_of(&self, date: NaiveDate) -> i64 {
        let start = self.start.date();
        let passed = match self.freq {
            Freq::Yearly => i64::from(date.year() - start.year()),
            Freq::Monthly => months(date) - months(start),
            Freq::Weekly => (date - week_start(start, self.into_week)).num_days() / 7,
            _ => (date - start).num_days(),
        };
        passed / self.interval
    }

    /// The first day and the length in days of the period of that number; `None` after the year
    /// 9999.
    fn period(&self, number: i64) -> Option<(NaiveDate, i64)> {
        let start = self.start.date();
        let passed = number.checked_mul(self.interval)?;
        let (first, length) = match self.freq {
            Freq::Yearly => {
                let year = i32::try_from(i64::from(start.year()) + passed).ok()?;
                let first = NaiveDate::from_ymd_opt(year, 1, 1)?;
                (first, i64::from(year_length(first)))
            }
            Freq::Monthly => {
                let month = months(start) + passed;
                let year = i32::try_from(month.div_euclid(12)).ok()?;
                let in_year = u32::try_from(month.rem_euclid(12)).ok()?;
                let first = NaiveDate::from_ymd_opt(year, in_year + 1, 1)?;
                (first, i64::from(first.num_days_in_month()))
            }
            Freq::Weekly => {
                let days = TimeDelta::try_days(passed.checked_mul(7)?)?;
                (week_start(start, self.into_week).checked_add_signed(days)?, 7)
            }
            _ => (start.checked_add_signed(TimeDelta::try_days(passed)?)?, 1),
        };
        (first.year() <= LAST_YEAR).then_some((first, length))
    }
}

/// Months since the year 0.
fn months(date: NaiveDate) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month0())
}

/// The times of one period: its days, each with every time of day, or those that BYSETPOS picks.
struct PeriodSet<'a> {
    times: &'a Times,
    days: Vec<NaiveDate>,
    /// The places BYSETPOS picks, in order; `None` without BYSETPOS.
    picked: Option<Vec<usize>>,
}

impl<'a> PeriodSet<'a> {
    fn new(times: &'a Times) -> Self {
        Self { times, days: Vec::new(), picked: None }
    }

    fn fill(&mut self, rule: &DayRule, first: NaiveDate, length: i64) {
        self.days.clear();
        let days = first.iter_days().take(usize::try_from(length).unwrap_or(0));
        if rule.filter.is_open() {
            self.days.extend(days);
        } else {
            self.days.extend(days.filter(|&day| rule.filter.has(day)));
        }
        if !rule.setpos.is_empty() {
            self.picked = Some(pick(&rule.setpos, self.days.len() * self.times.len()));
        }
    }

    fn len(&self) -> usize {
        self.picked.as_ref().map_or(self.days.len() * self.times.len(), Vec::len)
    }

    fn nth(&self, index: usize) -> NaiveDateTime {
        let place = self.picked.as_ref().map_or(index, |picked| picked[index]);
        let day = self.days[place / self.times.len()];
        day.and_time(self.times.nth(place % self.times.len()))
    }

    fn index_at_or_after(&self, local: NaiveDateTime) -> usize {
        let day = self.days.partition_point(|&day| day < local.date());
        let in_day = if self.days.get(day) == Some(&local.date()) {
            self.times.index_at_or_after(local.time())
        } else {
            0
        };
        let place = day * self.times.len() + in_day;
        self.picked.as_ref().map_or(place, |picked| picked.partition_point(|&at| at < place))
    }
}

/// The places among `count` that BYSETPOS means, in order and without doubles.
pub(super) fn pick(setpos: &[i32], count: usize) -> Vec<usize> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let mut picked: Vec<usize> = setpos
        .iter()
        .map(|&position| i64::from(position))
        .map(|position| if position > 0 { position - 1 } else { count + position })
        .filter(|place| (0..count).contains(place))
        .filter_map(|place| usize::try_from(place).ok())
        .collect();
    picked.sort_unstable();
    picked.dedup();
    picked
}
