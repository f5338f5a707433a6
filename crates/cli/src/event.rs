//! `event`: publishes events, and shows what was published.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Ids, facts, items, short, table, text};
use crate::session::Session;
use crate::times::{Zone, stamp, time_in};

/// What can be done with events.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Publish an event: tasks that wait for its topic run.
    #[command(after_help = "\
Examples:
  orchestrator event publish mail.arrived
  orchestrator event publish mail.arrived '{\"from\": \"ada@example.com\"}' --key message-4711
  orchestrator event publish report.ready @report.json
  date | orchestrator event publish clock.struck @-")]
    Publish {
        /// Words joined by dots.
        topic: String,
        /// What it carries: JSON, or else a text; @FILE reads a file, @- standard input.
        payload: Option<String>,
        /// Your name for it: a second event with the key is not kept.
        #[arg(long)]
        key: Option<String>,
    },
    /// List events, the newest first.
    List {
        /// Only those of this topic.
        #[arg(long)]
        topic: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = crate::client::limit)]
        limit: usize,
    },
}

/// Does it.
pub async fn run(verb: Verb, session: &Session) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Publish { topic, payload, key } => {
            let payload = payload.map_or(Ok(Value::Null), |given| read_payload(&given))?;
            let event = json!({"topic": topic, "payload": payload, "key": key});
            let answer = session.client.post("events", &event).await?;
            session.show(&answer, |answer| {
                let note = match answer.get("deduplicated") {
                    Some(Value::Bool(true)) => "published before, under the same key".to_owned(),
                    _ => String::new(),
                };
                facts(&[("event", text(answer, "event_id")), ("note", note)])
            })
        }
        Verb::List { topic, limit } => {
            let query: Vec<_> = topic.map(|topic| ("topic", topic)).into_iter().collect();
            let answer = session.client.list("events", &query, limit).await?;
            let now = Session::now();
            session.show(&answer, |answer| {
                let events = items(answer);
                let ids = Ids::among(events.iter().filter_map(|event| event.get("id")?.as_str()));
                table(
                    &["ID", "TOPIC", "RECEIVED", "KEY", "PAYLOAD"],
                    events.iter().map(|event| {
                        vec![
                            ids.show(&text(event, "id")),
                            text(event, "topic"),
                            stamp(time_in(event, "received_at"), Zone::Here, now),
                            text(event, "key"),
                            short(&text(event, "payload"), 60),
                        ]
                    }),
                )
            })
        }
    }
}

/// What somebody wrote as a payload: JSON where it is JSON, else a text; `@` names a file.
fn read_payload(given: &str) -> Result<Value, Failure> {
    let content = match given.strip_prefix('@') {
        None => return Ok(json_or_text(given)),
        Some("-") => std::io::read_to_string(std::io::stdin()),
        Some(file) => std::fs::read_to_string(file),
    };
    let content = content.map_err(Failure::while_doing(format!("read {}", &given[1..])))?;
    Ok(json_or_text(content.trim_end()))
}

/// The JSON that the text is, or the text.
pub fn json_or_text(given: &str) -> Value {
    serde_json::from_str(given).unwrap_or_else(|_| Value::from(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_where_it_can_be_read_as_that() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.json");
        std::fs::write(&file, "{\"a\": 1}\n").unwrap();

        assert_eq!(read_payload("17").unwrap(), json!(17));
        assert_eq!(read_payload("[1, 2").unwrap(), json!("[1, 2"));
        assert_eq!(read_payload(&format!("@{}", file.display())).unwrap(), json!({"a": 1}));
        assert!(read_payload("@/nowhere/at/all").is_err());
    }
}
