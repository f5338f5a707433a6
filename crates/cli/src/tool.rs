//! `tool`: the catalogue of what steps can use, and a call by hand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use orchestrator_engine::problem::nearest;
use serde_json::{Map, Value, json};

use crate::client::path;
use crate::failure::Failure;
use crate::output::{Format, facts, items, short, table, text};
use crate::session::{Session, no_such};
use crate::times::parse_length;

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
    /// Call a tool once, by hand: it is the only step of a run without a task, which is followed to its
    /// end. Exit with 0 when it succeeds.
    #[command(after_help = "\
Examples:
  orchestrator tool call core.echo -w text=hello
  orchestrator tool call http.request -w url=https://example.org -w 'headers={\"Accept\": \"text/html\"}'
  orchestrator tool call llm.chat --with-file prompt.json --timeout 2m --output json | jq -r .text
  echo '{\"text\": \"${now}\"}' | orchestrator tool call core.echo --with-file -

Texts may hold expressions, as in a pipeline: ${secrets.NAME}. With --output json or yaml, what the tool
answered is all that is printed. It is called once: a failure is not tried again.")]
    Call(CallArgs),
}

/// What is called, and with what.
#[derive(Debug, clap::Args)]
pub struct CallArgs {
    /// `server.tool`
    address: String,
    /// Its input: a JSON object.
    #[arg(long = "with", value_name = "JSON", group = "input")]
    json: Option<String>,
    /// A file with its input; - is standard input.
    #[arg(long = "with-file", value_name = "FILE", group = "input")]
    file: Option<PathBuf>,
    /// A field of its input. The value is JSON where it can be read as that. Repeatable.
    #[arg(short = 'w', value_name = "NAME=VALUE", group = "input", value_parser = crate::task::param)]
    fields: Vec<(String, Value)>,
    /// How long it may take: 30s, 5m. Default: the tool's own.
    #[arg(long, value_name = "LENGTH", value_parser = seconds)]
    timeout: Option<u64>,
}

fn seconds(text: &str) -> Result<u64, String> {
    parse_length(text).ok_or_else(|| "is no length of time: write 30s, 5m or 1h".to_owned())
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
        Verb::Call(args) => call(args, session).await,
    }
}

/// Where the one step of a call stands in what is sent.
const THE_STEP: &str = "/payload/pipeline/0/";

async fn call(args: CallArgs, session: &Session) -> Result<ExitCode, Failure> {
    let mut step = json!({
        "id": "call", "uses": args.address, "retry": {"max_attempts": 1},
        "with": input(args.json, args.file.as_deref(), args.fields)?,
    });
    if let Some(seconds) = args.timeout {
        step["timeout_seconds"] = json!(seconds);
    }
    let body = json!({"payload": {"pipeline": [step]}});
    let answer = session.client.post("runs", &body).await.map_err(seen_from_the_step)?;
    let run = crate::run::follow(&text(&answer, "run_id"), session).await?;
    let succeeded = crate::run::has_succeeded(&run);
    match session.format {
        // It has been shown.
        Format::Table if succeeded => Ok(ExitCode::SUCCESS),
        Format::Table => Ok(ExitCode::FAILURE),
        Format::Json | Format::Yaml if succeeded => session.show(&run["output"], |_| String::new()),
        Format::Json | Format::Yaml => Err(Failure::failed(why(&run))),
    }
}

/// What is said of a call that did not succeed where its run has not been shown.
fn why(run: &Value) -> String {
    let id = text(run, "id");
    match crate::run::error_of(run) {
        error if error.is_empty() => format!("run {id} is {}", text(run, "status")),
        error => format!("{error} (run {id})"),
    }
}

/// The input of a tool from the one way in which it was given.
fn input(
    json: Option<String>,
    file: Option<&Path>,
    fields: Vec<(String, Value)>,
) -> Result<Map<String, Value>, Failure> {
    let (given, place) = match (json, file) {
        (None, None) => return Ok(fields.into_iter().collect()),
        (Some(json), _) => (json, "--with".to_owned()),
        (None, Some(file)) => {
            let content = if file == Path::new("-") {
                std::io::read_to_string(std::io::stdin())
            } else {
                std::fs::read_to_string(file)
            };
            let place = format!("--with-file {}", file.display());
            (content.map_err(Failure::while_doing(format!("read {}", file.display())))?, place)
        }
    };
    serde_json::from_str(&given).map_err(|error| {
        Failure::Usage(format!(
            "{place}: is no JSON object such as {{\"text\": \"hello\"}}: {error}"
        ))
    })
}

/// Mistakes named from the step: whoever calls a tool wrote no pipeline.
fn seen_from_the_step(failure: Failure) -> Failure {
    let Failure::Refused(mut problem) = failure else { return failure };
    for mistake in &mut problem.errors {
        if let Some(place) = mistake.pointer.as_deref().and_then(|at| at.strip_prefix(THE_STEP)) {
            mistake.pointer = Some(format!("/{place}"));
        }
    }
    Failure::Refused(problem)
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
    fn the_input_of_a_tool_is_an_object_however_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("input.json");
        std::fs::write(&file, "{\"a\": 1}\n").unwrap();
        let one = |fields: &Value| fields.as_object().cloned().unwrap();

        assert_eq!(input(None, None, Vec::new()).unwrap(), Map::new());
        assert_eq!(input(Some("{}".to_owned()), None, Vec::new()).unwrap(), Map::new());
        assert_eq!(input(None, Some(&file), Vec::new()).unwrap(), one(&json!({"a": 1})));
        let fields = vec![("a".to_owned(), json!([1, 2]))];
        assert_eq!(input(None, None, fields).unwrap(), one(&json!({"a": [1, 2]})));
        for wrong in ["[1]", "hello", "{\"a\": 1"] {
            let told = input(Some(wrong.to_owned()), None, Vec::new()).unwrap_err();
            assert!(matches!(&told, Failure::Usage(_)), "{told}");
            assert!(told.to_string().contains("--with: is no JSON object"), "{told}");
        }
        assert!(input(None, Some(&folder.path().join("none")), Vec::new()).is_err());
    }

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
