//! Reads a cron expression and says exactly which field is wrong, where, and what is allowed there.

use super::cron::{Cron, MonthDays, WeekDays};
use super::times::Times;
use crate::problem::nearest;

/// One kind of field: its name, its values and the words that stand for values.
struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    words: &'static [&'static str],
    /// The value of the first word.
    first_word: u32,
    /// What it takes besides numbers, ranges, lists and steps.
    also: &'static str,
}

const SECOND: Field = plain("second", 0, 59);
const MINUTE: Field = plain("minute", 0, 59);
const HOUR: Field = plain("hour", 0, 23);
const MONTH_DAY: Field = Field {
    name: "day of month",
    low: 1,
    high: 31,
    words: &[],
    first_word: 0,
    also: ", L (last), L-3 (three before the last), LW (last weekday), 15W (weekday nearest the 15th)",
};
const MONTH: Field = Field {
    name: "month",
    low: 1,
    high: 12,
    words: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    first_word: 1,
    also: ", JAN-DEC",
};
const WEEK_DAY: Field = Field {
    name: "day of week",
    low: 0,
    high: 7,
    words: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    first_word: 0,
    also: " (0 and 7 are Sunday), SUN-SAT, 5#2 (second Friday), 5L (last Friday)",
};

const fn plain(name: &'static str, low: u32, high: u32) -> Field {
    Field { name, low, high, words: &[], first_word: 0, also: "" }
}

const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Reads five fields (minute, hour, day of month, month, day of week), six (second first), or a
/// nickname. The errors are sentences for the caller, one for every wrong field.
pub(super) fn parse(text: &str) -> Result<Cron, Vec<String>> {
    let text = text.trim();
    let text =
        if text.starts_with('@') { nickname(text).map_err(|said| vec![said])? } else { text };
    let fields: Vec<(usize, &str)> = words(text);
    if fields.first().is_some_and(|(_, word)| word.contains('=')) {
        return Err(vec![
            "settings before the fields (CRON_TZ=…, TZ=…) are not taken; use the field timezone"
                .to_owned(),
        ]);
    }
    let kinds: &[&Field] = match fields.len() {
        5 => &[&MINUTE, &HOUR, &MONTH_DAY, &MONTH, &WEEK_DAY],
        6 => &[&SECOND, &MINUTE, &HOUR, &MONTH_DAY, &MONTH, &WEEK_DAY],
        count => {
            return Err(vec![format!(
                "cron has five fields (minute, hour, day of month, month, day of week) or six \
                 (second first); there are {count}"
            )]);
        }
    };

    let mut problems = Vec::new();
    let mut values = Vec::new();
    for (index, (field, (at, text))) in kinds.iter().zip(&fields).enumerate() {
        match read(field, text) {
            Ok(value) => values.push(value),
            Err(said) => problems.push(format!(
                "field {} ({}), {text:?} at character {}: {said}; allowed are {}-{}, *, lists \
                 1,2, ranges 1-5, steps */2{}",
                index + 1,
                field.name,
                at + 1,
                field.low,
                field.high,
                field.also
            )),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let seconds = if values.len() == 6 { values.remove(0).list() } else { vec![0] };
    let [minute, hour, day, month, weekday] =
        <[Value; 5]>::try_from(values).map_err(|_| vec!["cron has five fields".to_owned()])?;
    Ok(Cron {
        every_hour: hour.star,
        times: Times { hours: hour.list(), minutes: minute.list(), seconds },
        months: (1..=12).filter(|n| month.bits & (1 << n) != 0).fold(0, |bits, n| bits | 1 << n),
        month_days: MonthDays { star: day.star, days: day.low_bits(), ..day.month_days },
        week_days: WeekDays {
            star: weekday.star,
            days: sunday_once(weekday.bits),
            ..weekday.week_days
        },
    })
}

/// What one field says.
#[derive(Default)]
struct Value {
    star: bool,
    bits: u64,
    month_days: MonthDays,
    week_days: WeekDays,
}

impl Value {
    fn list(&self) -> Vec<u32> {
        (0..60).filter(|n| self.bits & (1 << n) != 0).collect()
    }

    fn low_bits(&self) -> u32 {
        (0..32).filter(|n| self.bits & (1 << n) != 0).fold(0, |bits, n| bits | 1 << n)
    }
}

/// Bits 0 to 7 with 7 (Sunday, too) moved to 0.
fn sunday_once(bits: u64) -> u8 {
    (0..8u8).filter(|n| bits & (1 << n) != 0).fold(0, |days, n| days | 1 << (n % 7))
}

fn nickname(text: &str) -> Result<&'static str, String> {
    let known = NICKNAMES.map(|(name, _)| name);
    if let Some((_, fields)) = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(fields);
    }
    if text.eq_ignore_ascii_case("@reboot") {
        return Err("@reboot has no time: this service goes on through restarts. Use \
                    schedule_kind \"event\" or \"manual\""
            .to_owned());
    }
    if text.starts_with("@every") {
        return Err("@every is no cron; use schedule_kind \"interval\" with a duration such as \
                    \"PT5M\""
            .to_owned());
    }
    Err(match nearest(text, known) {
        Some(close) => format!("{text:?} is not known; did you mean {close:?}?"),
        None => format!("{text:?} is not known; there are {}", known.join(", ")),
    })
}

/// The words of `text`, each with the number of characters before it.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    for piece in text.split(char::is_whitespace) {
        if !piece.is_empty() {
            found.push((at, piece));
        }
        at += piece.chars().count() + 1;
    }
    found
}

fn read(field: &Field, text: &str) -> Result<Value, String> {
    let mut value = Value { star: text.starts_with(['*', '?']), ..Value::default() };
    for part in text.split(',') {
        if part.is_empty() {
            return Err("an entry of the list is empty".to_owned());
        }
        let part = part.to_ascii_uppercase();
        let special = match field.name {
            "day of month" => read_month_day(&part, &mut value.month_days)?,
            "day of week" => read_week_day(&part, &mut value.week_days)?,
            _ => false,
        };
        if !special {
            value.bits |= read_range(field, &part)?;
        }
    }
    Ok(value)
}

/// `L`, `L-3`, `LW`, `15W`; false when it is none of these.
fn read_month_day(part: &str, days: &mut MonthDays) -> Result<bool, String> {
    if part == "L" {
        days.before_last.push(0);
    } else if part == "LW" || part == "WL" {
        days.last_weekday = true;
    } else if let Some(before) = part.strip_prefix("L-") {
        match before.parse() {
            Ok(before @ 1..=30) => days.before_last.push(before),
            _ => return Err("L- takes 1 to 30 days".to_owned()),
        }
    } else if let Some(day) = part.strip_suffix('W') {
        match day.parse() {
            Ok(day @ 1..=31) => days.nearest_weekday.push(day),
            _ => return Err("W takes one day before it, 1 to 31".to_owned()),
        }
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// `5#2`, `5L`; false when it is neither.
fn read_week_day(part: &str, days: &mut WeekDays) -> Result<bool, String> {
    if let Some((day, which)) = part.split_once('#') {
        let day = number(&WEEK_DAY, day)? % 7;
        match which.parse() {
            Ok(which @ 1..=5) => days.nth.push((day, which)),
            _ => return Err(format!("a month has a first to fifth {part:?}, so # takes 1 to 5")),
        }
    } else if part == "L" {
        return Err("L needs a day before it (5L is the last Friday)".to_owned());
    } else if let Some(day) = part.strip_suffix('L') {
        days.last |= 1 << (number(&WEEK_DAY, day)? % 7);
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// `*`, `5`, `1-5`, each with `/step`; as bits.
fn read_range(field: &Field, part: &str) -> Result<u64, String> {
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(read_step(field, step)?)),
        None => (part, None),
    };
    let (low, high) = if range == "*" {
        // Day of week is 0 to 7, but * must not count Sunday twice when it steps.
        (field.low, if field.name == WEEK_DAY.name { 6 } else { field.high })
    } else if range == "?" && matches!(field.name, "day of month" | "day of week") {
        (field.low, field.high)
    } else if let Some((low, high)) = range.split_once('-') {
        let low = number(field, low)?;
        let mut high = number(field, high)?;
        // FRI-SUN: at the end of a range Sunday is the seventh day.
        if field.name == WEEK_DAY.name && high == 0 && low > 0 {
            high = 7;
        }
        if high < low {
            return Err(format!(
                "the range {range} runs backwards; write two: {low}-{},{}-{high}",
                field.high, field.low
            ));
        }
        (low, high)
    } else {
        let low = number(field, range)?;
        (low, if step.is_some() { field.high } else { low })
    };
    let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
    Ok((low..=high).step_by(step).fold(0, |bits, n| bits | 1 << n))
}

fn read_step(field: &Field, step: &str) -> Result<u32, String> {
    let longest = field.high - field.low + 1;
    match step.parse::<u32>() {
        Ok(0) => Err("a step must be at least 1".to_owned()),
        Ok(step) if step <= longest => Ok(step),
        Ok(step) => Err(format!(
            "the step {step} is longer than the field, which would start again each time; use \
             schedule_kind \"interval\" for every {step} {}s",
            field.name
        )),
        Err(_) => Err(format!("{step:?} is no step")),
    }
}

fn number(field: &Field, text: &str) -> Result<u32, String> {
    if let Some(index) = field.words.iter().position(|word| *word == text) {
        return Ok(field.first_word + u32::try_from(index).unwrap_or(0));
    }
    match text.parse::<u32>() {
        Ok(number) if (field.low..=field.high).contains(&number) && !text.starts_with('+') => {
            Ok(number)
        }
        Ok(number) => Err(format!("{number} is out of range")),
        Err(_) => Err(match nearest(text, field.words.iter().copied()) {
            Some(close) => format!("{text:?} is no {}; did you mean {close:?}?", field.name),
            None => format!("{text:?} is no {}", field.name),
        }),
    }
}
