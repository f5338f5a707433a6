//! Cron expressions in words.

use super::super::cron::{Cron, MonthDays, WeekDays};
use super::words::{MONTHS, WEEKDAYS, at_times, list, ordinal, ranges, weekday_mask};

/// A cron expression in words.
pub(in super::super) fn cron(cron: &Cron) -> String {
    let months: Vec<String> = (1..=12)
        .filter(|n| cron.months & (1 << n) != 0 && cron.months != 0b1_1111_1111_1110)
        .filter_map(|n| MONTHS.get(n - 1).map(ToString::to_string))
        .collect();
    let in_months =
        if months.is_empty() { String::new() } else { format!(" in {}", list(&months)) };
    let by_month = (!cron.month_days.is_every()).then(|| month_day_words(&cron.month_days));
    let by_week = (!cron.week_days.is_every()).then(|| week_day_words(&cron.week_days));
    let either = !cron.month_days.star && !cron.week_days.star;
    let month_name = if months.is_empty() { " of every month" } else { "" };
    let plain_week = cron.week_days.nth.is_empty() && cron.week_days.last == 0;
    let days = match (by_month, by_week) {
        (None, None) => "every day".to_owned(),
        (Some(month), None) => format!("on {month}{month_name}"),
        (None, Some(week)) if plain_week => format!("every {week}"),
        (None, Some(week)) => format!("on {week}{month_name}"),
        (Some(month), Some(week)) if either => format!("on {month}{month_name} and every {week}"),
        (Some(month), Some(week)) => format!("on {month}{month_name} when it is {week}"),
    };
    at_times(&cron.times, &format!("{days}{in_months}"))
}

fn month_day_words(days: &MonthDays) -> String {
    let mut words: Vec<String> = Vec::new();
    let numbers: Vec<u32> = (1..=31).filter(|n| days.days & (1 << n) != 0).collect();
    words.extend(day_numbers(&numbers));
    words.extend(days.before_last.iter().map(|before| match before {
        0 => "the last day".to_owned(),
        1 => "the last day but one".to_owned(),
        more => format!("{more} days before the last"),
    }));
    words.extend(
        days.nearest_weekday
            .iter()
            .map(|day| format!("the weekday nearest the {}", ordinal(i64::from(*day)))),
    );
    if days.last_weekday {
        words.push("the last weekday".to_owned());
    }
    list(&words)
}

/// "the 1st", "the 15th"; long runs as "the 8th to 14th".
fn day_numbers(numbers: &[u32]) -> Vec<String> {
    ranges(numbers)
        .into_iter()
        .map(|(low, high)| {
            let (low, high) = (i64::from(low), i64::from(high));
            if low == high {
                format!("the {}", ordinal(low))
            } else {
                format!("the {} to {}", ordinal(low), ordinal(high))
            }
        })
        .collect()
}

fn week_day_words(days: &WeekDays) -> String {
    let monday_first = |sunday_first: u8| {
        (0..7).fold(0u8, |bits, n| {
            if sunday_first & (1 << ((n + 1) % 7)) != 0 { bits | 1 << n } else { bits }
        })
    };
    let name = |day: u32| WEEKDAYS[(day as usize + 6) % 7];
    let mut words = Vec::new();
    if days.days != 0 {
        words.push(weekday_mask(monday_first(days.days)));
    }
    words.extend(
        days.nth
            .iter()
            .map(|(day, nth)| format!("the {} {}", ordinal(i64::from(*nth)), name(*day))),
    );
    words.extend(
        (0..7).filter(|n| days.last & (1 << n) != 0).map(|n| format!("the last {}", name(n))),
    );
    list(&words)
}

impl MonthDays {
    fn is_every(&self) -> bool {
        self.days == 0xFFFF_FFFE
    }
}

impl WeekDays {
    fn is_every(&self) -> bool {
        self.days == 0x7F
    }
}
