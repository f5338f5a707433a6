//! `tool`: the catalogue of what steps can use.

use std::process::ExitCode;

use orchestrator_engine::problem::nearest;
use serde_json::Value;

use crate::client::path;
use crate::failure::Failure;
use crate::output::{facts, items, short, table, text};
use crate::session::{Session, no_such};

/// What can be done with tools.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List the tools that workers offer.
    List {
        /// Only tools with this in their address or description.
        filter: Option<String>,
    },
    /// Show a tool: what it takes, what it gives back, which scope it needs.
    #[command(after_help = "\
Examples:
  orchestrator tool show http.request
  orchestrator tool show http.request --output json | jq .input_schema")]
    Show {
        /// `server.tool`
        address: String,
    },
}

/// Does it.
pub async fn run(verb: Verb, session: &Session) -> Result<ExitCode, Failure> {
    match verb {
        Verb::List { filter } => {
            let mut answer = session.client.get("tools").await?;
            if let (Some(filter), Some(Value::Array(tools))) = (filter, answer.get_mut("items")) {
                let wanted = filter.to_lowercase();
                tools.retain(|tool| {
                    ["address", "description"]
                        .iter()
                        .any(|field| text(tool, field).to_lowercase().contains(&wanted))
                });
            }
            session.show(&answer, |answer| {
                let rows = items(answer).iter().map(|tool| {
                    let about = text(tool, "description");
                    let sentence = about.split(". ").next().unwrap_or_default();
                    vec![
                        text(tool, "address"),
                        text(tool, "source"),
                        text(tool, "scope"),
                        short(sentence, 80),
                    ]
                });
                table(&["ADDRESS", "SOURCE", "SCOPE", "DOES"], rows)
            })
        }
        Verb::Show { address } => {
            let answer = match session.client.get(&path(&["tools", &address])?).await {
                Err(Failure::Refused(missing)) if missing.status == 404 => {
                    let tools = session.client.get("tools").await?;
                    let known =
                        items(&tools).iter().filter_map(|tool| tool.get("address")?.as_str());
                    let near = nearest(&address, known);
                    let hint = "`orchestrator tool list` shows them";
                    return Err(no_such("tool", &address, near, hint, missing));
                }
                answer => answer?,
            };
            session.show(&answer, drawn)
        }
    }
}

fn drawn(tool: &Value) -> String {
    let mut drawn = facts(&[
        ("address", text(tool, "address")),
        ("does", text(tool, "description")),
        ("source", text(tool, "source")),
        ("scope", text(tool, "scope")),
        ("timeout", format!("{} s", text(tool, "timeout_seconds"))),
    ]);
    for (head, field) in [("takes", "input_schema"), ("gives back", "output_schema")] {
        drawn += &fields(head, tool.get(field).unwrap_or(&Value::Null));
    }
    drawn
}

/// The properties of an object's schema, the required ones first.
fn fields(head: &str, schema: &Value) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return String::new();
    };
    let is_required = |name: &str| {
        schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|names| names.iter().any(|required| required == name))
    };
    let mut properties: Vec<_> = properties.iter().collect();
    properties.sort_by_key(|(name, _)| !is_required(name));
    let rows = properties.into_iter().map(|(name, schema)| {
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("|")
            }
            _ => schema.get("enum").map_or_else(|| "any".to_owned(), Value::to_string),
        };
        let need = if is_required(name) { "required" } else { "" };
        let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        vec![name.clone(), kind, need.to_owned(), short(about, 80)]
    });
    format!("\n{head}:\n{}", table(&["FIELD", "TYPE", "", "MEANS"], rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn required_fields_of_a_tool_come_first() {
        let schema = json!({
            "properties": {"body": {"type": ["string", "null"]}, "url": {"type": "string"}},
            "required": ["url"],
        });

        let drawn = fields("takes", &schema);

        let lines: Vec<_> = drawn.lines().skip(3).collect();
        assert!(lines[0].starts_with("url") && lines[0].contains("required"), "{drawn}");
        assert!(lines[1].contains("string|null"), "{drawn}");
    }
}
