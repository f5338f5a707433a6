//! From the text of an iCalendar file to its events' lines.
//!
//! Lines are unfolded here, so that a mistake is told with the line it stands in, and components are
//! counted here, without recursion: a file of a thousand nested BEGINs is refused and not followed.

/// The longest line, unfolded, in bytes.
pub(super) const LINE_MAX: usize = 64 * 1024;
/// How deep components may stand in each other; alarms stand three deep.
const NESTING_MAX: usize = 8;

/// One line, unfolded (RFC 5545 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, counted from 1.
    pub(super) number: usize,
    /// `NAME;PARAMETER=value:value`; the name in capitals.
    pub(super) text: String,
}

/// A VEVENT, without the components in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventLines {
    /// Of its BEGIN.
    pub(super) number: usize,
    pub(super) lines: Vec<Line>,
}

/// What is in the file, as far as dates go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileLines {
    pub(super) events: Vec<EventLines>,
    /// Those of the calendar itself.
    pub(super) head: Vec<Line>,
}

/// Takes the file apart.
///
/// # Errors
///
/// The first mistake in its structure.
pub(super) fn split(text: &str) -> Result<FileLines, String> {
    let mut file = FileLines::default();
    let mut open: Vec<(String, usize)> = Vec::new();
    let lines = unfold(text)?;
    if lines.first().is_none_or(|line| line.text != "BEGIN:VCALENDAR") {
        return Err("this is no iCalendar file: its first line must be BEGIN:VCALENDAR".to_owned());
    }
    for line in lines {
        let number = line.number;
        if let Some(name) = line.text.strip_prefix("BEGIN:") {
            let name = name.trim().to_ascii_uppercase();
            if (name == "VCALENDAR") != open.is_empty() {
                return Err(format!(
                    "line {number}: BEGIN:{name} stands {} a calendar",
                    if open.is_empty() { "outside of" } else { "inside" }
                ));
            }
            if open.len() == NESTING_MAX {
                return Err(format!(
                    "line {number}: components may stand at most {NESTING_MAX} deep in each other"
                ));
            }
            if name == "VEVENT" && open.len() == 1 {
                file.events.push(EventLines { number, lines: Vec::new() });
            }
            open.push((name, number));
        } else if let Some(name) = line.text.strip_prefix("END:") {
            let name = name.trim().to_ascii_uppercase();
            match open.pop() {
                Some((begun, _)) if begun == name => {}
                Some((begun, at)) => {
                    return Err(format!(
                        "line {number}: END:{name} stands where END:{begun} is wanted, for line {at}"
                    ));
                }
                None => return Err(format!("line {number}: END:{name} ends nothing")),
            }
        } else {
            match &open[..] {
                [] => return Err(format!("line {number} stands outside of the calendar")),
                [_] => file.head.push(line),
                [_, (name, _)] if name == "VEVENT" => {
                    if let Some(event) = file.events.last_mut() {
                        event.lines.push(line);
                    }
                }
                _ => {}
            }
        }
    }
    match open.last() {
        None => Ok(file),
        Some((name, at)) => Err(format!("BEGIN:{name} in line {at} has no END:{name}")),
    }
}

fn unfold(text: &str) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match lines.last_mut() {
            Some(open) if line.starts_with([' ', '\t']) => open.text.push_str(&line[1..]),
            _ if line.trim().is_empty() => continue,
            _ => lines.push(Line { number: index + 1, text: line.to_owned() }),
        }
        if let Some(open) = lines.last()
            && open.text.len() > LINE_MAX
        {
            return Err(format!("line {}: longer than {LINE_MAX} bytes", open.number));
        }
    }
    for line in &mut lines {
        let end = line.text.find([':', ';']).unwrap_or(line.text.len());
        line.text.replace_range(..end, &line.text[..end].to_ascii_uppercase());
        if line.text.starts_with("BEGIN:") || line.text.starts_with("END:") {
            line.text = line.text.trim_end().to_ascii_uppercase();
        }
    }
    Ok(lines)
}
