//! Planned and past runs as an iCalendar file (RFC 5545), for calendar programs.
//!
//! An entry has the same UID each time it is asked for, so a program that subscribes sees one entry
//! move, and not a second one appear.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use icalendar::{Calendar, Component as _, Event, EventLike as _, EventStatus, Property};

use crate::id::TaskId;
use crate::schedule::{Fire, Schedule};

/// How long an entry lasts in the calendar: a run has no length before it is over.
const LENGTH: &str = "PT5M";
/// How often a program is asked to look again.
const REFRESH: TimeDelta = TimeDelta::minutes(15);
/// How much of a description an entry has, in bytes.
const DESCRIPTION_MAX: usize = 1_000;

/// One entry of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The task.
    pub task: TaskId,
    /// The nominal time.
    pub at: DateTime<Utc>,
    /// The task's title.
    pub title: String,
    /// What else is worth knowing; lines.
    pub about: Vec<String>,
    /// When the task was last changed.
    pub changed_at: DateTime<Utc>,
}

/// A task whose times are wanted.
#[derive(Clone, Debug)]
pub struct Timed<'a> {
    /// Its schedule.
    pub schedule: &'a Schedule,
    /// Not before.
    pub from: DateTime<Utc>,
    /// How often it has fired.
    pub fires: u32,
    /// So many of its times at most: one that fires often must leave room for the others.
    pub most: usize,
}

/// The earliest `limit` fires of `tasks` before `to`, each with the place of its task, in order.
#[must_use]
pub fn upcoming(tasks: &[Timed<'_>], to: DateTime<Utc>, limit: usize) -> Vec<(usize, Fire)> {
    let mut fired: Vec<u32> = tasks.iter().map(|task| task.fires).collect();
    let next = |place: usize, from: DateTime<Utc>, fired: u32| {
        let fire = tasks[place].schedule.preview(from, 1, fired).fires.into_iter().next();
        fire.filter(|fire| fire.at < to)
    };
    let mut waiting = BinaryHeap::new();
    let mut kept: Vec<Option<Fire>> = Vec::with_capacity(tasks.len());
    for (place, task) in tasks.iter().enumerate() {
        let fire = next(place, task.from, task.fires);
        waiting.extend(fire.as_ref().map(|fire| Reverse((fire.at, place))));
        kept.push(fire);
    }
    let mut counts = vec![0; tasks.len()];
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(Reverse((at, place))) = waiting.pop()
    {
        found.extend(kept[place].take().map(|fire| (place, fire)));
        counts[place] += 1;
        if counts[place] >= tasks[place].most {
            continue;
        }
        fired[place] = fired[place].saturating_add(1);
        let fire = next(place, at + TimeDelta::seconds(1), fired[place]);
        waiting.extend(fire.as_ref().map(|fire| Reverse((fire.at, place))));
        kept[place] = fire;
    }
    found
}

/// The file. Lines are folded and texts escaped; what a title holds cannot become a line of its own.
#[must_use]
pub fn write(name: &str, entries: &[Entry]) -> String {
    let mut calendar = Calendar::empty();
    calendar
        .append_property(("VERSION", "2.0"))
        .append_property(("PRODID", "-//Personal Agent Orchestrator//EN"))
        .append_property(("CALSCALE", "GREGORIAN"))
        .append_property(Property::new("X-WR-CALNAME", plain(name)))
        .ttl(&REFRESH);
    calendar.extend(entries.iter().map(event));
    calendar.to_string()
}

fn event(entry: &Entry) -> Event {
    let at = entry.at.format("%Y%m%dT%H%M%SZ");
    let mut about = String::new();
    for line in &entry.about {
        let _infallible = writeln!(about, "{}", lines(line));
    }
    let end = about.floor_char_boundary(DESCRIPTION_MAX);
    about.truncate(end);
    if !about.is_empty() && !about.ends_with('\n') {
        about.push_str("…\n");
    }
    let _infallible = write!(about, "Task {}", entry.task);
    Event::new()
        .uid(&format!("{}-{at}@orchestrator", entry.task))
        .summary(&plain(&entry.title))
        .description(&about)
        .timestamp(entry.changed_at)
        .starts(entry.at)
        .add_property("DURATION", LENGTH)
        .status(EventStatus::Confirmed)
        .add_property("TRANSP", "TRANSPARENT")
        .done()
}

/// One line without control characters: a carriage return would end a line of the file.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same with its line ends.
fn lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::ScheduleSpec;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn schedule(expr: &str, max_fires: Option<u32>) -> Schedule {
        let spec = serde_json::json!({"schedule_kind": "cron", "schedule_expr": expr,
                                      "max_fires": max_fires});
        let spec: ScheduleSpec = serde_json::from_value(spec).unwrap();
        Schedule::compile(&spec, at("2026-03-01T00:00:00Z")).unwrap()
    }

    #[test]
    fn the_nearest_fires_of_many_tasks_come_in_order_and_no_more_than_wanted() {
        let [hourly, daily] = [schedule("0 * * * *", Some(4)), schedule("30 8 * * *", None)];
        let from = at("2026-03-02T07:00:00Z");
        let tasks = [
            Timed { schedule: &hourly, from, fires: 1, most: 100 },
            Timed { schedule: &daily, from: at("2026-03-02T08:30:00Z"), fires: 9, most: 2 },
        ];
        let told = |to: &str, limit| {
            let found = upcoming(&tasks, at(to), limit);
            found
                .iter()
                .map(|(place, fire)| format!("{place} {}", fire.at.format("%d %H:%M")))
                .collect::<Vec<_>>()
        };

        let all = told("2026-03-04T08:30:00Z", 100);
        assert_eq!(all, ["0 02 07:00", "0 02 08:00", "1 02 08:30", "0 02 09:00", "1 03 08:30"]);
        assert_eq!(told("2026-03-09T00:00:00Z", 100), all, "no more of one task than wanted");
        assert_eq!(told("2026-03-04T08:30:00Z", 2), all[..2]);
        assert_eq!(told("2026-03-02T07:00:00Z", 2), [""; 0]);
    }

    #[test]
    fn what_a_title_holds_stays_in_its_line() {
        let title = "a, b; c\\d\r\nEND:VEVENT\r\u{85}🎂 ".to_owned() + &"grüße ".repeat(40);
        let entry = Entry {
            task: "01a20088-50fb-7d42-a94d-ffada4a4251c".parse().unwrap(),
            at: at("2026-03-02T08:30:00Z"),
            title: title.clone(),
            about: vec!["every day, at 08:30; x\nsecond\rline".to_owned(), "ä".repeat(2_000)],
            changed_at: at("2026-03-01T00:00:00Z"),
        };

        let text = write("Runs, all", &[entry]);

        assert!(text.split("\r\n").all(|line| line.len() <= 75), "{text}");
        assert_eq!(text.matches("\r\n").count(), text.matches('\n').count());
        assert_eq!(text.matches("\r\n").count(), text.matches('\r').count());
        for line in [
            "UID:01a20088-50fb-7d42-a94d-ffada4a4251c-20260302T083000Z@orchestrator",
            "DTSTART:20260302T083000Z",
            "DTSTAMP:20260301T000000Z",
            "DURATION:PT5M",
            "STATUS:CONFIRMED",
            "TRANSP:TRANSPARENT",
            "X-WR-CALNAME:Runs\\, all",
            "REFRESH-INTERVAL;VALUE=DURATION:PT900S",
            "X-PUBLISHED-TTL:PT900S",
            "CALSCALE:GREGORIAN",
        ] {
            let unfolded = text.replace("\r\n ", "");
            assert_eq!(unfolded.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {text}");
        }
        let read: Calendar = text.parse().unwrap();
        let event = read.events().next().unwrap();
        assert_eq!(event.get_summary().unwrap(), plain(&title));
        assert!(
            event.get_description().unwrap().starts_with("every day, at 08:30; x\nsecond line\nä")
        );
        assert!(
            event.get_description().unwrap().ends_with("Task 01a20088-50fb-7d42-a94d-ffada4a4251c")
        );
    }
}
