//! Runs that other programs add by SQL and that are to be let in.

use orchestrator_testkit::{TestApp, task};
use serde_json::json;

/// The scheduler sleeps for half a minute between its looks; it is told, and lets the run in at once.
#[tokio::test]
async fn a_run_with_a_concurrency_key_added_by_sql_is_let_in_by_a_scheduler_that_is_told() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    let mut declared = task("manual", "", &json!([]));
    declared["name"] = json!("careful");
    declared["concurrency_key"] = json!("door");
    app.add_task(declared).await;
    let scheduler = app.start_scheduler();
    app.until(
        "select count(*) from pg_stat_activity where query ilike 'listen%orchestrator_held%'
               and datname = current_database()",
        1,
    )
    .await;

    let pool = &app.servers.pool;
    sqlx::query("select orchestrator.enqueue('careful')").execute(pool).await.unwrap();
    sqlx::query("select orchestrator.enqueue('careful')").execute(pool).await.unwrap();
    app.until("select count(*) from due_work where held is null", 1).await;
    scheduler.stop().await;

    assert_eq!(app.count("select count(*) from due_work where held = 'concurrency'").await, 1);
    app.check_invariants().await;
}
