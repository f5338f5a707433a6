//! Recurrence rules of hours, minutes and seconds.
//!
//! Without BYHOUR such a rule counts elapsed time: its periods follow one another in the real world
//! and neither double nor skip when clocks change; the BY parts are asked of the local time that each
//! instant has. With BYHOUR the rule is about hours on the wall and is expanded there, like the
//! rules of days. Both are the same search, in one [`Frame`] or the other.

use std::iter::Peekable;

use chrono::{NaiveDate, NaiveDateTime, Timelike};

use super::rule::pick;
use super::rule_days::RuleDays;
use super::rule_text::{Freq, RuleText};
use super::zone::{LAST_SECOND, Zone, naive, seconds};

/// How many periods and days one search may look at.
const SEARCH_STEPS: u32 = 150_000;
/// The same where each must be looked at through a zone: more than a week has hours and an hour seconds,
/// so that a rule which meets its minute and second only once in a week's hours is found.
const ELAPSED_STEPS: u32 = 40_000;
/// How many the one count of COUNT may look at: so many for each time, and some to begin with. All
/// COUNTs of a task together are bounded, so this is, too.
const COUNT_STEPS_EACH: u32 = 2;
const COUNT_STEPS_MORE: u32 = 15_000;
/// Clocks change at whole quarters of an hour; so many seconds.
const QUARTER: i64 = 900;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// What the numbers of the search mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Seconds on the wall clock ([`seconds`]).
    Wall,
    /// Seconds since 1970, looked at through a zone.
    Elapsed(Zone),
}

impl Frame {
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
    days: RuleDays,
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
        if !rule.setpos.is_empty() && pick(&rule.setpos, within.len()).is_empty() {
            return Err(format!(
                "this never fires: BYSETPOS picks among {} times of each period",
                within.len()
            ));
        }
        let mut made = Self {
            frame,
            start: at,
            unit,
            step: unit * i64::from(rule.interval),
            origin: at - into,
            days: RuleDays::new(rule, start.date())?,
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
        let steps = match self.frame {
            Frame::Wall => SEARCH_STEPS,
            Frame::Elapsed(_) => ELAPSED_STEPS,
        };
        let found = Search::new(self, steps).at_or_after(time);
        found.filter(|&at| self.end.is_none_or(|end| at <= end))
    }

    fn last_of(&self, count: u32) -> Result<Option<i64>, String> {
        let mut left = count;
        let mut time = self.start;
        let mut search = Search::new(self, COUNT_STEPS_EACH * count + COUNT_STEPS_MORE);
        loop {
            match search.at_or_after(time) {
                Some(found) if left == 1 => return Ok(Some(found)),
                Some(found) => {
                    left -= 1;
                    time = found + 1;
                }
                None if left == count => return Ok(None),
                None if search.steps == 0 => {
                    return Err("the end of COUNT is too far to be counted; use UNTIL".to_owned());
                }
                None => return Ok(None),
            }
        }
    }

    /// Whether every time passes.
    fn is_open(&self) -> bool {
        self.days.is_open() && self.hours | self.minutes | self.seconds == 0
    }

    /// The number of the first period that ends after `time`; not below 0.
    fn period_ending_after(&self, time: i64) -> i64 {
        ((time - self.unit - self.origin).div_euclid(self.step) + 1).max(0)
    }
}

/// One search, or several with one bound, that only go forward.
struct Search<'a> {
    rule: &'a FineRule,
    /// How many more periods or days may be looked at.
    steps: u32,
    /// The days of the rule that were not passed yet (days since 1970); made at the first question.
    days: Option<Peekable<Box<dyn Iterator<Item = i64> + 'a>>>,
    /// The last day that was passed.
    passed: Option<i64>,
    /// The quarter of an hour that was looked at last, and what the zone adds to it.
    offset: (i64, i64),
}

impl<'a> Search<'a> {
    fn new(rule: &'a FineRule, steps: u32) -> Self {
        Self { rule, steps, days: None, passed: None, offset: (i64::MIN, 0) }
    }

    fn at_or_after(&mut self, time: i64) -> Option<i64> {
        let rule = self.rule;
        let time = time.max(rule.start);
        if rule.end.is_some_and(|end| end < time) {
            return None;
        }
        let mut number = rule.period_ending_after(time);
        loop {
            self.steps = self.steps.checked_sub(1)?;
            let begin = rule.origin.checked_add(number.checked_mul(rule.step)?)?;
            if rule.end.is_some_and(|end| end < begin) {
                return None;
            }
            if let Some(found) = self.first_in(begin, time) {
                return Some(found);
            }
            let target = self.skip(begin.checked_add(rule.step)?)?;
            number = (number + 1).max(rule.period_ending_after(target));
        }
    }

    /// The first time not before `time` in the period that begins at `begin`.
    fn first_in(&mut self, begin: i64, time: i64) -> Option<i64> {
        let rule = self.rule;
        if rule.is_open() {
            return self.first_of(begin, time);
        }
        let (local, last) = (self.local(begin), self.local(begin + rule.unit - 1));
        let has_day = self.has_day(local.div_euclid(DAY)) || self.has_day(last.div_euclid(DAY));
        // With BYHOUR a period lies within an hour of the wall clock.
        if !has_day || !within(rule.hours, hour_of(local)) {
            return None;
        }
        self.first_of(begin, time)
    }

    fn first_of(&mut self, begin: i64, time: i64) -> Option<i64> {
        let rule = self.rule;
        let mut times = rule.within.iter().map(|into| begin + into);
        if rule.setpos.is_empty() {
            return times.find(|&at| at >= time && self.has(at));
        }
        let set: Vec<i64> = times.filter(|&at| self.has(at)).collect();
        pick(&rule.setpos, set.len()).into_iter().map(|place| set[place]).find(|&at| at >= time)
    }

    fn has(&mut self, at: i64) -> bool {
        let rule = self.rule;
        if rule.is_open() {
            return true;
        }
        let local = self.local(at);
        within(rule.hours, hour_of(local))
            && within(rule.minutes, local.div_euclid(60).rem_euclid(60))
            && within(rule.seconds, local.rem_euclid(60))
            && self.has_day(local.div_euclid(DAY))
    }

    /// What the wall clock shows at `time`, in [`seconds`].
    fn local(&mut self, time: i64) -> i64 {
        let Frame::Elapsed(zone) = self.rule.frame else { return time };
        let quarter = time.div_euclid(QUARTER);
        if self.offset.0 != quarter {
            self.offset = (quarter, zone.offset_at(time));
        }
        time + self.offset.1
    }

    /// Whether the rule has that day. Not to be asked of a day earlier than the one before the last
    /// that was asked of: clocks that go back at midnight show that one again.
    fn has_day(&mut self, number: i64) -> bool {
        self.rule.days.is_open()
            || self.passed == Some(number)
            || self.day_at_or_after(number) == Some(number)
    }

    fn day_at_or_after(&mut self, number: i64) -> Option<i64> {
        let rule = self.rule;
        let days = self.days.get_or_insert_with(|| {
            // One more behind: see `has_day`.
            let days = rule.days.from(naive((number - 1) * DAY).date());
            let numbers: Box<dyn Iterator<Item = i64> + 'a> = Box::new(days.map(day_number));
            numbers.peekable()
        });
        while let Some(passed) = days.next_if(|&day| day < number) {
            self.passed = Some(passed);
            self.steps = self.steps.saturating_sub(1);
        }
        days.peek().copied()
    }

    /// From where to look on when the next period begins at `next`: there, or further when nothing
    /// can be in between. Where elapsed time is counted, no step leaves the quarter of an hour, for
    /// clocks change between quarters.
    fn skip(&mut self, next: i64) -> Option<i64> {
        let rule = self.rule;
        if next > LAST_SECOND {
            return None;
        }
        if rule.is_open() {
            return Some(next);
        }
        let (local, last) = (self.local(next), self.local(next + rule.unit - 1));
        let (day, last_day) = (local.div_euclid(DAY), last.div_euclid(DAY));
        if !self.has_day(day) && !self.has_day(last_day) {
            let day = self.day_at_or_after(day.max(last_day) + 1)?;
            return Some(rule.frame.time(naive(day * DAY)));
        }
        if rule.frame == Frame::Wall && !within(rule.hours, hour_of(local)) {
            return Some(next + 3_600 - local.rem_euclid(3_600));
        }
        let (minute, second) = (local.div_euclid(60).rem_euclid(60), local.rem_euclid(60));
        if rule.unit < 3_600 && !within(rule.minutes, minute) {
            let quarter = (minute / 15 + 1) * 15;
            let minutes = (minute + 1..quarter).find(|&minute| within(rule.minutes, minute));
            return Some(next - second + (minutes.unwrap_or(quarter) - minute) * 60);
        }
        if rule.unit < 60 && !within(rule.seconds, second) {
            let seconds = (second + 1..60).find(|&second| within(rule.seconds, second));
            return Some(next + seconds.unwrap_or(60) - second);
        }
        Some(next)
    }
}

/// Days since 1970.
fn day_number(date: NaiveDate) -> i64 {
    seconds(date.and_time(chrono::NaiveTime::MIN)).div_euclid(DAY)
}

fn hour_of(local: i64) -> i64 {
    local.div_euclid(3_600).rem_euclid(24)
}

fn bits(numbers: &[i32]) -> u64 {
    numbers.iter().fold(0, |bits, number| bits | (1 << number))
}

fn within(bits: u64, number: i64) -> bool {
    bits == 0 || bits & (1 << number) != 0
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;
    use crate::schedule::rule_text;

    /// How many periods and days are looked at for the next time after `year`, of a rule begun in
    /// 2016.
    fn steps(rule: &str, frame: Frame, year: i32) -> u32 {
        let rule = rule_text::parse(rule).unwrap();
        let local = |year| {
            chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_time(chrono::NaiveTime::MIN)
        };
        let fine = FineRule::new(&rule, frame, local(2016), None).unwrap();
        let mut search = Search::new(&fine, SEARCH_STEPS);
        assert!(search.at_or_after(seconds(local(year)) + 1).is_some());
        SEARCH_STEPS - search.steps
    }

    #[test]
    fn the_next_time_costs_the_same_ten_years_from_the_start() {
        let elapsed = Frame::Elapsed(Zone(Tz::Europe__Berlin));
        for (rule, frame, most) in [
            ("FREQ=MINUTELY", elapsed, 2),
            ("FREQ=SECONDLY;INTERVAL=7", elapsed, 2),
            ("FREQ=SECONDLY;BYSECOND=0", elapsed, 3),
            ("FREQ=SECONDLY;BYMINUTE=59;BYSECOND=59", elapsed, 9),
            ("FREQ=MINUTELY;BYHOUR=23;BYMINUTE=59", Frame::Wall, 30),
            ("FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=29", elapsed, 4 * 366),
        ] {
            assert!(steps(rule, frame, 2017) <= most, "{rule}: {}", steps(rule, frame, 2017));
            assert!(steps(rule, frame, 2026) <= most, "{rule}: {}", steps(rule, frame, 2026));
        }
    }
}
