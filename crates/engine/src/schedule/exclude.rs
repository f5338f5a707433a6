//! Local dates on which a schedule rests.

use std::sync::Arc;

use chrono::NaiveDate;

use super::calendar::{self, Calendar, Calendars};
use crate::problem::Problem;

/// Dates on which nothing fires.
#[derive(Clone, Debug, Default)]
pub(super) struct Excluded {
    /// Date ranges, both ends included, in order and apart from each other.
    ranges: Vec<(NaiveDate, NaiveDate)>,
    /// Calendars by name. Shared: many schedules name the same few.
    calendars: Vec<(String, Arc<Calendar>)>,
}

impl Excluded {
    /// Reads `2026-12-25`, `2026-12-24/2026-12-26` and `calendar:de-holidays`; what is wrong is
    /// added to `problems` under `/exclude/<index>`.
    pub(super) fn read(entries: &[String], known: &Calendars, problems: &mut Vec<Problem>) -> Self {
        let mut ranges = Vec::new();
        let mut calendars: Vec<(String, Arc<Calendar>)> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let mut refuse =
                |message| problems.push(Problem::new(format!("/exclude/{index}"), message));
            match calendar::named_in(entry) {
                Some(name) if calendars.iter().any(|(named, _)| named == name) => {}
                Some(_) if calendars.len() == calendar::NAMED_MAX => {
                    refuse(format!("at most {} calendars may be named", calendar::NAMED_MAX));
                }
                Some(name) => match known.get(name) {
                    Ok(found) => calendars.push((name.to_owned(), found)),
                    Err(message) => refuse(message),
                },
                None => match range(entry) {
                    Ok(found) => ranges.push(found),
                    Err(message) => refuse(message),
                },
            }
        }
        ranges.sort_unstable();
        let mut merged: Vec<(NaiveDate, NaiveDate)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(open) if open.1.succ_opt().is_none_or(|next| first <= next) => {
                    open.1 = open.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self { ranges: merged, calendars }
    }

    /// The last excluded date of the stretch that `date` is in; `None` when it is not excluded.
    pub(super) fn until(&self, date: NaiveDate) -> Option<NaiveDate> {
        let mut last = self.listed_until(date)?;
        // Where one list ends another may go on.
        while let Some(further) = last.succ_opt().and_then(|next| self.listed_until(next)) {
            last = further;
        }
        Some(last)
    }

    /// The same, as far as one list alone says.
    fn listed_until(&self, date: NaiveDate) -> Option<NaiveDate> {
        let at = self.ranges.partition_point(|&(_, last)| last < date);
        let written = self.ranges.get(at).filter(|(first, _)| *first <= date);
        let written = written.map(|&(_, last)| last);
        self.calendars.iter().map(|(_, calendar)| calendar.until(date)).fold(written, Option::max)
    }

    /// Why nothing fires on `date`, which is excluded.
    pub(super) fn reason(&self, date: NaiveDate) -> String {
        let named = self.calendars.iter().find_map(|(calendar, dates)| {
            let event = dates.name_of(date)?;
            Some(match event {
                "" => format!("{date} is in calendar {calendar}"),
                event => format!("{date} is in calendar {calendar} ({event})"),
            })
        });
        named.unwrap_or_else(|| format!("{date} is in exclude"))
    }

    /// Whether no date is excluded.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.calendars.iter().all(|(_, one)| one.dates().is_empty())
    }

    /// The stretches of dates that are written out.
    pub(super) fn ranges(&self) -> &[(NaiveDate, NaiveDate)] {
        &self.ranges
    }

    /// The names of the calendars.
    pub(super) fn calendars(&self) -> impl Iterator<Item = &str> {
        self.calendars.iter().map(|(name, _)| name.as_str())
    }
}

fn range(entry: &str) -> Result<(NaiveDate, NaiveDate), String> {
    let date = |text: &str| {
        let shaped = text.len() == 10 && text.is_ascii();
        let read = shaped.then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()).flatten();
        read.ok_or_else(|| {
            format!(
                "{text:?} is no date; \"2026-12-25\", a range \"2026-12-24/2026-12-26\" or \
                 \"calendar:NAME\" is wanted"
            )
        })
    };
    let (first, last) = entry.split_once('/').unwrap_or((entry, entry));
    let (first, last) = (date(first.trim())?, date(last.trim())?);
    if last < first {
        return Err(format!("the range ends ({last}) before it begins ({first})"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[&str]) -> (Excluded, Vec<Problem>) {
        let mut problems = Vec::new();
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        let mut known = Calendars::default();
        let on = |text: &str, name: &str| (text.parse().unwrap(), name.to_owned());
        let dates = [on("2026-12-25", "Christmas"), on("2026-12-26", ""), on("2027-01-06", "")];
        known.insert("home", Arc::new(Calendar::new(dates)));
        (Excluded::read(&entries, &known, &mut problems), problems)
    }

    #[test]
    fn neighbouring_dates_make_one_stretch() {
        let (excluded, problems) =
            read(&["2026-12-26", "2026-12-24/2026-12-25", "2027-01-01", "2026-12-25"]);

        assert_eq!(problems, []);
        assert_eq!(excluded.ranges().len(), 2);
        let date = |text: &str| text.parse::<NaiveDate>().unwrap();
        assert_eq!(excluded.until(date("2026-12-24")), Some(date("2026-12-26")));
        assert_eq!(excluded.until(date("2026-12-27")), None);
        assert_eq!(excluded.until(date("2027-01-01")), Some(date("2027-01-01")));
    }

    #[test]
    fn a_stretch_goes_on_from_a_calendar_into_dates_and_back() {
        let (excluded, problems) = read(&["2026-12-27", "calendar:home", "2026-12-24"]);

        assert_eq!(problems, []);
        let date = |text: &str| text.parse::<NaiveDate>().unwrap();
        assert_eq!(excluded.until(date("2026-12-24")), Some(date("2026-12-27")));
        assert_eq!(excluded.until(date("2026-12-23")), None);
        assert_eq!(excluded.until(date("2027-01-06")), Some(date("2027-01-06")));
        for (on, said) in [
            ("2026-12-24", "2026-12-24 is in exclude"),
            ("2026-12-25", "2026-12-25 is in calendar home (Christmas)"),
            ("2026-12-26", "2026-12-26 is in calendar home"),
        ] {
            assert_eq!(excluded.reason(date(on)), said);
        }
    }

    #[test]
    fn a_calendar_that_is_not_there_is_told_with_the_nearest_name() {
        let (_, problems) = read(&["2026-12-25", "calendar:hom"]);

        assert_eq!(
            problems,
            [Problem::new("/exclude/1", "there is no calendar \"hom\"; did you mean \"home\"?")]
        );
    }

    #[test]
    fn every_wrong_entry_is_named_with_its_place() {
        let (_, problems) = read(&["2026-12-25", "2026-02-30", "26-1-1", "2026-12-26/2026-12-24"]);

        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/exclude/1", "/exclude/2", "/exclude/3"]);
    }
}
