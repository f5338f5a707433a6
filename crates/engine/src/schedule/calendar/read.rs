//! From an iCalendar file to the dates it excludes.
//!
//! Repeated events are expanded by our own schedules, so a rule means here what it means in a task.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::event::{Event, When};
use super::lines::{self, FileLines};
use super::{Calendar, DATES_MAX, ICS_MAX};
use crate::schedule::rule_text::{self, Freq, Stamp};
use crate::schedule::{Schedule, ScheduleSpec};
use crate::task::{Policy, ScheduleKind};

/// So many years before the upload repeated events are expanded from.
const YEARS_BEFORE: u32 = 5;
/// So many years after the upload they are expanded to.
const YEARS_AFTER: u32 = 30;
/// The most repeated events of one file: each costs a search.
pub(super) const REPEATED_MAX: usize = 300;
/// The most that COUNT of all repeated events may come to: each is counted out once.
pub(super) const COUNTS_MAX: u32 = 50_000;
/// The most times of repeated events, all together.
pub(super) const TIMES_MAX: usize = 50_000;
/// After so many mistakes nobody reads on.
const MISTAKES_MAX: usize = 20;

/// A file that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How many events exclude a date.
    pub events: usize,
    /// The dates.
    pub calendar: Calendar,
}

/// The text of an uploaded file, without a byte order mark.
///
/// # Errors
///
/// A sentence: it is too large, no UTF-8, or holds a NUL.
pub fn text_of(bytes: &[u8]) -> Result<&str, String> {
    if bytes.len() > ICS_MAX {
        return Err(format!("the file has {} bytes; at most {ICS_MAX} are taken", bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        format!("line {line}: byte {} of the file is no UTF-8", error.valid_up_to())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.find('\0') {
        None => Ok(text),
        Some(at) => {
            let line = text[..at].matches('\n').count() + 1;
            Err(format!("line {line}: the character U+0000 stands in it"))
        }
    }
}

/// Reads a file for an upload on the day `today`: every date that one of its events covers. An event
/// without a rule counts whatever its year; one with a rule in the years around `today`. Canceled
/// events are left out.
///
/// # Errors
///
/// Sentences for the caller, at least one and not more than a person reads, each with the event and
/// the line.
pub fn read(text: &str, today: NaiveDate) -> Result<Reading, Vec<String>> {
    if text.len() > ICS_MAX {
        return Err(vec![format!(
            "the file has {} bytes; at most {ICS_MAX} are taken",
            text.len()
        )]);
    }
    let file = lines::split(text).map_err(|said| vec![said])?;
    let home = home_of(&file).map_err(|said| vec![said])?;
    let mut problems = Vec::new();
    let mut events = Vec::new();
    for lines in &file.events {
        match Event::read(lines, home) {
            Ok(event) => events.push(event),
            Err(said) => problems.push(said),
        }
        if problems.len() == MISTAKES_MAX {
            return Err(problems);
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut found = Found::around(today, home);
    found.add_all(&mut events)?;
    let (events, calendar) = (found.events, Calendar::new(found.dates));
    match calendar.dates() {
        [] if file.events.is_empty() => {
            Err(vec!["the file has no event (BEGIN:VEVENT)".to_owned()])
        }
        [] => Err(vec![format!(
            "none of its {} events excludes a date: they are canceled, or lie outside of the years \
             from {YEARS_BEFORE} before to {YEARS_AFTER} after today",
            file.events.len()
        )]),
        _ => Ok(Reading { events, calendar }),
    }
}

/// The zone that the file says it lives in.
fn home_of(file: &FileLines) -> Result<Tz, String> {
    let Some(line) = file.head.iter().find(|line| line.text.starts_with("X-WR-TIMEZONE")) else {
        return Ok(Tz::UTC);
    };
    let name = line.text.split_once(':').map_or("", |(_, value)| value.trim());
    name.parse().map_err(|_| {
        format!("line {}: X-WR-TIMEZONE: no time zone is called {name:?}", line.number)
    })
}

/// What was found so far.
struct Found {
    home: Tz,
    /// Between which dates repeated events are expanded.
    from: NaiveDate,
    to: NaiveDate,
    /// What each date is called.
    dates: BTreeMap<NaiveDate, String>,
    events: usize,
    /// Whether the event being looked at covers a date.
    covered: bool,
    repeated: usize,
    counts: u32,
    times: usize,
}

impl Found {
    fn around(today: NaiveDate, home: Tz) -> Self {
        let from = today.checked_sub_months(Months::new(12 * YEARS_BEFORE)).unwrap_or(today);
        let to = today.checked_add_months(Months::new(12 * YEARS_AFTER)).unwrap_or(today);
        let dates = BTreeMap::new();
        Self { home, from, to, dates, events: 0, covered: false, repeated: 0, counts: 0, times: 0 }
    }

    fn add_all(&mut self, events: &mut [Event]) -> Result<(), Vec<String>> {
        // An event that stands for one time of a repeated one takes that time away from it.
        let mut moved: BTreeMap<String, Vec<When>> = BTreeMap::new();
        for event in events.iter() {
            if let (Some(uid), Some(time)) = (&event.uid, event.stands_for) {
                moved.entry(uid.clone()).or_default().push(time);
            }
        }
        let mut problems = Vec::new();
        for event in events.iter_mut().filter(|event| !event.canceled) {
            if event.stands_for.is_none()
                && let Some(times) = event.uid.as_ref().and_then(|uid| moved.get(uid))
            {
                event.exdates.extend(times);
            }
            self.covered = false;
            let added = if event.rules.is_empty() && event.rdates.is_empty() {
                self.cover(event, event.start.local(self.home))
            } else {
                self.expand(event)
            };
            match added {
                Ok(()) => self.events += usize::from(self.covered),
                Err(said) => problems.push(format!("{}: {said}", event.place)),
            }
            if problems.len() == MISTAKES_MAX || self.is_full() {
                break;
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Whether a limit of the whole file is passed: there is nothing to say about further events.
    fn is_full(&self) -> bool {
        self.dates.len() > DATES_MAX || self.times > TIMES_MAX || self.repeated > REPEATED_MAX
    }

    /// Adds the dates that `event` covers when it begins at `start`.
    fn cover(&mut self, event: &Event, start: NaiveDateTime) -> Result<(), String> {
        let end = start.checked_add_signed(event.length).ok_or("it never ends")?;
        let last = if end > start && end.time() == NaiveTime::MIN {
            end.date().pred_opt().unwrap_or(start.date())
        } else {
            end.date()
        };
        let too_many = || format!("with it the calendar has more than {DATES_MAX} dates");
        if (last - start.date()).num_days() >= i64::try_from(DATES_MAX).unwrap_or(i64::MAX) {
            return Err(too_many());
        }
        self.covered = true;
        for date in start.date().iter_days().take_while(|date| *date <= last) {
            let name = self.dates.entry(date).or_default();
            if name.is_empty() {
                name.clone_from(&event.summary);
            }
        }
        if self.dates.len() > DATES_MAX { Err(too_many()) } else { Ok(()) }
    }

    /// Adds the dates of a repeated event in the years looked at.
    fn expand(&mut self, event: &Event) -> Result<(), String> {
        self.repeated += 1;
        if self.repeated > REPEATED_MAX {
            return Err(format!("a calendar may have at most {REPEATED_MAX} repeated events"));
        }
        for rule in &event.rules {
            let read =
                rule_text::parse(rule).map_err(|said| format!("RRULE: {}", said.join("; ")))?;
            if read.freq >= Freq::Hourly {
                return Err(
                    "RRULE: FREQ must be DAILY, WEEKLY, MONTHLY or YEARLY, as only dates are \
                            taken from it"
                        .to_owned(),
                );
            }
            self.counts = self.counts.saturating_add(read.count.unwrap_or(0));
            if self.counts > COUNTS_MAX {
                return Err(format!(
                    "with it the COUNTs of the repeated events add up to more than {COUNTS_MAX}; end \
                     the rule with UNTIL"
                ));
            }
        }
        let spec = schedule_of(event, self.home);
        let schedule = Schedule::compile(&spec, DateTime::<Utc>::MIN_UTC).map_err(|problems| {
            problems.iter().map(|one| one.message.clone()).collect::<Vec<_>>().join("; ")
        })?;
        let in_utc = matches!(event.start.stamp, Stamp::Instant(_));
        // A day more at both ends: the zone is not looked at.
        let begin = self.from.and_time(NaiveTime::MIN) - event.length - TimeDelta::days(1);
        let end = self.to.checked_add_days(Days::new(1)).unwrap_or(self.to);
        let mut after = begin.and_utc();
        while let Some(nominal) = schedule.next_after(after) {
            after = nominal.at;
            if nominal.local.date() > end {
                break;
            }
            self.times += 1;
            if self.times > TIMES_MAX {
                return Err(format!(
                    "with it the repeated events come more than {TIMES_MAX} times, in the years from \
                     {} to {}",
                    self.from, self.to
                ));
            }
            if nominal.fires() {
                let home = nominal.at.with_timezone(&self.home).naive_local();
                self.cover(event, if in_utc { home } else { nominal.local })?;
            }
        }
        Ok(())
    }
}

/// The schedule whose times are those of a repeated event.
fn schedule_of(event: &Event, home: Tz) -> ScheduleSpec {
    let mut lines = vec![format!("DTSTART:{}", written(event.start, false))];
    lines.extend(event.rules.iter().map(|rule| format!("RRULE:{rule}")));
    // RFC 5545 §3.8.5.2: the start is one of the times as well; a rule has it anyway.
    let start = event.rules.is_empty().then_some(event.start);
    let rdates = start.iter().chain(&event.rdates);
    lines.extend(rdates.map(|time| format!("RDATE:{}", written(*time, true))));
    lines.extend(event.exdates.iter().map(|time| format!("EXDATE:{}", written(*time, false))));
    let zone = match event.start.stamp {
        Stamp::Instant(_) | Stamp::Date(_) => Tz::UTC,
        Stamp::Local(_) => event.start.zone.unwrap_or(home),
    };
    ScheduleSpec {
        kind: ScheduleKind::Rrule,
        expr: lines.join("\n"),
        timezone: zone.name().to_owned(),
        starts_at: None,
        ends_at: None,
        max_fires: None,
        exclude: Vec::new(),
        policy: Policy::default(),
    }
}

/// As iCalendar writes it; with `timed` a date is its midnight, as RDATE of a schedule wants it.
fn written(when: When, timed: bool) -> String {
    match when.stamp {
        Stamp::Date(date) if timed => date.format("%Y%m%dT000000").to_string(),
        Stamp::Date(date) => date.format("%Y%m%d").to_string(),
        Stamp::Local(local) => local.format("%Y%m%dT%H%M%S").to_string(),
        Stamp::Instant(at) => at.format("%Y%m%dT%H%M%SZ").to_string(),
    }
}
