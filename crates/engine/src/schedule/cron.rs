//! Cron: which local times five or six fields stand for. [`parse`](super::cron_text::parse) reads
//! the text; here is what the fields mean.
//!
//! Vixie's rules hold: when day of month and day of week are both restricted, either is enough;
//! when one begins with `*`, both must hold. Every search is over days and ends after one whole
//! cycle of the calendar, so a date that never comes (30 February) is found out at once.

use chrono::{Datelike, NaiveDate, NaiveDateTime};

use super::times::Times;

/// Days after which the Gregorian calendar, with its weekdays, repeats: 400 years.
pub(super) const CALENDAR_CYCLE_DAYS: i64 = 146_097;

/// The day-of-month field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MonthDays {
    /// It began with `*` (or is `?`).
    pub(super) star: bool,
    /// Bit `n`: the `n`th.
    pub(super) days: u32,
    /// `L` is 0, `L-3` is 3: so many days before the last.
    pub(super) before_last: Vec<u32>,
    /// `15W`: the weekday nearest to the 15th, inside the month.
    pub(super) nearest_weekday: Vec<u32>,
    /// `LW`: the last day of the month that is Monday to Friday.
    pub(super) last_weekday: bool,
}

/// The day-of-week field; Sunday is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WeekDays {
    /// It began with `*` (or is `?`).
    pub(super) star: bool,
    /// Bit `n`: every such day.
    pub(super) days: u8,
    /// `5#2`: (day, which one of the month).
    pub(super) nth: Vec<(u32, u32)>,
    /// Bit `n`: the last such day of the month (`5L`).
    pub(super) last: u8,
}

/// A cron expression, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cron {
    pub(super) times: Times,
    /// Bit `n`: month `n`.
    pub(super) months: u16,
    pub(super) month_days: MonthDays,
    pub(super) week_days: WeekDays,
    /// The hour field begins with `*`: such a schedule follows the passing of time through clock
    /// changes and not the policy for fixed hours.
    pub(super) every_hour: bool,
}

impl Cron {
    /// The first local time not before `local`; `None` when there is none in a whole cycle of the
    /// calendar.
    pub(super) fn at_or_after(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let index = self.times.index_at_or_after(local.time());
        if index < self.times.len() && self.has_day(local.date()) {
            return Some(local.date().and_time(self.times.nth(index)));
        }
        let mut date = local.date();
        for _ in 0..CALENDAR_CYCLE_DAYS {
            date = date.succ_opt()?;
            if self.has_day(date) {
                return Some(date.and_time(self.times.nth(0)));
            }
        }
        None
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        if self.months & (1 << date.month()) == 0 {
            return false;
        }
        let (by_month, by_week) = (self.month_days.has(date), self.week_days.has(date));
        if self.month_days.star || self.week_days.star {
            by_month && by_week
        } else {
            by_month || by_week
        }
    }
}

impl MonthDays {
    fn has(&self, date: NaiveDate) -> bool {
        if self.days & (1 << date.day()) != 0 {
            return true;
        }
        let length = month_length(date);
        if self.before_last.iter().any(|before| date.day() + before == length) {
            return true;
        }
        let weekday = date.weekday().num_days_from_monday();
        if weekday > 4 {
            return false;
        }
        if self.last_weekday && nearest_weekday(date, length, true) == date.day() {
            return true;
        }
        self.nearest_weekday
            .iter()
            .any(|&day| day <= length && nearest_weekday(date, day, false) == date.day())
    }
}

impl WeekDays {
    fn has(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        if self.days & (1 << weekday) != 0 {
            return true;
        }
        if self.last & (1 << weekday) != 0 && date.day() + 7 > month_length(date) {
            return true;
        }
        self.nth.contains(&(weekday, (date.day() - 1) / 7 + 1))
    }
}

/// How many days the month of `date` has.
pub(super) fn month_length(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}

/// The day of the month of `date` that is Monday to Friday and nearest to its `day`th, or, with
/// `not_after`, the nearest before.
fn nearest_weekday(date: NaiveDate, day: u32, not_after: bool) -> u32 {
    let length = month_length(date);
    let shift = (i64::from(day) - i64::from(date.day())).rem_euclid(7);
    let weekday = (i64::from(date.weekday().num_days_from_monday()) + shift).rem_euclid(7);
    match weekday {
        5 if day > 1 => day - 1,
        5 => day + 2,
        6 if not_after || day == length => day - 2,
        6 => day + 1,
        _ => day,
    }
}
