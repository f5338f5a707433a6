//! Recurrence rules in words.

use chrono::{Datelike, NaiveDateTime, Timelike, Weekday};

use super::super::rule_text::{Freq, RuleText, Stamp};
use super::super::times::Times;
use super::minute;
use super::words::{WEEKDAYS, at_times, every, list, months_words, ordinal, runs, weekday_mask};

/// A recurrence rule in words.
pub(in super::super) fn rule(rule: &RuleText, start: NaiveDateTime) -> String {
    let days = if rule.freq < Freq::Hourly {
        let times = Times {
            hours: or_start(&rule.hours, start.hour()),
            minutes: or_start(&rule.minutes, start.minute()),
            seconds: or_start(&rule.seconds, start.second()),
        };
        at_times(&times, &rule_days(rule, start))
    } else {
        fine(rule)
    };
    let places: Vec<String> = rule.setpos.iter().map(|&place| ordinal(i64::from(place))).collect();
    let picked =
        (!places.is_empty()).then(|| format!("only the {} of these each time", list(&places)));
    let end = match (rule.count, rule.until) {
        (Some(1), _) => Some("one time".to_owned()),
        (Some(count), _) => Some(format!("{count} times")),
        (_, Some(Stamp::Date(date))) => Some(format!("until the end of {date}")),
        (_, Some(Stamp::Local(local))) => Some(format!("until {}", local.format("%Y-%m-%d %H:%M"))),
        (_, Some(Stamp::Instant(at))) => Some(format!("until {}", minute(at))),
        (None, None) => None,
    };
    [Some(days), picked, end].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A rule of hours, minutes or seconds.
fn fine(rule: &RuleText) -> String {
    let unit = match rule.freq {
        Freq::Hourly => "hour",
        Freq::Minutely => "minute",
        _ => "second",
    };
    let named =
        [("at minute", &rule.minutes), ("at second", &rule.seconds), ("in the hours", &rule.hours)];
    let often = std::iter::once(every(i64::from(rule.interval), unit))
        .chain(
            named
                .into_iter()
                .filter(|(_, numbers)| !numbers.is_empty())
                // Second 0 goes without saying.
                .filter(|(name, numbers)| *name != "at second" || **numbers != [0])
                .map(|(name, numbers)| format!("{name} {}", runs(&or_start(numbers, 0)))),
        )
        .collect::<Vec<_>>()
        .join(" ");
    let days = day_parts(rule);
    if days.is_empty() { often } else { format!("{often}, {days}") }
}

/// The period and the days of a rule of days or longer.
fn rule_days(rule: &RuleText, start: NaiveDateTime) -> String {
    let interval = i64::from(rule.interval);
    let named = day_parts(rule);
    let all_days = plain_weekdays(rule) == Some(0x7F);
    match rule.freq {
        Freq::Weekly => {
            let day = start.weekday().num_days_from_monday();
            let days =
                if rule.weekdays.is_empty() { 1 << day } else { plain_weekdays(rule).unwrap_or(0) };
            let in_months = months_words(&rule.months);
            let words = weekday_mask(days);
            match (interval, days) {
                (1, 0x7F) => format!("every day{in_months}"),
                (1, _) => format!("every {words}{in_months}"),
                (_, 0x7F) => format!("{} on every day{in_months}", every(interval, "week")),
                _ => format!("{} on {words}{in_months}", every(interval, "week")),
            }
        }
        Freq::Daily if interval == 1 && rule.monthdays.is_empty() && !all_days => {
            match plain_weekdays(rule) {
                Some(days) => format!("every {}{}", weekday_mask(days), months_words(&rule.months)),
                None => format!("every day{}", months_words(&rule.months)),
            }
        }
        Freq::Daily if named.is_empty() => every(interval, "day"),
        Freq::Daily => format!("{}, {named}", every(interval, "day")),
        Freq::Monthly if rule.weekdays.is_empty() && rule.monthdays.is_empty() => {
            let day = ordinal(i64::from(start.day()));
            format!("{} on the {day}{}", every(interval, "month"), months_words(&rule.months))
        }
        Freq::Monthly => format!("{} {named}", every(interval, "month")),
        _ if day_parts_without_months(rule).is_empty() => {
            let months = if rule.months.is_empty() {
                vec![i32::try_from(start.month()).unwrap_or(1)]
            } else {
                rule.months.clone()
            };
            let day = ordinal(i64::from(start.day()));
            format!("{} on the {day}{}", every(interval, "year"), months_words(&months))
        }
        _ => format!("{} {named}", every(interval, "year")),
    }
}

fn day_parts(rule: &RuleText) -> String {
    let days = day_parts_without_months(rule);
    format!("{days}{}", months_words(&rule.months)).trim_start().to_owned()
}

fn day_parts_without_months(rule: &RuleText) -> String {
    let mut parts = Vec::new();
    if !rule.monthdays.is_empty() {
        let words: Vec<String> = rule
            .monthdays
            .iter()
            .map(|&day| match day {
                -1 => "the last day".to_owned(),
                ..-1 => format!("the {} day", ordinal(i64::from(day))),
                _ => format!("the {}", ordinal(i64::from(day))),
            })
            .collect();
        parts.push(format!("on {}", list(&words)));
    }
    if !rule.yeardays.is_empty() {
        let words: Vec<String> = rule.yeardays.iter().map(ToString::to_string).collect();
        parts.push(format!("on day {} of the year", list(&words)));
    }
    if !rule.weeknos.is_empty() {
        let words: Vec<String> = rule.weeknos.iter().map(ToString::to_string).collect();
        parts.push(format!("in week {}", list(&words)));
    }
    if !rule.weekdays.is_empty() {
        let words = weekday_list(&rule.weekdays);
        let joint = if rule.monthdays.is_empty() { "on" } else { "when it is" };
        parts.push(format!("{joint} {words}"));
    }
    parts.join(" ")
}

/// The mask of BYDAY where it is given and has no numbers.
fn plain_weekdays(rule: &RuleText) -> Option<u8> {
    let plain = !rule.weekdays.is_empty() && rule.weekdays.iter().all(|(nth, _)| *nth == 0);
    plain.then(|| {
        rule.weekdays.iter().fold(0, |bits, (_, day)| bits | 1 << day.num_days_from_monday())
    })
}

fn weekday_list(days: &[(i32, Weekday)]) -> String {
    let plain = days
        .iter()
        .filter(|(nth, _)| *nth == 0)
        .fold(0, |bits, (_, day)| bits | 1 << day.num_days_from_monday());
    let mut words = Vec::new();
    if plain != 0 {
        words.push(weekday_mask(plain));
    }
    for (nth, day) in days.iter().filter(|(nth, _)| *nth != 0) {
        let name = WEEKDAYS[day.num_days_from_monday() as usize];
        words.push(format!("the {} {name}", ordinal(i64::from(*nth))));
    }
    list(&words)
}

fn or_start(numbers: &[i32], start: u32) -> Vec<u32> {
    if numbers.is_empty() {
        return vec![start];
    }
    numbers.iter().filter_map(|&number| u32::try_from(number).ok()).collect()
}
