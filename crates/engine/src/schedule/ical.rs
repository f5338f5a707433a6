//! Reads the text of an `rrule` schedule: one rule, or the lines DTSTART, RRULE, RDATE and EXDATE of
//! RFC 5545, folded or not.

use super::rule_text::{self, RuleText, Stamp};

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
        problems.push(if set.start.is_some() {
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
            "TZID" if value.trim_start_matches('/') == zone => {}
            "TZID" => {
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
