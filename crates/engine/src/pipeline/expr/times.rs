//! Times and durations in expressions. A time is a text in RFC 3339, so that it goes into JSON and
//! comes out of it unchanged; these filters read and write it.

use std::fmt::Write as _;

use chrono::format::{Item, StrftimeItems};
use chrono::{
    DateTime, Datelike as _, FixedOffset, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc,
};
use minijinja::{Environment, Error, Value};

use super::engine::refused;
use crate::clock::YEARS;

/// The longest duration: a hundred years, in seconds.
const DURATION_MAX_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

pub(super) fn add_to(env: &mut Environment<'static>) {
    env.add_filter("plus", |time: Value, by: Value| moved(&time, &by, 1));
    env.add_filter("minus", |time: Value, by: Value| moved(&time, &by, -1));
    env.add_filter("in_zone", in_zone);
    env.add_filter("format", format_time);
    env.add_filter("timestamp", |value: Value| Ok::<_, Error>(time(&value)?.timestamp()));
    env.add_filter("seconds_until", |from: Value, to: Value| {
        Ok::<_, Error>((time(&to)? - time(&from)?).num_seconds())
    });
    env.add_function("time", |value: Value| Ok::<_, Error>(print(&time(&value)?)));
    env.add_test("before", |a: Value, b: Value| Ok::<_, Error>(time(&a)? < time(&b)?));
    env.add_test("after", |a: Value, b: Value| Ok::<_, Error>(time(&a)? > time(&b)?));
}

/// `time` as expressions see it: RFC 3339 in UTC, whole seconds, so that texts of times compare as
/// the times do.
#[must_use]
pub fn print_utc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn print(time: &DateTime<FixedOffset>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A time as people and programs write it: RFC 3339, a date (its midnight in UTC), or seconds since
/// 1970.
fn time(value: &Value) -> Result<DateTime<FixedOffset>, Error> {
    let found = found(value)?;
    if YEARS.contains(&found.year()) {
        return Ok(found);
    }
    Err(refused(format!("{value:?} is not a time in the years 1 to 9999")))
}

fn found(value: &Value) -> Result<DateTime<FixedOffset>, Error> {
    if let Some(text) = value.as_str() {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(time);
        }
        if let Ok(date) = text.parse::<NaiveDate>() {
            return Ok(date.and_time(NaiveTime::MIN).and_utc().fixed_offset());
        }
    } else if let Some(time) = value.as_i64().and_then(|at| DateTime::from_timestamp(at, 0)) {
        return Ok(time.fixed_offset());
    }
    Err(refused(format!(
        "{value:?} is not a time: times look like 2026-03-01T08:00:00Z or 2026-03-01"
    )))
}

fn moved(value: &Value, by: &Value, sign: i32) -> Result<String, Error> {
    let by = match by.as_str() {
        Some(text) => parse_duration(text).map_err(refused)?,
        None => from_seconds(f64::try_from(by.clone())?).map_err(refused)?,
    };
    time(value)?
        .checked_add_signed(by * sign)
        .map(|time| print(&time))
        .ok_or_else(|| refused("the calendar ends before that time"))
}

/// The zone called `zone`.
pub(super) fn parse_zone(zone: &str) -> Result<chrono_tz::Tz, Error> {
    zone.parse().map_err(|_| {
        let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let hint = crate::problem::nearest(zone, names)
            .map_or_else(String::new, |near| format!(". Did you mean {near:?}?"));
        refused(format!("unknown time zone {zone:?}{hint}"))
    })
}

fn in_zone(value: &Value, zone: &str) -> Result<String, Error> {
    Ok(print(&time(value)?.with_timezone(&parse_zone(zone)?).fixed_offset()))
}

/// The parts of a strftime pattern.
pub(super) fn parse_format(pattern: &str) -> Result<Vec<Item<'_>>, Error> {
    let items: Vec<Item> = StrftimeItems::new(pattern).collect();
    if items.contains(&Item::Error) {
        return Err(refused(format!("wrong format {pattern:?}: it looks like %Y-%m-%d %H:%M")));
    }
    Ok(items)
}

fn format_time(value: &Value, pattern: &str) -> Result<String, Error> {
    let items = parse_format(pattern)?;
    let mut out = String::new();
    write!(out, "{}", time(value)?.format_with_items(items.iter()))
        .map_err(|_| refused(format!("a time cannot be written as {pattern:?}")))?;
    Ok(out)
}

/// Reads a duration: `90s`, `15m`, `24h`, `2d`, `1w`, joined as in `1h30m`, or ISO 8601 as in
/// `PT15M` and `P1DT2H`. Days have 24 hours.
///
/// # Errors
///
/// A sentence that says how durations are written; also for months and years, which have no fixed
/// length, and for more than a hundred years.
pub fn parse_duration(text: &str) -> Result<TimeDelta, String> {
    let wrong = || {
        format!("{text:?} is not a duration: durations look like 90s, 15m, 24h, 2d, 1h30m or PT15M")
    };
    let upper = text.trim().to_ascii_uppercase();
    let (mut rest, iso) = match upper.strip_prefix('P') {
        Some(rest) => (rest, true),
        None => (upper.as_str(), false),
    };
    let mut in_time = !iso;
    let mut seconds = 0.0;
    let mut parts = 0;
    while !rest.is_empty() {
        if iso && let Some(after) = rest.strip_prefix('T') {
            (rest, in_time) = (after, true);
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit_end =
            rest[end..].find(|c: char| !c.is_ascii_alphabetic() || iso).unwrap_or(rest.len() - end);
        let unit_end =
            if iso { rest[end..].chars().next().map_or(0, char::len_utf8) } else { unit_end };
        let unit = match (&rest[end..end + unit_end], in_time) {
            ("MS", true) if !iso => 0.001,
            ("S", true) => 1.0,
            ("M", true) => 60.0,
            ("H", true) => 3_600.0,
            ("D", _) => 86_400.0,
            ("W", _) => 604_800.0,
            _ => return Err(wrong()),
        };
        seconds += number * unit;
        parts += 1;
        rest = rest[end + unit_end..].trim_start();
    }
    if parts == 0 {
        return Err(wrong());
    }
    from_seconds(seconds)
}

#[expect(clippy::cast_possible_truncation, reason = "bounded by DURATION_MAX_SECONDS")]
fn from_seconds(seconds: f64) -> Result<TimeDelta, String> {
    if seconds.is_nan() || seconds.abs() > DURATION_MAX_SECONDS {
        return Err("a duration may have at most a hundred years".to_owned());
    }
    Ok(TimeDelta::milliseconds((seconds * 1_000.0).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let cases = [
            ("90s", Some(90_000)),
            ("15m", Some(900_000)),
            ("24h", Some(86_400_000)),
            ("2d", Some(172_800_000)),
            ("1w", Some(604_800_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("0.5h", Some(1_800_000)),
            ("250ms", Some(250)),
            ("PT15M", Some(900_000)),
            ("P1DT2H", Some(93_600_000)),
            ("P2W", Some(1_209_600_000)),
            ("P1M", None),
            ("P1Y", None),
            ("PT", None),
            ("", None),
            ("5", None),
            ("h", None),
            ("-5m", None),
            ("5 parsecs", None),
            ("99999999999d", None),
            ("1.2.3h", None),
            ("5ä", None),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text).ok().map(|d| d.num_milliseconds()), millis, "{text}");
        }
    }
}
