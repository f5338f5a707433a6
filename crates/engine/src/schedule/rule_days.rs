//! Which days a recurrence rule's BY parts let through, asked of one day at a time.

use chrono::{Datelike, Days, NaiveDate, Weekday};

use super::cron::month_length;
use super::rule_text::{Freq, RuleText};

/// The BY parts that concern days. A day must pass each that is given.
#[derive(Clone, Debug)]
pub(super) struct DayFilter {
    /// Bit `n`: month `n`; 0: every month.
    months: u16,
    weeknos: Vec<i32>,
    wkst: Weekday,
    yeardays: Vec<i32>,
    monthdays: Vec<i32>,
    /// Bit `n`: every such day, Monday is 0.
    weekdays: u8,
    /// BYDAY with numbers.
    nth: Vec<(i32, Weekday)>,
    /// The numbers count within the year, not the month.
    nth_in_year: bool,
}

impl DayFilter {
    /// The day parts of `rule`, those that are missing taken from `start` as in RFC 5545 §3.3.10:
    /// a yearly rule without days is on the start's date, a weekly one on its weekday.
    pub(super) fn new(rule: &RuleText, start: NaiveDate) -> Self {
        let mut filter = Self {
            months: mask(&rule.months),
            weeknos: rule.weeknos.clone(),
            wkst: rule.wkst,
            yeardays: rule.yeardays.clone(),
            monthdays: rule.monthdays.clone(),
            weekdays: 0,
            nth: rule.weekdays.iter().copied().filter(|(nth, _)| *nth != 0).collect(),
            nth_in_year: rule.freq == Freq::Yearly && rule.months.is_empty(),
        };
        for (_, day) in rule.weekdays.iter().filter(|(nth, _)| *nth == 0) {
            filter.weekdays |= 1 << day.num_days_from_monday();
        }
        let days_named = !(rule.weekdays.is_empty()
            && rule.monthdays.is_empty()
            && rule.yeardays.is_empty()
            && rule.weeknos.is_empty());
        if !days_named {
            let day = i32::try_from(start.day()).unwrap_or(1);
            match rule.freq {
                Freq::Yearly => {
                    if filter.months == 0 {
                        filter.months = 1 << start.month();
                    }
                    filter.monthdays = vec![day];
                }
                Freq::Monthly => filter.monthdays = vec![day],
                Freq::Weekly => filter.weekdays = 1 << start.weekday().num_days_from_monday(),
                _ => {}
            }
        }
        filter
    }

    /// Whether every day passes.
    pub(super) fn is_open(&self) -> bool {
        self.months == 0
            && self.weeknos.is_empty()
            && self.yeardays.is_empty()
            && self.monthdays.is_empty()
            && self.weekdays == 0
            && self.nth.is_empty()
    }

    /// Whether `date` passes.
    pub(super) fn has(&self, date: NaiveDate) -> bool {
        (self.months == 0 || self.months & (1 << date.month()) != 0)
            && (self.monthdays.is_empty() || self.has_monthday(date))
            && ((self.weekdays == 0 && self.nth.is_empty()) || self.has_weekday(date))
            && (self.yeardays.is_empty() || self.has_yearday(date))
            && (self.weeknos.is_empty() || self.has_weekno(date))
    }

    fn has_monthday(&self, date: NaiveDate) -> bool {
        let (day, length) = (signed(date.day()), signed(month_length(date)));
        self.monthdays.iter().any(|&wanted| wanted == day || wanted == day - length - 1)
    }

    fn has_yearday(&self, date: NaiveDate) -> bool {
        let (day, length) = (signed(date.ordinal()), signed(year_length(date)));
        self.yeardays.iter().any(|&wanted| wanted == day || wanted == day - length - 1)
    }

    fn has_weekday(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday();
        if self.weekdays & (1 << weekday.num_days_from_monday()) != 0 {
            return true;
        }
        if !self.nth.iter().any(|(_, day)| *day == weekday) {
            return false;
        }
        let (day0, length) = if self.nth_in_year {
            (date.ordinal0(), year_length(date))
        } else {
            (date.day0(), month_length(date))
        };
        let from_start = signed(day0 / 7 + 1);
        let from_end = -signed((length - 1 - day0) / 7 + 1);
        self.nth.iter().any(|&(nth, day)| day == weekday && (nth == from_start || nth == from_end))
    }

    /// Weeks begin on WKST; the first of a year is the first with four days in it (RFC 5545
    /// §3.3.10, ISO 8601 where WKST is Monday).
    fn has_weekno(&self, date: NaiveDate) -> bool {
        let into_week = date.weekday().days_since(self.wkst);
        // The week belongs to the year that its fourth day is in.
        let Some(fourth) = week_start(date, into_week).checked_add_days(Days::new(3)) else {
            return false;
        };
        let number = signed(fourth.ordinal0() / 7 + 1);
        let count = number + signed((year_length(fourth) - 1 - fourth.ordinal0()) / 7);
        self.weeknos.iter().any(|&wanted| wanted == number || wanted == number - count - 1)
    }
}

/// The day `into_week` days before `date`.
pub(super) fn week_start(date: NaiveDate, into_week: u32) -> NaiveDate {
    date.checked_sub_days(Days::new(u64::from(into_week))).unwrap_or(NaiveDate::MIN)
}

/// How many days the year of `date` has.
pub(super) fn year_length(date: NaiveDate) -> u32 {
    if date.leap_year() { 366 } else { 365 }
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn mask(numbers: &[i32]) -> u16 {
    numbers.iter().fold(0, |bits, number| bits | (1 << number))
}
