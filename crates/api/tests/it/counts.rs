//! What the API counts of what it does by itself, without a scheduler or a worker.

use orchestrator_engine::run::RunStatus;
use serde_json::json;

use crate::harness::{TestApi, task_with};

fn events(api: &TestApi, direction: &str) -> u64 {
    api.api.metrics.process().events.with_label_values(&[direction]).get()
}

fn canceled(api: &TestApi) -> u64 {
    let kind = RunStatus::Canceled.as_str();
    api.api.metrics.process().runs_finished.with_label_values(&[kind]).get()
}

async fn start(api: &TestApi, task: &str) -> String {
    api.post(&format!("/tasks/{task}/run_now"), json!({})).await.expect(202).str("/run_id")
}

#[tokio::test]
async fn an_event_is_counted_once_however_often_it_is_sent() {
    let api = TestApi::new().await;
    let event = json!({"topic": "mail.new", "payload": {"n": 1}, "key": "one"});

    for _ in 0..2 {
        api.post("/events", event.clone()).await.expect(202);
    }

    assert_eq!((events(&api, "in"), events(&api, "out")), (1, 1));
}

#[tokio::test]
async fn a_run_that_is_canceled_before_a_worker_has_it_is_counted() {
    let api = TestApi::new().await;
    for name in ["t", "u"] {
        api.post("/tasks", task_with(json!({"name": name}))).await.expect(201);
    }
    let first = start(&api, "t").await;
    for task in ["t", "t", "u"] {
        start(&api, task).await;
    }

    for _ in 0..2 {
        api.post(&format!("/runs/{first}/cancel"), json!({})).await.expect(200);
    }
    let by_id = canceled(&api);
    api.post("/runs/cancel", json!({"task_id": "t"})).await.expect(200);
    let by_filter = canceled(&api);
    api.post("/tasks/u/cancel", json!({})).await.expect(200);

    assert_eq!((by_id, by_filter, canceled(&api)), (1, 3, 4));
}
