//! Recurrence rules of days and longer periods, in local time (RFC 5545 §3.3.10).
//!
//! The days are those of the crate `rrule` (`rule_days.rs`), asked from the first day of the period that
//! is wanted, whose number is worked out; so the next time costs the same ten years from DTSTART as
//! on its first day. Here the days get their times of day, and BYSETPOS is counted. DTSTART is a
//! time of the rule only when the rule matches it, and periods are never cut: BYSETPOS counts in the
//! whole first week although DTSTART stands in the middle of it.

use std::iter::Peekable;

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Timelike};

use super::rule_days::{RuleDays, week_start};
use super::rule_text::{Freq, RuleText};
use super::times::Times;
use crate::clock::YEARS;

/// The last year that is looked at.
pub(super) const LAST_YEAR: i32 = *YEARS.end();

/// A rule with FREQ of DAILY or longer.
#[derive(Clone, Debug)]
pub(super) struct DayRule {
    freq: Freq,
    interval: i64,
    start: NaiveDateTime,
    days: RuleDays,
    times: Times,
    setpos: Vec<i32>,
    into_week: u32,
    /// The last time, from UNTIL or counted from COUNT.
    end: Option<NaiveDateTime>,
}

impl DayRule {
    /// `rule` from `start` on. COUNT is counted here, once.
    ///
    /// # Errors
    ///
    /// Why the rule cannot be expanded.
    pub(super) fn new(
        rule: &RuleText,
        start: NaiveDateTime,
        until: Option<NaiveDateTime>,
    ) -> Result<Self, String> {
        let listed = |list: &[i32], default: u32| match list {
            [] => vec![default],
            list => list.iter().filter_map(|&number| u32::try_from(number).ok()).collect(),
        };
        let mut made = Self {
            freq: rule.freq,
            interval: i64::from(rule.interval),
            start,
            days: RuleDays::new(rule, start.date())?,
            times: Times {
                hours: listed(&rule.hours, start.hour()),
                minutes: listed(&rule.minutes, start.minute()),
                seconds: listed(&rule.seconds, start.second()),
            },
            setpos: rule.setpos.clone(),
            into_week: start.weekday().days_since(rule.wkst),
            end: until,
        };
        let most_days = match rule.freq {
            Freq::Yearly => 366,
            Freq::Monthly => 31,
            Freq::Weekly => rule.weekdays.len().max(1),
            _ => 1,
        };
        let most = most_days * made.times.len();
        if !rule.setpos.is_empty() && pick(&rule.setpos, most).is_empty() {
            return Err(format!(
                "this never fires: BYSETPOS picks among at most {most} times of each period"
            ));
        }
        if let Some(count) = rule.count {
            made.end = made.last_of(count);
        }
        Ok(made)
    }

    /// The first time not before `local`; `None` when there is none to the end of the rule, of a
    /// cycle of the calendar, or of the year 9999.
    pub(super) fn at_or_after(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let local = local.max(self.start);
        if self.end.is_some_and(|end| end < local) {
            return None;
        }
        let mut periods = self.periods_from(local.date())?;
        let mut set = PeriodSet::new(&self.times);
        while set.fill(self, &mut periods) {
            if self.end.is_some_and(|end| end.date() < set.days[0]) {
                return None;
            }
            let index = set.index_at_or_after(local);
            if index < set.len() {
                return Some(set.nth(index))
                    .filter(|&found| self.end.is_none_or(|end| found <= end));
            }
        }
        None
    }

    /// The `count`th time; `None` when the rule has fewer, or when it lies behind a cycle of the
    /// calendar: an end so far away is none.
    fn last_of(&self, count: u32) -> Option<NaiveDateTime> {
        let mut left = usize::try_from(count).unwrap_or(usize::MAX);
        let mut periods = self.periods_from(self.start.date())?;
        let mut set = PeriodSet::new(&self.times);
        let mut before = None;
        while set.fill(self, &mut periods) {
            // Only the period of the start has times before it.
            let before = before.take().unwrap_or_else(|| set.index_at_or_after(self.start));
            let found = set.len() - before;
            if left <= found {
                return Some(set.nth(before + left - 1));
            }
            left -= found;
        }
        None
    }

    /// The days of the rule from the period on that `date` is in, each with the number of its period.
    fn periods_from(
        &self,
        date: NaiveDate,
    ) -> Option<Peekable<impl Iterator<Item = (i64, NaiveDate)>>> {
        let first = self.first_day(self.number_of(date))?;
        let days = self.days.from(first).take_while(|day| day.year() <= LAST_YEAR);
        let numbered = days.filter_map(|day| Some((self.period_of(day)?, day)));
        Some(numbered.peekable())
    }

    /// The number of the last period that begins on or before `date`, which is not before the start.
    fn number_of(&self, date: NaiveDate) -> i64 {
        self.passed(date) / self.interval
    }

    /// The number of the period that `date` is in; `None` where INTERVAL leaves it out.
    fn period_of(&self, date: NaiveDate) -> Option<i64> {
        let passed = self.passed(date);
        (passed % self.interval == 0).then_some(passed / self.interval)
    }

    /// How many years, months, weeks or days have begun since the period of the start.
    fn passed(&self, date: NaiveDate) -> i64 {
        let start = self.start.date();
        match self.freq {
            Freq::Yearly => i64::from(date.year() - start.year()),
            Freq::Monthly => months(date) - months(start),
            Freq::Weekly => (date - week_start(start, self.into_week)).num_days().div_euclid(7),
            _ => (date - start).num_days(),
        }
    }

    /// The first day of the period of that number; `None` after the year 9999.
    fn first_day(&self, number: i64) -> Option<NaiveDate> {
        let start = self.start.date();
        let passed = number.checked_mul(self.interval)?;
        let first = match self.freq {
            Freq::Yearly => {
                let year = i32::try_from(i64::from(start.year()) + passed).ok()?;
                NaiveDate::from_ymd_opt(year, 1, 1)?
            }
            Freq::Monthly => {
                let month = months(start) + passed;
                let year = i32::try_from(month.div_euclid(12)).ok()?;
                let in_year = u32::try_from(month.rem_euclid(12)).ok()?;
                NaiveDate::from_ymd_opt(year, in_year + 1, 1)?
            }
            Freq::Weekly => {
                let days = TimeDelta::try_days(passed.checked_mul(7)?)?;
                week_start(start, self.into_week).checked_add_signed(days)?
            }
            _ => start.checked_add_signed(TimeDelta::try_days(passed)?)?,
        };
        (first.year() <= LAST_YEAR).then_some(first)
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

    /// Takes the next period out of `days`, or, where BYSETPOS does not need all of it at once, the
    /// next day; false when there is none.
    fn fill(
        &mut self,
        rule: &DayRule,
        days: &mut Peekable<impl Iterator<Item = (i64, NaiveDate)>>,
    ) -> bool {
        self.days.clear();
        let Some((number, day)) = days.next() else { return false };
        self.days.push(day);
        if rule.setpos.is_empty() {
            return true;
        }
        while let Some((_, day)) = days.next_if(|(of, _)| *of == number) {
            self.days.push(day);
        }
        self.picked = Some(pick(&rule.setpos, self.days.len() * self.times.len()));
        true
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
