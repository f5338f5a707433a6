//! Recurrence rules of hours, minutes and seconds.
//!
//! Without BYHOUR such a rule counts elapsed time: its periods follow one another in the real world
//! and neither double nor skip when clocks change; the BY parts are asked of the local time that each
//! instant has. With BYHOUR the rule is about hours on the wall and is expanded there, like the
//! rules of days. Both are the same search, in one [`Frame`] or the other.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::rule::{LAST_YEAR, pick};
use super::rule_days::DayFilter;
use super::rule_text::{Freq, RuleText};
use super::zone::{Zone, naive, seconds};

/// How many periods or days one search may look at.
const SEARCH_STEPS: u32 = 150_000;
/// How many the one count of COUNT may look at.
const COUNT_STEPS: u32 = 2_000_000;

/// What the numbers of the search mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Seconds on the wall clock ([`seconds`]).
    Wall,
    /// Seconds since 1970, looked at through a zone.
    Elapsed(Zone),
}

impl Frame {
    fn local(self, time: i64) -> NaiveDateTime {
        match self {
            Self::Wall => naive(time),
            Self::Elapsed(zone) => zone.local_at(time),
        }
    }

    fn time(self, local: NaiveDateTime) -> i64 {
        match self {
            Self::Wall => seconds(local),
            Self::Elapsed(zone) => zone.first_instant(local),
        }
    }
}

/// A rule with FREQ of HOURLY, MINUTELY or SECONDLY.
#[derive(Clone, Debug)]
pub(super) struct FineRule {
    frame: Frame,
    start: i64,
    /// The length of a period, in seconds.
    unit: i64,
    /// From one period to the next, in seconds.
    step: i64,
    /// When the period of the start begins.
    origin: i64,
    days: DayFilter,
    days_open: bool,
    /// Bits; 0 is no restriction.
    hours: u64,
    minutes: u64,
    seconds: u64,
    /// The seconds of a period at which the rule has a time.
    within: Vec<i64>,
    setpos: Vec<i32>,
    /// The last time, from UNTIL or counted from COUNT.
    end: Option<i64>,
}

impl FineRule {
    /// `rule` from `start` on (a local time); `until` is in `frame`. COUNT is counted here, once; an
    /// error says that it could not be.
    pub(super) fn new(
        rule: &RuleText,
        frame: Frame,
        start: NaiveDateTime,
        until: Option<i64>,
    ) -> Result<Self, String> {
        let minute = i64::from(start.minute());
        let second = i64::from(start.second());
        let listed = |list: &[i32], default: i64| match list {
            [] => vec![default],
            list => list.iter().map(|&number| i64::from(number)).collect(),
        };
        // What is shorter than the period expands it, what is as long or longer limits.
        let (unit, into, within) = match rule.freq {
            Freq::Secondly => (1, 0, vec![0]),
            Freq::Minutely => (60, second, listed(&rule.seconds, second)),
            _ => {
                let seconds = listed(&rule.seconds, second);
                let within = listed(&rule.minutes, minute)
                    .iter()
                    .flat_map(|minute| seconds.iter().map(move |second| minute * 60 + second))
                    .collect();
                (3_600, minute * 60 + second, within)
            }
        };
        let at = frame.time(start);
        let days = DayFilter::new(rule, start.date());
        let mut made = Self {
            frame,
            start: at,
            unit,
            step: unit * i64::from(rule.interval),
            origin: at - into,
            days_open: days.is_open(),
            days,
            hours: bits(&rule.hours),
            minutes: if rule.freq == Freq::Hourly { 0 } else { bits(&rule.minutes) },
            seconds: if rule.freq == Freq::Secondly { bits(&rule.seconds) } else { 0 },
            within,
            setpos: rule.setpos.clone(),
            end: until,
        };
        if let Some(count) = rule.count {
            made.end = made.last_of(count)?;
        }
        Ok(made)
    }

    /// The first time of the rule not before `time`, both in the rule's frame; `None` when there is
    /// none to the end of the rule or within the bound of the search.
    pub(super) fn at_or_after(&self, time: i64) -> Option<i64> {
        self.search(time, &mut SEARCH_STEPS.clone())
            .filter(|&at| self.end.is_none_or(|end| at <= end))
    }

    fn last_of(&self, count: u32) -> Result<Option<i64>, String> {
        let mut left = count;
        let mut time = self.start;
        let mut steps = COUNT_STEPS;
        loop {
            match self.search(time, &mut steps) {
                Some(found) if left == 1 => return Ok(Some(found)),
                Some(found) => {
                    left -= 1;
                    time = found + 1;
                }
                None if steps == 0 => {
                    return Err("the end of COUNT is too far to be counted; use UNTIL".to_owned());
                }
                None => return Ok(None),
            }
        }
    }

    /// Looks from `time` on and takes what it looks at from `steps`.
    fn search(&self, time: i64, steps: &mut u32) -> Option<i64> {
        let time = time.max(self.start);
        if self.end.is_some_and(|end| end < time) {
            return None;
        }
        let mut number = self.period_ending_after(time);
        loop {
            *steps = steps.checked_sub(1)?;
            let begin = self.origin.checked_add(number.checked_mul(self.step)?)?;
            if self.end.is_some_and(|end| end < begin) {
                return None;
            }
            if let Some(found) = self.first_in(begin, time) {
                return Some(found);
            }
            let next = begin.checked_add(self.step)?;
            let target = self.skip(next, steps)?;
            number = (number + 1).max(self.period_ending_after(target));
        }
    }

    /// The number of the first period that ends after `time`; not below 0.
    fn period_ending_after(&self, time: i64) -> i64 {
        ((time - self.unit - self.origin).div_euclid(self.step) + 1).max(0)
    }

    /// The first time not before `time` in the period that begins at `begin`.
    fn first_in(&self, begin: i64, time: i64) -> Option<i64> {
        let passing = || self.within.iter().map(|into| begin + into).filter(|&at| self.has(at));
        if self.setpos.is_empty() {
            return passing().find(|&at| at >= time);
        }
        let set: Vec<i64> = passing().collect();
        pick(&self.setpos, set.len()).into_iter().map(|place| set[place]).find(|&at| at >= time)
    }

    fn has(&self, at: i64) -> bool {
        if self.days_open && self.hours | self.minutes | self.seconds == 0 {
            return true;
        }
        let local = self.frame.local(at);
        within(self.hours, local.hour())
            && within(self.minutes, local.minute())
            && within(self.seconds, local.second())
            && (self.days_open || self.days.has(local.date()))
    }

    /// From where to look on when the next period begins at `next`: there, or further when nothing
    /// can be in between. Hours and minutes are left one at a time, so that no clock change is
    /// jumped over.
    fn skip(&self, next: i64, steps: &mut u32) -> Option<i64> {
        let (local, last) = (self.frame.local(next), self.frame.local(next + self.unit - 1));
        if local.year() > LAST_YEAR {
            return None;
        }
        if !self.days_open && !self.days.has(local.date()) && !self.days.has(last.date()) {
            let date = self.next_day(local.date().max(last.date()), steps)?;
            return Some(self.frame.time(date.and_time(NaiveTime::MIN)));
        }
        if self.frame == Frame::Wall && !within(self.hours, local.hour()) {
            return Some(next + 3_600 - i64::from(local.minute() * 60 + local.second()));
        }
        if self.unit < 60 && !within(self.minutes, local.minute()) {
            return Some(next + 60 - i64::from(local.second()));
        }
        Some(next)
    }

    fn next_day(&self, after: NaiveDate, steps: &mut u32) -> Option<NaiveDate> {
        let mut date = after;
        loop {
            *steps = steps.checked_sub(1)?;
            date = date.succ_opt().filter(|date| date.year() <= LAST_YEAR)?;
            if self.days.has(date) {
                return Some(date);
            }
        }
    }
}

fn bits(numbers: &[i32]) -> u64 {
    numbers.iter().fold(0, |bits, number| bits | (1 << number))
}

fn within(bits: u64, number: u32) -> bool {
    bits == 0 || bits & (1 << number) != 0
}
