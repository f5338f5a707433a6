//! Another try, by the queue and not by waiting.

use std::sync::atomic::{AtomicU32, Ordering};

use orchestrator_engine::store::{queue, run};
use orchestrator_engine::tool::ToolError;
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::{Value, json};

const NOW: &str = "2026-03-01T08:00:00Z";

/// Fails `times` times, then answers.
fn failing(times: u32, transient: bool) -> FakeTools {
    let failed = AtomicU32::new(0);
    FakeTools::default().on("test.fail", move |call| {
        if failed.fetch_add(1, Ordering::SeqCst) >= times {
            return Ok(call.input.clone());
        }
        let tool = call.address.clone();
        let reason = "not now".to_owned();
        Err(if transient {
            ToolError::Busy { tool, reason, retry_after: None }
        } else {
            ToolError::Refused { tool, reason }
        })
    })
}

fn declared(max_retries: i16, step: &Value) -> Value {
    let mut declared = task("manual", "", &json!([step]));
    declared["max_retries"] = max_retries.into();
    declared["backoff_strategy"] = "fixed".into();
    declared
}

async fn outcome(declared: Value, tools: FakeTools) -> (String, i16, Option<String>, Vec<String>) {
    let app = TestApp::at(NOW).await;
    let task = app.add_task(declared).await;
    let worker = app.start_worker(&tools);
    let run = app.run_now(task).await;
    app.until_idle().await;
    worker.stop().await;
    app.check_invariants().await;
    let (status, attempt, error, _) = app.finished(run).await;
    (status, attempt, error, app.steps(run).await)
}

#[tokio::test]
async fn a_transient_failure_is_another_attempt_of_the_same_run() {
    let step = json!({"id": "one", "uses": "test.fail"});

    let (status, attempt, _, steps) = outcome(declared(1, &step), failing(1, true)).await;

    assert_eq!((status.as_str(), attempt), ("succeeded", 2));
    assert_eq!(steps, ["one#1 failed", "one#2 succeeded"]);
}

#[tokio::test]
async fn the_last_failure_is_the_runs() {
    let step = json!({"id": "one", "uses": "test.fail"});

    let (status, attempt, error, _) = outcome(declared(1, &step), failing(9, true)).await;

    assert_eq!((status.as_str(), attempt, error.as_deref()), ("failed", 2, Some("tool_failed")));
}

#[tokio::test]
async fn what_would_fail_the_same_way_is_not_tried_again() {
    let step = json!({"id": "one", "uses": "test.fail"});

    let (status, attempt, error, _) = outcome(declared(5, &step), failing(9, false)).await;

    assert_eq!((status.as_str(), attempt, error.as_deref()), ("failed", 1, Some("refused")));
}

#[tokio::test]
async fn a_step_with_its_own_retry_tries_again_within_one_attempt() {
    let step = json!({
        "id": "one", "uses": "test.fail", "retry": {"max_attempts": 2, "backoff": "fixed"},
    });

    let (status, attempt, _, steps) = outcome(declared(0, &step), failing(1, true)).await;

    assert_eq!((status.as_str(), attempt), ("succeeded", 1));
    assert_eq!(steps, ["one#1 failed", "one#2 succeeded"]);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_ended() {
    let mut declared = declared(0, &json!({"id": "one", "uses": "test.hang"}));
    declared["timeout_seconds"] = 1.into();

    let (status, _, error, steps) = outcome(declared, FakeTools::default()).await;

    assert_eq!((status.as_str(), error.as_deref()), ("failed", Some("run_timeout")));
    assert_eq!(steps, ["one#1 canceled"]);
}

#[tokio::test]
async fn a_task_pauses_itself_after_so_many_failures_in_a_row_and_a_success_counts_them_anew() {
    let app = TestApp::at(NOW).await;
    let step = json!({"id": "one", "uses": "test.fail"});
    let mut task = declared(0, &step);
    task["policy"] = json!({"pause_after_failures": 2});
    let task = app.add_task(task).await;
    // Fails, succeeds, fails, fails.
    let calls = AtomicU32::new(0);
    let tools = FakeTools::default().on("test.fail", move |call| {
        if calls.fetch_add(1, Ordering::SeqCst) == 1 {
            return Ok(call.input.clone());
        }
        Err(ToolError::Refused { tool: call.address.clone(), reason: "no".to_owned() })
    });
    let worker = app.start_worker(&tools);
    for finished in 1..=3 {
        app.clock.advance(chrono::TimeDelta::seconds(1));
        app.run_now(task).await;
        app.until("select count(*) from run", finished).await;
    }
    assert_eq!(app.count("select count(*) from task where status = 'active'").await, 1);
    app.clock.advance(chrono::TimeDelta::seconds(1));
    app.run_now(task).await;
    app.until("select count(*) from task where status = 'paused'", 1).await;
    worker.stop().await;

    let reason: String = sqlx::query_scalar("select pause_reason from task")
        .fetch_one(&app.servers.pool)
        .await
        .unwrap();
    assert!(reason.starts_with("2 runs in a row failed, the last of them "), "{reason}");
    assert_eq!(app.count("select count(*) from audit_log where action = 'task.pause'").await, 1);
}

/// By hand, one and many at once: what succeeded is not done again, and every try stays on record.
#[tokio::test]
async fn a_run_sent_back_by_hand_goes_on_behind_what_it_has_done() {
    let app = TestApp::at(NOW).await;
    let pipeline = json!([{"id": "one", "uses": "test.echo"}, {"id": "two", "uses": "test.fail"}]);
    let task = app.add_task(task("manual", "", &pipeline)).await;
    let tools = failing(2, false);
    let worker = app.start_worker(&tools);
    let run = app.run_now(task).await;
    app.until("select count(*) from run", 1).await;
    for is_one in [true, false] {
        let mut tx = app.servers.pool.begin().await.unwrap();
        if is_one {
            run::retry(&mut tx, run, None).await.unwrap();
        } else {
            assert_eq!(queue::retry_many(&mut tx, &[run]).await.unwrap(), [run]);
        }
        tx.commit().await.unwrap();
        app.until_idle().await;
    }
    worker.stop().await;

    assert_eq!(app.finished(run).await.0, "succeeded");
    assert_eq!(
        app.steps(run).await,
        ["one#1 succeeded", "two#1 failed", "two#2 failed", "two#3 succeeded"]
    );
    let calls: Vec<_> = tools.calls().into_iter().map(|call| call.address).collect();
    assert_eq!(calls, ["test.echo", "test.fail", "test.fail", "test.fail"]);
    app.check_invariants().await;
}
