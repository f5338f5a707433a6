use orchestrator_engine::tool::{ToolCaller, ToolError};
use orchestrator_tools::ToolsConfig;
use serde_json::json;

use crate::setup::{ask, call, registry};

#[tokio::test]
async fn an_echo_gives_back_what_it_was_given() {
    let tools = registry(ToolsConfig::default()).await;
    let input = json!({"a": [1, 2.5, null], "b": {"c": "ü"}});

    assert_eq!(ask(&tools, "core.echo", input.clone()).await, Ok(input));
    assert!(matches!(ask(&tools, "core.echo", json!(1)).await, Err(ToolError::Refused { .. })));
}

#[tokio::test]
async fn a_failure_asked_for_is_transient_only_when_asked_to_be() {
    let tools = registry(ToolsConfig::default()).await;

    let for_good = ask(&tools, "core.fail", json!({"message": "no"})).await.unwrap_err();
    let passing = json!({"message": "not yet", "transient": true});
    let passing = ask(&tools, "core.fail", passing).await.unwrap_err();

    assert_eq!(for_good.to_string(), "tool core.fail refused: no");
    assert!(passing.is_transient());
}

#[tokio::test]
async fn a_line_is_logged() {
    let tools = registry(ToolsConfig::default()).await;
    let input = json!({"message": "hello", "level": "warn", "fields": {"n": 1}});

    assert_eq!(ask(&tools, "core.log", input).await, Ok(json!({"logged": true})));
}

#[tokio::test]
async fn input_that_does_not_fit_is_refused_without_showing_it() {
    let tools = registry(ToolsConfig::default()).await;

    let input = json!({"message": "hi", "level": "hunter2", "fields": {}});
    let said = ask(&tools, "core.log", input).await.unwrap_err().to_string();

    assert!(said.contains("/level"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_tool_that_nobody_knows_may_come_yet() {
    let tools = registry(ToolsConfig::default()).await;

    let error = ask(&tools, "no.such", json!({})).await.unwrap_err();

    assert_eq!(error, ToolError::Unknown { tool: "no.such".to_owned() });
}

#[tokio::test]
async fn a_canceled_call_does_not_begin() {
    let tools = registry(ToolsConfig::default()).await;
    let call = call("core.log", json!({"message": "hi"}));
    call.cancel.cancel();

    assert!(matches!(tools.call(call).await, Err(ToolError::Canceled { .. })));
}

#[tokio::test]
async fn every_tool_of_the_catalogue_has_a_schema_for_an_object_and_a_scope_of_its_server() {
    for spec in registry(ToolsConfig::default()).await.catalogue() {
        assert_eq!(spec.input_schema["type"], "object", "{}", spec.address);
        let (server, _) = spec.address.split_once('.').unwrap();
        let scope = (server != "core").then(|| format!("tool:{server}"));
        assert_eq!(spec.scope, scope, "{}", spec.address);
    }
}
