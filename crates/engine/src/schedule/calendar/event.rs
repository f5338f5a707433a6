//! What a VEVENT says about dates.
//!
//! Dates are local: of a time in a zone the wall clock there counts, of a time in UTC that of the
//! file's own zone (X-WR-TIMEZONE), UTC where it has none.

use chrono::{NaiveDateTime, NaiveTime, TimeDelta};
use chrono_tz::Tz;
use icalendar::parser::Property;

use super::lines::{EventLines, Line};
use crate::schedule::interval;
use crate::schedule::rule_text::Stamp;

/// How much of a name is repeated in a sentence about it, in characters.
const NAME_SHOWN: usize = 60;

/// A date or a time, as a property gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct When {
    pub(super) stamp: Stamp,
    /// Of its TZID, where that is a name that we know. Others are taken for local times.
    pub(super) zone: Option<Tz>,
}

impl When {
    /// On the wall clock, for a file that lives in `home`; a date is its midnight.
    pub(super) fn local(self, home: Tz) -> NaiveDateTime {
        match self.stamp {
            Stamp::Date(date) => date.and_time(NaiveTime::MIN),
            Stamp::Local(local) => local,
            Stamp::Instant(at) => at.with_timezone(&home).naive_local(),
        }
    }

    pub(super) fn is_date(self) -> bool {
        matches!(self.stamp, Stamp::Date(_))
    }
}

/// An event, understood.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// "line 12 (Weihnachten)"
    pub(super) place: String,
    pub(super) summary: String,
    pub(super) uid: Option<String>,
    pub(super) start: When,
    /// How long it lasts on the wall clock.
    pub(super) length: TimeDelta,
    pub(super) rules: Vec<String>,
    pub(super) rdates: Vec<When>,
    pub(super) exdates: Vec<When>,
    /// Which time of a repeated event of the same UID this one stands for.
    pub(super) stands_for: Option<When>,
    pub(super) canceled: bool,
}

#[derive(Default)]
struct Parts {
    summary: String,
    uid: Option<String>,
    start: Option<When>,
    end: Option<When>,
    duration: Option<i64>,
    rules: Vec<String>,
    rdates: Vec<When>,
    exdates: Vec<When>,
    stands_for: Option<When>,
    canceled: bool,
}

impl Event {
    /// Reads the lines that matter for dates; others are passed over.
    ///
    /// # Errors
    ///
    /// A sentence that names the event and the line.
    pub(super) fn read(lines: &EventLines, home: Tz) -> Result<Self, String> {
        let mut parts = Parts::default();
        let mut wrong = None;
        for line in &lines.lines {
            if let Err(said) = parts.take(line) {
                wrong.get_or_insert_with(|| format!("line {}: {said}", line.number));
            }
        }
        let place = match &parts.summary {
            summary if summary.is_empty() => format!("the event in line {}", lines.number),
            summary => {
                let shown: String = summary.chars().take(NAME_SHOWN).collect();
                format!("the event in line {} ({shown})", lines.number)
            }
        };
        if let Some(said) = wrong {
            return Err(format!("{place}: {said}"));
        }
        parts.event(place.clone(), home).map_err(|said| format!("{place}: {said}"))
    }
}

impl Parts {
    fn take(&mut self, line: &Line) -> Result<(), String> {
        let name = line.text.split([':', ';']).next().unwrap_or_default();
        if !matches!(
            name,
            "SUMMARY"
                | "UID"
                | "STATUS"
                | "DTSTART"
                | "DTEND"
                | "DURATION"
                | "RRULE"
                | "EXRULE"
                | "RDATE"
                | "EXDATE"
                | "RECURRENCE-ID"
        ) {
            return Ok(());
        }
        let property = Property::try_from(line.text.as_str())
            .map_err(|_| format!("{name} cannot be read; {name}:… is wanted"))?;
        let value = property.val.as_str().trim();
        let twice = |taken: bool| {
            if taken { Err(format!("{name} is given twice")) } else { Ok(()) }
        };
        match name {
            "SUMMARY" => self.summary = plain(value),
            "UID" => self.uid = Some(value.to_owned()),
            "STATUS" => self.canceled = value.eq_ignore_ascii_case("CANCELLED"),
            "DTSTART" => {
                twice(self.start.is_some())?;
                self.start = Some(one(name, &property)?);
            }
            "DTEND" => {
                twice(self.end.is_some())?;
                self.end = Some(one(name, &property)?);
            }
            "RECURRENCE-ID" => {
                if parameter(&property, "RANGE").is_some() {
                    return Err("RECURRENCE-ID with RANGE is not taken; give each time its own \
                                event, or end one rule with UNTIL and begin another"
                        .to_owned());
                }
                self.stands_for = Some(one(name, &property)?);
            }
            "DURATION" => self.duration = Some(duration(value)?),
            "RRULE" => self.rules.push(value.trim_end_matches(';').to_owned()),
            "RDATE" => self.rdates.extend(all(name, &property)?),
            "EXDATE" => self.exdates.extend(all(name, &property)?),
            _ => {
                return Err(
                    "EXRULE was withdrawn by RFC 5545; list the times with EXDATE".to_owned()
                );
            }
        }
        Ok(())
    }

    fn event(self, place: String, home: Tz) -> Result<Event, String> {
        let start = self.start.ok_or("it has no DTSTART")?;
        let length = match (self.end, self.duration) {
            (Some(_), Some(_)) => return Err("it has both DTEND and DURATION".to_owned()),
            (Some(end), None) if end.is_date() != start.is_date() => {
                return Err("DTSTART and DTEND must both be dates, or both times".to_owned());
            }
            (Some(end), None) => end.local(home) - start.local(home),
            (None, Some(seconds)) => TimeDelta::seconds(seconds),
            (None, None) => TimeDelta::zero(),
        };
        if length < TimeDelta::zero() {
            return Err("it ends before it begins".to_owned());
        }
        let length = if start.is_date() { length.max(TimeDelta::days(1)) } else { length };
        Ok(Event {
            place,
            summary: self.summary,
            uid: self.uid,
            start,
            length,
            rules: self.rules,
            rdates: self.rdates,
            exdates: self.exdates,
            stands_for: self.stands_for,
            canceled: self.canceled,
        })
    }
}

/// A name without control characters, not too long.
fn plain(value: &str) -> String {
    let spaced: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut name = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = name.floor_char_boundary(super::SUMMARY_MAX);
    name.truncate(end);
    name
}

fn duration(value: &str) -> Result<i64, String> {
    // Zero is no interval, but it is a length.
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    if !digits.is_empty() && digits.bytes().all(|digit| digit == b'0') {
        return Ok(0);
    }
    interval::parse(value.trim_start_matches('+')).map_err(|said| format!("DURATION: {said}"))
}

fn parameter<'a>(property: &'a Property<'_>, name: &str) -> Option<&'a str> {
    let found = property.params.iter().find(|one| one.key.as_str().eq_ignore_ascii_case(name))?;
    found.val.as_ref().map(icalendar::parser::ParseString::as_str)
}

fn one(name: &str, property: &Property<'_>) -> Result<When, String> {
    match all(name, property)?[..] {
        [one] => Ok(one),
        _ => Err(format!("{name} must have one value")),
    }
}

fn all(name: &str, property: &Property<'_>) -> Result<Vec<When>, String> {
    if parameter(property, "VALUE").is_some_and(|kind| kind.eq_ignore_ascii_case("PERIOD")) {
        return Err(format!("{name} of VALUE=PERIOD is not taken; give dates or times"));
    }
    // Names of zones may be written with a slash before them (RFC 5545 §3.2.19).
    let zone = parameter(property, "TZID")
        .and_then(|name| name.trim_matches('"').trim_start_matches('/').parse::<Tz>().ok());
    let read = |text: &str| {
        let stamp = Stamp::read(text).map_err(|said| format!("{name}: {said}"))?;
        Ok(When { stamp, zone })
    };
    property.val.as_str().split(',').map(read).collect()
}
