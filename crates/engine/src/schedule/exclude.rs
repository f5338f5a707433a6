//! Local dates on which a schedule rests.

use chrono::NaiveDate;

use crate::problem::Problem;

/// Date ranges, both ends included, in order and apart from each other.
#[derive(Clone, Debug, Default)]
pub(super) struct Excluded(Vec<(NaiveDate, NaiveDate)>);

impl Excluded {
    /// Reads `2026-12-25` and `2026-12-24/2026-12-26`; what is wrong is added to `problems` under
    /// `/exclude/<index>`.
    pub(super) fn read(entries: &[String], problems: &mut Vec<Problem>) -> Self {
        let mut ranges = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match range(entry) {
                Ok(found) => ranges.push(found),
                Err(message) => problems.push(Problem::new(format!("/exclude/{index}"), message)),
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
        Self(merged)
    }

    /// The last excluded date of the stretch that `date` is in; `None` when it is not excluded.
    pub(super) fn until(&self, date: NaiveDate) -> Option<NaiveDate> {
        let at = self.0.partition_point(|&(_, last)| last < date);
        self.0.get(at).filter(|(first, _)| *first <= date).map(|&(_, last)| last)
    }

    /// The stretches.
    pub(super) fn ranges(&self) -> &[(NaiveDate, NaiveDate)] {
        &self.0
    }
}

fn range(entry: &str) -> Result<(NaiveDate, NaiveDate), String> {
    let date = |text: &str| {
        let shaped = text.len() == 10 && text.is_ascii();
        let read = shaped.then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()).flatten();
        read.ok_or_else(|| {
            format!(
                "{text:?} is no date; \"2026-12-25\" or a range \"2026-12-24/2026-12-26\" is wanted"
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
        (Excluded::read(&entries, &mut problems), problems)
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
    fn every_wrong_entry_is_named_with_its_place() {
        let (_, problems) = read(&["2026-12-25", "2026-02-30", "26-1-1", "2026-12-26/2026-12-24"]);

        let places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/exclude/1", "/exclude/2", "/exclude/3"]);
    }
}
