//! How answers are shown: as a table for people, or whole, for programs.
//!
//! What stands in an answer was written by agents and tools: in tables it loses its control
//! characters, so that no text can move the cursor of whoever looks.

use std::io::Write as _;

use comfy_table::{Cell, Color, Table, presets};
use serde_json::Value;

use crate::failure::Failure;

/// How answers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns with what people look for.
    #[default]
    Table,
    /// The server's answer as it is.
    Json,
    /// The same as YAML.
    Yaml,
}

/// How many characters of an id are shown where they are enough to tell ids apart.
const ID_SHOWN: usize = 8;

/// `answer` in `format`, ending in a line feed; for a table, what `table` makes of it.
///
/// # Errors
///
/// When it cannot be written in that format, which no JSON value causes.
pub fn render(
    format: Format,
    answer: &Value,
    table: impl FnOnce(&Value) -> String,
) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(table(answer)),
        Format::Json => serde_json::to_string_pretty(answer)
            .map(|text| text + "\n")
            .map_err(Failure::while_doing("write JSON")),
        Format::Yaml => serde_norway::to_string(answer).map_err(Failure::while_doing("write YAML")),
    }
}

/// Writes to standard output. That nobody reads any more (`| head`) is no failure.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// The rows of an answer that is a list.
#[must_use]
pub fn items(answer: &Value) -> &[Value] {
    answer.get("items").unwrap_or(answer).as_array().map_or(&[], Vec::as_slice)
}

/// Rows under heads. The column `STATUS` is coloured on a terminal.
#[must_use]
pub fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.iter().copied());
    if !console::colors_enabled() {
        table.force_no_tty();
    }
    for row in rows {
        table.add_row(row.into_iter().zip(heads).map(|(text, head)| {
            let colour = if *head == "STATUS" { colour(&text) } else { None };
            let cell = Cell::new(plain(&text));
            colour.map_or(cell.clone(), |colour| cell.fg(colour))
        }));
    }
    if table.is_empty() {
        return "nothing\n".to_owned();
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn colour(status: &str) -> Option<Color> {
    match status.split_whitespace().next()? {
        "succeeded" | "active" | "ok" | "fired" => Some(Color::Green),
        "failed" | "fail" | "disabled" | "revoked" => Some(Color::Red),
        "running" | "queued" | "waiting" | "paused" | "warn" => Some(Color::Yellow),
        _ => None,
    }
}

/// Names and values below each other, the values in one column; without those that are empty.
#[must_use]
pub fn facts(facts: &[(&str, String)]) -> String {
    let facts = facts.iter().filter(|(_, value)| !value.is_empty() && value != "-");
    let width = facts.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.fold(String::new(), |text, (name, value)| {
        text + &format!("{name:width$}  {}\n", plain(value))
    })
}

/// The text in a field; a dash where there is none.
#[must_use]
pub fn text(row: &Value, field: &str) -> String {
    match row.get(field) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// On one line, without characters that would command a terminal.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// At most `max` characters, the last an ellipsis where more would follow.
#[must_use]
pub fn short(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    kept.trim_end().to_owned() + "…"
}

/// How ids are shown in one table: by their ends, if these tell all of them apart.
///
/// Not by their beginnings, which is when they were made: ids made together begin alike.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    short: bool,
}

impl Ids {
    /// For a table in which `ids` stand.
    #[must_use]
    pub fn among<'a>(ids: impl IntoIterator<Item = &'a str>) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let count = ids.len();
        let mut ends: Vec<_> = ids.into_iter().map(end_of).collect();
        ends.sort_unstable();
        ends.dedup();
        Self { short: ends.len() == count }
    }

    /// The id as it is shown.
    #[must_use]
    pub fn show(self, id: &str) -> String {
        if self.short { end_of(id).to_owned() } else { id.to_owned() }
    }
}

fn end_of(id: &str) -> &str {
    let start = id.len().saturating_sub(ID_SHOWN);
    id.get(start..).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(table: &str) -> Vec<Vec<&str>> {
        table.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn a_list_becomes_a_table_and_a_program_gets_all_of_it() {
        let answer = serde_json::json!({"items": [{"name": "tidy"}], "next_cursor": null});
        let draw = |answer: &Value| {
            table(
                &["NAME", "LAST"],
                items(answer).iter().map(|i| vec![text(i, "name"), text(i, "last")]),
            )
        };

        let shown = render(Format::Table, &answer, draw).unwrap();
        let yaml = render(Format::Yaml, &answer["items"][0], draw).unwrap();

        assert_eq!(words(&shown), [vec!["NAME", "LAST"], vec!["tidy", "-"]]);
        assert_eq!(yaml, "name: tidy\n");
    }

    #[test]
    fn a_text_from_outside_cannot_command_the_terminal() {
        let shown = table(&["TITLE"], [vec!["a\u{1b}[2Jb\nc".to_owned()]]);

        assert_eq!(words(&shown), [vec!["TITLE"], vec!["a", "[2Jb", "c"]]);
    }

    #[test]
    fn ids_are_shortened_only_where_that_tells_them_apart() {
        let [first, second, twin] = [
            "0197a000-0000-7000-8000-0000aaaaaaaa",
            "0197a000-0000-7000-8000-0000bbbbbbbb",
            "0197a000-0000-7000-8000-1111aaaaaaaa",
        ];

        assert_eq!(Ids::among([first, second, first]).show(first), "aaaaaaaa");
        assert_eq!(Ids::among([first, twin]).show(first), first);
    }

    #[test]
    fn a_long_text_ends_in_an_ellipsis() {
        assert_eq!(short("grüße", 5), "grüße");
        assert_eq!(short("grüße an alle", 6), "grüße…");
    }
}
