//! Times that were stored with other zone data than the program's.

use orchestrator_boot::Service;
use orchestrator_scheduler::rezone;
use orchestrator_testkit::{TestApp, task};
use serde_json::json;

#[tokio::test]
async fn a_stored_time_moves_once_when_the_zone_data_have_changed() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    let mut declared = task("cron", "30 9 * * *", &json!([]));
    declared["timezone"] = json!("Europe/Chisinau");
    declared["exclude"] = json!(["2026-03-02"]);
    app.add_task(declared.clone()).await;
    declared["exclude"] = json!([]);
    let moved = app.add_task(declared).await;
    // As older data had it: an hour later, and of another version.
    sqlx::query("update task set next_fire_at = next_fire_at + interval '1 hour' where id = $1")
        .bind(moved)
        .execute(&app.servers.pool)
        .await
        .unwrap();
    let pool = app.context(Service::Scheduler).pool;

    let shown = rezone::moves(&pool, false).await.unwrap();
    let carried_out = rezone::if_changed(&pool).await.unwrap();
    let again = rezone::if_changed(&pool).await.unwrap();

    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(
        (shown[0].task, shown[0].to),
        (moved, Some("2026-03-02T07:30:00Z".parse().unwrap()))
    );
    assert_eq!((carried_out, again), (1, 0));
    assert_eq!(
        app.count("select count(*) from task where next_fire_at = '2026-03-02T07:30:00Z'").await,
        2,
        "the other task stays at its excluded time, at which the scheduler is to look"
    );
}
