//! How answers are shown: as a table for people, or whole, for programs.

use comfy_table::{Table, presets};
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

/// A column: its head, and the JSON pointer to its value in a row.
pub type Column = (&'static str, &'static str);

/// `answer` in `format`, ending in a line feed. For a table: a row for each element of `items` (or
/// of the answer, when it is a list); an answer that is neither is one row.
///
/// # Errors
///
/// When it cannot be written in that format, which no JSON value causes.
pub fn render(format: Format, answer: &Value, columns: &[Column]) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(table(answer, columns)),
        Format::Json => serde_json::to_string_pretty(answer)
            .map(|text| text + "\n")
            .map_err(Failure::while_doing("write JSON")),
        Format::Yaml => serde_norway::to_string(answer).map_err(Failure::while_doing("write YAML")),
    }
}

fn table(answer: &Value, columns: &[Column]) -> String {
    let rows = match answer.get("items").unwrap_or(answer) {
        Value::Array(rows) => rows.as_slice(),
        one => std::slice::from_ref(one),
    };
    if rows.is_empty() {
        return "nothing\n".to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|(head, _)| *head));
    for row in rows {
        table.add_row(columns.iter().map(|(_, pointer)| cell(row.pointer(pointer))));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_table_of_the_columns_asked_for() {
        let answer = serde_json::json!({
            "items": [{"name": "briefing", "last": {"status": "failed"}}, {"name": "tidy"}],
            "next_cursor": null,
        });
        let columns = [("NAME", "/name"), ("LAST", "/last/status")];

        let table = render(Format::Table, &answer, &columns).unwrap();
        let yaml = render(Format::Yaml, &answer["items"][1], &columns).unwrap();

        let words: Vec<Vec<_>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [vec!["NAME", "LAST"], vec!["briefing", "failed"], vec!["tidy", "-"]]);
        assert_eq!(yaml, "name: tidy\n");
    }
}
