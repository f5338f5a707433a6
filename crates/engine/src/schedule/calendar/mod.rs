//! Named calendars: dates on which schedules rest, from an iCalendar file (RFC 5545).
//!
//! A file is read once, when it is uploaded ([`read`]), and kept as the dates it came to: a schedule
//! that names a calendar asks for dates and knows nothing of events. Whoever compiles such a schedule
//! hands over the [`Calendars`] of the task's owner.

mod event;
mod lines;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::NaiveDate;

pub use self::read::{Reading, read, text_of};
use crate::problem::nearest;

/// How an entry of `exclude` begins that names a calendar.
pub const PREFIX: &str = "calendar:";
/// The largest file, in bytes.
pub const ICS_MAX: usize = 1 << 20;
/// The most dates of one calendar.
pub const DATES_MAX: usize = 20_000;
/// The most calendars that one schedule may name.
pub const NAMED_MAX: usize = 10;
/// The longest name that a date keeps of its event, in bytes.
pub const SUMMARY_MAX: usize = 100;

/// The name in an entry of `exclude` such as `calendar:de-holidays`; `None` for dates.
#[must_use]
pub fn named_in(entry: &str) -> Option<&str> {
    entry.strip_prefix(PREFIX)
}

/// What is wrong with the name of a calendar, if anything.
///
/// # Errors
///
/// A sentence that says what a name looks like.
pub fn check_name(name: &str) -> Result<(), String> {
    if crate::task::is_slug(name) {
        return Ok(());
    }
    Err(format!(
        "must be 1 to {} lower-case letters, digits, '-', '_' or '.', begin with a letter or digit, \
         and not look like an id",
        crate::task::NAME_MAX
    ))
}

/// The dates of a calendar, each with what it is called there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// In order, no date twice.
    dates: Vec<(NaiveDate, String)>,
}

impl Calendar {
    /// The calendar of these dates. Of a date that comes twice the first name that is not empty is
    /// kept.
    #[must_use]
    pub fn new(dates: impl IntoIterator<Item = (NaiveDate, String)>) -> Self {
        let mut named: BTreeMap<NaiveDate, String> = BTreeMap::new();
        for (date, name) in dates {
            let kept = named.entry(date).or_default();
            if kept.is_empty() {
                *kept = name;
            }
        }
        Self { dates: named.into_iter().collect() }
    }

    /// The dates and their names, in order.
    #[must_use]
    pub fn dates(&self) -> &[(NaiveDate, String)] {
        &self.dates
    }

    /// What `date` is called: empty where nobody says; `None` when it is not in the calendar.
    #[must_use]
    pub fn name_of(&self, date: NaiveDate) -> Option<&str> {
        let at = self.dates.binary_search_by_key(&date, |(date, _)| *date).ok()?;
        Some(&self.dates[at].1)
    }

    /// The last date of the unbroken stretch that `date` is in; `None` when it is not in the calendar.
    pub(super) fn until(&self, date: NaiveDate) -> Option<NaiveDate> {
        let first = self.dates.binary_search_by_key(&date, |(date, _)| *date).ok()?;
        let days = self.dates[first..].windows(2);
        let more = days.take_while(|pair| pair[0].0.succ_opt() == Some(pair[1].0)).count();
        Some(self.dates[first + more].0)
    }
}

/// The calendars of one agent, as far as they are asked for.
#[derive(Clone, Debug, Default)]
pub struct Calendars {
    loaded: BTreeMap<String, Arc<Calendar>>,
    others: Vec<String>,
    any: bool,
}

impl Calendars {
    /// Every name stands for a calendar without dates: for whoever wants the words of a schedule, or
    /// its times whether they fire or not, and no fires.
    #[must_use]
    pub fn any() -> Self {
        Self { any: true, ..Self::default() }
    }

    /// Adds a calendar.
    pub fn insert(&mut self, name: impl Into<String>, calendar: Arc<Calendar>) {
        self.loaded.insert(name.into(), calendar);
    }

    /// Adds names of calendars that exist besides, to be suggested where a name is wrong.
    pub fn suggest(&mut self, names: impl IntoIterator<Item = String>) {
        self.others.extend(names);
    }

    /// The calendar of that name, or what to say to the person who wrote it.
    pub(super) fn get(&self, name: &str) -> Result<Arc<Calendar>, String> {
        if let Some(found) = self.loaded.get(name) {
            return Ok(Arc::clone(found));
        }
        if self.any {
            return Ok(Arc::default());
        }
        let known = self.loaded.keys().chain(&self.others).map(String::as_str);
        Err(match nearest(name, known) {
            Some(near) => format!("there is no calendar {name:?}; did you mean {near:?}?"),
            None => format!("there is no calendar {name:?}; PUT /calendars/{{name}} makes one"),
        })
    }
}
