//! Reads the text of an `rrule` schedule: one rule, or the lines DTSTART, RRULE, RDATE and EXDATE of
//! RFC 5545, folded or not, or a whole VEVENT with them.
//!
//! Lines alone are read strictly. Inside a VEVENT, which somebody exported from a calendar, all that
//! does not say when is passed over.

use super::rule_text::{self, RuleText, Stamp};
use super::windows_zones;
use super::zone::Zone;

/// The most RRULE lines.
pub(super) const RULES_MAX: usize = 10;

/// The lines, understood.
#[derive(Clone, Debug, Default)]
pub(super) struct SetText {
    pub(super) start: Option<Stamp>,
    pub(super) rules: Vec<RuleText>,
    pub(super) rdates: Vec<Stamp>,
    pub(super) exdates: Vec<Stamp>,
}

/// Reads `text` for a schedule in the zone called `zone`. The errors are sentences for the caller.
pub(super) fn parse(text: &str, zone: &str) -> Result<SetText, Vec<String>> {
    let mut set = SetText::default();
    let mut problems = Vec::new();
    let lines = unfold(text);
    let event = lines.first().is_some_and(|line| block(line, "BEGIN").is_some());
    let lines = if event { lines_of_event(lines).map_err(|said| vec![said])? } else { lines };
    for line in &lines {
        // A rule alone may come without its name.
        let (name, value) = match line.split_once(':') {
            None if line.contains('=') => ("RRULE", line.as_str()),
            None => {
                problems.push(format!("{line:?} is no recurrence rule; \"FREQ=…\" is wanted"));
                continue;
            }
            Some(split) => split,
        };
        if let Err(said) = set.read_line(name, value, zone) {
            problems.extend(said);
        }
    }
    if set.rules.len() > RULES_MAX {
        problems.push(format!("there may be at most {RULES_MAX} RRULE lines"));
    }
    if problems.is_empty() && set.rules.is_empty() && set.rdates.is_empty() {
        problems.push(if event {
            "the VEVENT has no RRULE, so it happens once: use schedule_kind \"once\" with its DTSTART"
                .to_owned()
        } else if set.start.is_some() {
            "a DTSTART alone never repeats; add an RRULE, or use schedule_kind \"once\"".to_owned()
        } else {
            "a recurrence rule is wanted: \"FREQ=WEEKLY;BYDAY=MO;BYHOUR=8;BYMINUTE=30\"".to_owned()
        });
    }
    if problems.is_empty() { Ok(set) } else { Err(problems) }
}

impl SetText {
    fn read_line(&mut self, name: &str, value: &str, zone: &str) -> Result<(), Vec<String>> {
        let mut parameters = name.split(';').map(|part| part.trim().to_ascii_uppercase());
        let property = parameters.next().unwrap_or_default();
        match property.as_str() {
            "RRULE" => {
                self.rules.push(rule_text::parse(value)?);
                return Ok(());
            }
            "DTSTART" | "RDATE" | "EXDATE" => {}
            "EXRULE" => {
                return Err(vec![
                    "EXRULE was withdrawn by RFC 5545; list the times with EXDATE or the dates in \
                     the field exclude"
                        .to_owned(),
                ]);
            }
            "DTEND" | "DURATION" => {
                return Err(vec![format!(
                    "{property} is not taken: a run lasts as long as it lasts"
                )]);
            }
            other => {
                return Err(vec![format!(
                    "{other:?} is not taken; there are DTSTART, RRULE, RDATE and EXDATE"
                )]);
            }
        }
        check_parameters(&property, name, zone).map_err(|said| vec![said])?;
        let mut stamps = Vec::new();
        for text in value.split(',') {
            stamps.push(Stamp::read(text).map_err(|said| vec![format!("{property}: {said}")])?);
        }
        match property.as_str() {
            "EXDATE" => self.exdates.extend(stamps),
            "RDATE" => {
                if stamps.iter().any(|stamp| matches!(stamp, Stamp::Date(_))) {
                    return Err(vec![
                        "RDATE needs a time as well: RDATE:20261225T083000".to_owned(),
                    ]);
                }
                self.rdates.extend(stamps);
            }
            _ if self.start.is_some() || stamps.len() > 1 => {
                return Err(vec!["there may be only one DTSTART".to_owned()]);
            }
            _ => self.start = stamps.pop(),
        }
        Ok(())
    }
}

/// `;TZID=` must say the zone of the schedule; `;VALUE=` must be a date or a time.
fn check_parameters(property: &str, name: &str, zone: &str) -> Result<(), String> {
    for parameter in name.split(';').skip(1) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_uppercase().as_str() {
            "TZID" if zone_of(value) == zone => {}
            "TZID" if zone_of(value).parse::<chrono_tz::Tz>().is_err() => {
                let said = Zone::named(zone_of(value)).err().unwrap_or_default();
                return Err(format!("{property}: {said}"));
            }
            "TZID" => {
                let value = zone_of(value);
                return Err(format!(
                    "{property} is in the zone {value:?} but the field timezone says {zone:?}; make \
                     them the same"
                ));
            }
            "VALUE" if matches!(value.to_ascii_uppercase().as_str(), "DATE" | "DATE-TIME") => {}
            "VALUE" => return Err(format!("{property} of VALUE={value} is not taken; give times")),
            other => return Err(format!("{property} has a parameter {other:?} that is not known")),
        }
    }
    Ok(())
}

/// The IANA name of the zone in which the DTSTART of `expr` is written, where it names one that is known;
/// the names that Outlook writes are translated.
#[must_use]
pub fn zone_named_in(expr: &str) -> Option<String> {
    let lines = unfold(expr);
    let event = lines.first().is_some_and(|line| block(line, "BEGIN").is_some());
    let lines = if event { lines_of_event(lines).ok()? } else { lines };
    let (name, _) = lines.iter().filter_map(|line| line.split_once(':')).find(|(name, _)| {
        name.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("DTSTART"))
    })?;
    let (_, zone) = name
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case("TZID"))?;
    let zone = zone_of(zone.trim().trim_matches('"'));
    zone.parse::<chrono_tz::Tz>().ok().map(|zone| zone.name().to_owned())
}

/// The zone that a TZID means: `/Europe/Berlin` has the prefix of RFC 5545 §3.2.19.
fn zone_of(tzid: &str) -> &str {
    windows_zones::iana(tzid).unwrap_or(tzid.trim_start_matches('/'))
}

/// The name behind `BEGIN:` or `END:`.
fn block(line: &str, word: &str) -> Option<String> {
    let (name, value) = line.split_once(':')?;
    name.trim().eq_ignore_ascii_case(word).then(|| value.trim().to_ascii_uppercase())
}

/// The lines that say when, of the one VEVENT in `lines`, which may stand in a VCALENDAR. Blocks inside
/// it (VALARM) and beside it (VTIMEZONE) are passed over.
fn lines_of_event(lines: Vec<String>) -> Result<Vec<String>, String> {
    let mut open: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut events = 0;
    for line in lines {
        if let Some(name) = block(&line, "BEGIN") {
            let inside = open.last().is_none_or(|outer| outer == "VCALENDAR");
            events += usize::from(inside && name == "VEVENT");
            open.push(name);
        } else if let Some(name) = block(&line, "END") {
            if open.pop().as_ref() != Some(&name) {
                return Err(format!("END:{name} has no BEGIN:{name} before it"));
            }
        } else if open.is_empty() {
            return Err(format!("{line:?} stands outside the VEVENT"));
        } else if open.last().is_some_and(|name| name == "VEVENT") {
            let end = line.find([';', ':']).unwrap_or(line.len());
            let name = line[..end].trim().to_ascii_uppercase();
            if matches!(name.as_str(), "DTSTART" | "RRULE" | "RDATE" | "EXDATE" | "EXRULE") {
                found.push(line);
            }
        }
    }
    match (open.pop(), events) {
        (Some(name), _) => Err(format!("BEGIN:{name} has no END:{name}")),
        (None, 1) => Ok(found),
        (None, 0) => Err("there is no VEVENT in it; only events can be schedules".to_owned()),
        (None, events) => Err(format!("there are {events} VEVENTs; a schedule is one of them")),
    }
}

/// The lines without those that are empty; one that begins with a space continues the one before
/// (RFC 5545 §3.1).
fn unfold(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match lines.last_mut() {
            Some(open) if line.starts_with([' ', '\t']) => open.push_str(line[1..].trim_end()),
            _ if line.trim().is_empty() => {}
            _ => lines.push(line.trim().to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_of_dtstart_is_found_where_it_is_known() {
        for (expr, zone) in [
            ("DTSTART;TZID=Europe/Berlin:20260101T080000\nRRULE:FREQ=DAILY", Some("Europe/Berlin")),
            (
                "RRULE:FREQ=DAILY\ndtstart;value=date-time;tzid=\"Asia/Tokyo\":20260101T080000",
                Some("Asia/Tokyo"),
            ),
            ("DTSTART;TZID=/Europe/Kiev:20260101T080000", Some("Europe/Kiev")),
            ("DTSTART;TZID=W. Europe Standard Time:20260101T080000", Some("Europe/Berlin")),
            (
                "BEGIN:VEVENT\nDTSTART;TZID=America/New\n _York:20260101T080000\nEND:VEVENT",
                Some("America/New_York"),
            ),
            (
                "BEGIN:VEVENT\nBEGIN:VALARM\nDTSTART;TZID=Asia/Tokyo:20260101T080000\nEND:VALARM\nEND:VEVENT",
                None,
            ),
            ("DTSTART;TZID=Mars/Olympus:20260101T080000", None),
            ("DTSTART:20260101T080000Z\nRRULE:FREQ=DAILY", None),
            ("EXDATE;TZID=Europe/Berlin:20260101T080000", None),
            ("FREQ=DAILY", None),
        ] {
            assert_eq!(zone_named_in(expr).as_deref(), zone, "{expr}");
        }
    }
}
