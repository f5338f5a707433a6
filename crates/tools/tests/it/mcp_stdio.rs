use std::time::Duration;

use orchestrator_engine::tool::{ToolCaller, ToolError};
use orchestrator_tools::Registry;
use serde_json::{Value, json};

use crate::setup::{ODD, ask, ask_again, call, program, until_known, with_servers};

async fn odd() -> Registry {
    let tools = with_servers(json!({
        "odd": {"command": program("python"), "args": [ODD, "stdio"], "env": {"OWN": "1"}},
    }))
    .await;
    until_known(&tools, "odd.pid").await;
    tools
}

#[tokio::test]
async fn a_published_server_is_listed_and_called() {
    let tools = with_servers(json!({"time": {"command": program("mcp-server-time")}})).await;
    until_known(&tools, "time.convert_time").await;

    let input = json!({
        "source_timezone": "Europe/Chisinau", "time": "08:30", "target_timezone": "UTC",
    });
    let output = ask(&tools, "time.convert_time", input).await.unwrap();
    let wrong = ask(&tools, "time.convert_time", json!({"time": 8})).await.unwrap_err();

    let spec = tools.catalogue().into_iter().find(|spec| spec.address == "time.convert_time");
    let spec = spec.unwrap();
    assert_eq!((spec.source.as_str(), spec.scope.as_deref()), ("mcp:time", Some("tool:time")));
    assert_eq!(output["source"]["timezone"], "Europe/Chisinau", "{output}");
    assert!(wrong.to_string().contains("the input is wrong"), "{wrong}");
    tools.stop().await;
}

#[tokio::test]
async fn answers_come_as_structure_as_text_or_as_errors() {
    let tools = odd().await;

    let doubled = ask(&tools, "odd.double", json!({"number": 21})).await.unwrap();
    let said = ask(&tools, "odd.say", json!({"text": "[1, 2]"})).await.unwrap();
    let failed = ask(&tools, "odd.fail", json!({})).await.unwrap_err();

    assert_eq!(doubled, json!({"result": 42}));
    assert_eq!((&said["text"], &said["json"]), (&json!("[1, 2]"), &json!([1, 2])));
    assert!(matches!(failed, ToolError::Refused { .. }), "{failed}");
    assert!(failed.to_string().contains("the cat is on the keyboard"), "{failed}");
    tools.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_call_is_started_again() {
    let tools = odd().await;
    let before = ask(&tools, "odd.pid", json!({})).await.unwrap();

    let died = ask(&tools, "odd.die", json!({})).await.unwrap_err();
    let after = ask_again(&tools, "odd.pid", json!({})).await.unwrap();

    assert!(matches!(died, ToolError::Busy { .. }), "it may have done something: {died}");
    assert_ne!(before, after);
    tools.stop().await;
}

#[tokio::test]
async fn a_tool_that_hangs_is_given_up_and_told_so_while_others_go_on() {
    let tools = odd().await;
    let before = ask(&tools, "odd.pid", json!({})).await.unwrap();
    let mut hang = call("odd.hang", json!({}));
    hang.timeout = Duration::from_millis(300);

    let error = tools.call(hang).await.unwrap_err();

    assert!(matches!(error, ToolError::Timeout { .. }), "{error}");
    // The notice is on its way before this question, on the same pipe.
    let canceled = ask(&tools, "odd.times_canceled", json!({})).await.unwrap();
    assert_eq!(canceled, json!({"result": 1}));
    assert_eq!(ask(&tools, "odd.pid", json!({})).await.unwrap(), before, "it was not restarted");
    tools.stop().await;
}

#[tokio::test]
async fn a_server_that_answers_nothing_any_more_is_started_again() {
    let tools = odd().await;
    let before = ask(&tools, "odd.pid", json!({})).await.unwrap();
    let mut block = call("odd.block", json!({"seconds": 3600}));
    block.timeout = Duration::from_millis(200);

    let blocked = tools.call(block).await.unwrap_err();
    let after = ask_again(&tools, "odd.pid", json!({})).await;

    assert!(matches!(blocked, ToolError::Timeout { .. }), "{blocked}");
    assert_ne!(after.unwrap(), before);
    tools.stop().await;
}

#[tokio::test]
async fn noise_on_standard_output_does_no_harm() {
    let tools = odd().await;

    let output = ask(&tools, "odd.noise", json!({})).await.unwrap();

    assert_eq!(output, json!({"result": "done"}));
    tools.stop().await;
}

#[tokio::test]
async fn a_server_gets_its_own_variables_and_none_of_ours() {
    let tools = odd().await;

    let output = ask(&tools, "odd.variables", json!({})).await.unwrap();

    let names: Vec<_> = output["result"].as_array().unwrap().iter().map(Value::as_str).collect();
    assert!(names.contains(&Some("OWN")) && names.contains(&Some("PATH")), "{names:?}");
    // Cargo sets this in every test; what is ours must not be theirs.
    assert!(!names.contains(&Some("CARGO_MANIFEST_DIR")), "{names:?}");
    tools.stop().await;
}

#[tokio::test]
async fn a_tool_that_comes_later_joins_the_catalogue() {
    let tools = odd().await;
    let mut changes = tools.changes();
    changes.mark_unchanged();

    ask(&tools, "odd.grow", json!({})).await.unwrap();
    until_known(&tools, "odd.late").await;

    assert_eq!(ask(&tools, "odd.late", json!({})).await.unwrap(), json!({"result": "here"}));
    assert!(changes.has_changed().unwrap());
    tools.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_started_harms_nobody_else() {
    let tools = with_servers(json!({
        "gone": {"command": "no-such-program-anywhere"},
        "mute": {"command": "false"},
        "odd": {"command": program("python"), "args": [ODD, "stdio"]},
    }))
    .await;
    until_known(&tools, "odd.pid").await;

    let unknown = ask(&tools, "gone.tool", json!({})).await.unwrap_err();

    assert!(matches!(unknown, ToolError::Unknown { .. }), "{unknown}");
    assert!(ask(&tools, "odd.pid", json!({})).await.is_ok());
    tools.stop().await;
}

#[tokio::test]
async fn a_stop_ends_the_servers_and_what_they_do() {
    let tools = odd().await;
    let pid = ask(&tools, "odd.pid", json!({})).await.unwrap()["pid"].to_string();

    tools.stop().await;
    let late = ask(&tools, "odd.pid", json!({})).await.unwrap_err();

    assert!(!std::path::Path::new("/proc").join(pid).exists(), "the process is still there");
    assert!(matches!(late, ToolError::Unreachable { .. }), "{late}");
}
