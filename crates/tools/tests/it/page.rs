//! The page for users speaks of tools that there are.

use orchestrator_engine::pipeline::Pipeline;
use orchestrator_tools::ToolsConfig;

use crate::setup::registry;

const PAGE: &str = include_str!("../../../../docs/pipelines.md");

#[tokio::test]
async fn every_pipeline_of_the_page_for_users_would_be_accepted() {
    let tools = registry(ToolsConfig::default()).await;
    let catalogue =
        tools.catalogue().into_iter().map(|tool| (tool.address.clone(), tool)).collect();
    let examples: Vec<_> =
        PAGE.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());

    for example in examples {
        let payload = serde_json::from_str(example).unwrap();
        let problems = Pipeline::check(&payload, &catalogue).err().unwrap_or_default();
        assert!(problems.is_empty(), "{problems:?} in {example}");
    }
}
