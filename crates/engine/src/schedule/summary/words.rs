//! Small words that the summaries of all kinds share.

use chrono::NaiveDate;

use super::super::times::Times;
use super::super::wall::time_of;

/// The most times of day that are listed one by one.
pub(super) const TIMES_LISTED: usize = 6;

pub(super) const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `days` with the times of day.
pub(super) fn at_times(times: &Times, days: &str) -> String {
    if times.len() <= TIMES_LISTED {
        let all: Vec<String> = (0..times.len())
            .map(|index| time_of(NaiveDate::default().and_time(times.nth(index))))
            .collect();
        return format!("{days} at {}", list(&all));
    }
    let all_hours = times.hours.len() == 24;
    let often = match (steps(&times.seconds, 60), steps(&times.minutes, 60)) {
        (Some(step), Some(1)) => every(step, "second"),
        (_, Some(step)) if times.seconds == [0] => every(step, "minute"),
        _ if times.seconds == [0] && times.minutes.len() == 1 => match steps(&times.hours, 24) {
            Some(step) if times.minutes == [0] => every(step, "hour"),
            Some(step) => format!("{} at minute {}", every(step, "hour"), times.minutes[0]),
            None => format!("at minute {}", times.minutes[0]),
        },
        _ if times.seconds == [0] => format!("at minute {}", runs(&times.minutes)),
        _ => format!("at minute {} and second {}", runs(&times.minutes), runs(&times.seconds)),
    };
    let stepped_hours = times.minutes.len() == 1 && steps(&times.hours, 24).is_some();
    let hours = if all_hours || stepped_hours {
        String::new()
    } else {
        format!(" in the hours {}", runs(&times.hours))
    };
    let days = if days == "every day" { String::new() } else { format!(", {days}") };
    format!("{often}{hours}{days}")
}

/// "Monday to Friday", "Monday and Thursday"; bit 0 is Monday.
pub(super) fn weekday_mask(days: u8) -> String {
    let numbers: Vec<u32> = (0..7).filter(|n| days & (1 << n) != 0).collect();
    let words: Vec<String> = ranges(&numbers)
        .into_iter()
        .map(|(low, high)| {
            let (low, high) = (WEEKDAYS[low as usize], WEEKDAYS[high as usize]);
            if low == high { low.to_owned() } else { format!("{low} to {high}") }
        })
        .collect();
    list(&words)
}

pub(super) fn months_words(months: &[i32]) -> String {
    let words: Vec<String> = months
        .iter()
        .filter_map(|&month| MONTHS.get(usize::try_from(month - 1).ok()?).map(ToString::to_string))
        .collect();
    if words.is_empty() { String::new() } else { format!(" in {}", list(&words)) }
}

pub(super) fn every(count: i64, unit: &str) -> String {
    if count == 1 { format!("every {unit}") } else { format!("every {count} {unit}s") }
}

/// 1st, 2nd, 11th; last, 2nd last.
pub(super) fn ordinal(number: i64) -> String {
    if number == -1 {
        return "last".to_owned();
    }
    if number < 0 {
        return format!("{} last", ordinal(-number));
    }
    let ending = match (number % 10, number % 100) {
        (1, teen) if teen != 11 => "st",
        (2, teen) if teen != 12 => "nd",
        (3, teen) if teen != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// "a, b and c"
pub(super) fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// "0, 30" or "9 to 17".
pub(super) fn runs(numbers: &[u32]) -> String {
    let words: Vec<String> = ranges(numbers)
        .into_iter()
        .map(|(low, high)| if low == high { low.to_string() } else { format!("{low} to {high}") })
        .collect();
    list(&words)
}

/// Runs of at least three neighbours as (low, high); others as (n, n).
pub(super) fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match found.last_mut() {
            Some((_, high)) if *high + 1 == number => *high = number,
            _ => found.push((number, number)),
        }
    }
    found
        .into_iter()
        .flat_map(
            |(low, high)| {
                if high - low == 1 { vec![(low, low), (high, high)] } else { vec![(low, high)] }
            },
        )
        .collect()
}

/// The step when `numbers` are 0, step, 2 × step … below `all` and the step divides it.
pub(super) fn steps(numbers: &[u32], all: u32) -> Option<i64> {
    let step = all / u32::try_from(numbers.len()).ok()?;
    let regular = numbers.iter().zip(0..).all(|(&number, index)| number == index * step);
    (regular
        && numbers.len() > 1
        && all.is_multiple_of(step)
        && numbers.len() as u64 == u64::from(all / step))
    .then(|| i64::from(step))
}
