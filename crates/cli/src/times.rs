//! Times as people say them: on the wall clock of a zone, and how far away they are.

use chrono::{DateTime, Local, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use serde_json::Value;

/// A day in seconds.
const DAY: i64 = 24 * 3600;

/// Date and time to the second.
const SECONDS: &str = "%Y-%m-%d %H:%M:%S";

/// Where a time is read off a wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// That of this machine.
    Here,
    /// That of a task.
    Of(Tz),
}

impl Zone {
    /// The zone of that name; this machine's when there is no name, or an unknown one.
    pub fn named(name: Option<&str>) -> Self {
        name.and_then(|name| name.parse().ok()).map_or(Self::Here, Self::Of)
    }

    /// The wall clock at `at`: `2026-11-23 08:30`, with seconds where they are not zero.
    pub fn clock(self, at: DateTime<Utc>) -> String {
        self.format(at, if at.timestamp() % 60 == 0 { "%Y-%m-%d %H:%M" } else { SECONDS })
    }

    /// The wall clock at `at`, always with seconds.
    pub fn clock_with_seconds(self, at: DateTime<Utc>) -> String {
        self.format(at, SECONDS)
    }

    fn format(self, at: DateTime<Utc>, form: &str) -> String {
        match self {
            Self::Here => at.with_timezone(&Local).format(form).to_string(),
            Self::Of(zone) => at.with_timezone(&zone).format(form).to_string(),
        }
    }

    /// The same in RFC 3339, with the zone's offset.
    pub fn rfc3339(self, at: DateTime<Utc>) -> String {
        match self {
            Self::Here => at.with_timezone(&Local).to_rfc3339(),
            Self::Of(zone) => at.with_timezone(&zone).to_rfc3339(),
        }
    }
}

/// The time in a field of an answer.
pub fn time_in(row: &Value, field: &str) -> Option<DateTime<Utc>> {
    row.get(field)?.as_str()?.parse().ok()
}

/// `2026-11-23 08:30 (in 2 days)`, or `-`.
pub fn stamp(at: Option<DateTime<Utc>>, zone: Zone, now: DateTime<Utc>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| format!("{} ({})", zone.clock(at), away(at, now)))
}

/// How far `at` is from `now`: `in 2 days`, `5 min ago`, `now`.
pub fn away(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (at - now).num_seconds();
    let length = rough(seconds.unsigned_abs());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {length}"),
        _ => format!("{length} ago"),
    }
}

fn rough(seconds: u64) -> String {
    let rounded = |unit: u64| (seconds + unit / 2) / unit;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_570 => format!("{} min", rounded(60)),
        3_570..84_600 => format!("{} h", rounded(3_600)),
        _ => match rounded(86_400) {
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        },
    }
}

/// How long something took: `340 ms`, `3.2 s`, `4 min 5 s`, `2 h 10 min`.
pub fn length(took: TimeDelta) -> String {
    let ms = took.num_milliseconds().max(0);
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds}.{} s", ms % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A length of time as people write it: `90s`, `30m`, `2h`, `1d12h`, `1w`. `None`: it is not one.
pub fn parse_length(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit = match &rest[..letters] {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" | "day" | "days" => DAY.unsigned_abs(),
            "w" => 7 * DAY.unsigned_abs(),
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest[letters..].trim_start();
    }
    (total > 0).then_some(total)
}

/// A point in time as people write it: RFC 3339, or `2026-12-24 08:00` or `2026-12-24` on the wall
/// clock of `zone`, or a length from `now`.
///
/// # Errors
///
/// A sentence that says what can be written.
pub fn parse_time(text: &str, zone: Zone, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    if let Ok(at) = text.parse::<DateTime<Utc>>() {
        return Ok(at);
    }
    let seconds = parse_length(text.strip_prefix('+').unwrap_or(text));
    if let Some(length) =
        seconds.and_then(|s| i64::try_from(s).ok()).and_then(TimeDelta::try_seconds)
    {
        return now.checked_add_signed(length).ok_or_else(|| format!("{text:?} is too far away"));
    }
    let forms = ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"];
    let wall = forms
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| {
            text.parse::<chrono::NaiveDate>().ok().map(|day| day.and_time(chrono::NaiveTime::MIN))
        })
        .ok_or_else(|| {
            format!(
                "{text:?} is not a time: write 2026-12-24T08:00:00Z, \"2026-12-24 08:00\", or a \
                 length of time such as 2h or 1d12h"
            )
        })?;
    let at = match zone {
        Zone::Here => Local.from_local_datetime(&wall).earliest().map(|at| at.to_utc()),
        Zone::Of(zone) => zone.from_local_datetime(&wall).earliest().map(|at| at.to_utc()),
    };
    at.ok_or_else(|| format!("{text:?} does not exist there: the clocks are put forward over it"))
}

/// A point in time as [`parse_time`] reads it, but for a length, which is counted back from `now`:
/// what is looked for lies in the past. `+2h` is still ahead.
///
/// # Errors
///
/// A sentence that says what can be written.
pub fn parse_past(text: &str, zone: Zone, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    let length = parse_length(text.strip_prefix('-').unwrap_or(text));
    let back = length.and_then(|s| i64::try_from(s).ok()).and_then(TimeDelta::try_seconds);
    match back {
        Some(back) => {
            now.checked_sub_signed(back).ok_or_else(|| format!("{text:?} is too far away"))
        }
        None => parse_time(text, zone, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn distances_are_told_in_the_unit_people_would_use() {
        let now = at("2026-11-21T12:00:00Z");

        for (then, words) in [
            ("2026-11-21T12:00:00Z", "now"),
            ("2026-11-21T12:00:42Z", "in 42 s"),
            ("2026-11-21T11:55:00Z", "5 min ago"),
            ("2026-11-21T12:59:40Z", "in 1 h"),
            ("2026-11-22T11:00:00Z", "in 23 h"),
            ("2026-11-22T12:00:00Z", "in 1 day"),
            ("2026-11-19T12:00:00Z", "2 days ago"),
        ] {
            assert_eq!(away(at(then), now), words, "{then}");
        }
    }

    #[test]
    fn a_time_is_read_on_the_wall_clock_of_its_zone() {
        let now = at("2026-11-21T12:00:00Z");
        let zone = Zone::named(Some("Europe/Berlin"));

        assert_eq!(parse_time("2026-12-24 08:00", zone, now), Ok(at("2026-12-24T07:00:00Z")));
        assert_eq!(parse_time("2026-12-24", zone, now), Ok(at("2026-12-23T23:00:00Z")));
        assert_eq!(parse_time("1d12h", zone, now), Ok(at("2026-11-23T00:00:00Z")));
        assert!(parse_time("2026-03-29 02:30", zone, now).is_err(), "the hour that is skipped");
        assert!(parse_time("tomorrow", zone, now).is_err());
        assert_eq!(zone.clock(at("2026-07-01T06:00:00Z")), "2026-07-01 08:00");
        assert_eq!(zone.clock(at("2026-07-01T06:00:09Z")), "2026-07-01 08:00:09");
    }

    #[test]
    fn in_the_past_a_length_is_counted_back_from_now() {
        let now = at("2026-03-03T00:00:00Z");

        for (said, meant) in [
            ("2d", "2026-03-01T00:00:00Z"),
            ("-2d", "2026-03-01T00:00:00Z"),
            ("+2d", "2026-03-05T00:00:00Z"),
            ("2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z"),
        ] {
            assert_eq!(parse_past(said, Zone::Here, now), Ok(at(meant)), "{said}");
        }
        assert!(parse_past("soon", Zone::Here, now).is_err());
        assert!(parse_past("99999999999w", Zone::Here, now).is_err());
    }

    #[test]
    fn lengths_are_read_and_told() {
        assert_eq!(parse_length("90s"), Some(90));
        assert_eq!(parse_length("1h 30m"), Some(5_400));
        for wrong in ["", "h", "5", "5 parsecs", "0s", "99999999999999999999d"] {
            assert_eq!(parse_length(wrong), None, "{wrong:?}");
        }
        for (ms, words) in
            [(340, "340 ms"), (3_250, "3.2 s"), (245_000, "4 min 5 s"), (7_800_000, "2 h 10 min")]
        {
            assert_eq!(length(TimeDelta::milliseconds(ms)), words);
        }
    }
}
