//! Times that passed while nobody was there, and times that find their task busy.

use orchestrator_testkit::{TestApp, task};
use serde_json::{Value, json};

const NOW: &str = "2026-03-01T08:00:00Z";

/// An hourly task, asked again at `later`; returns the ledger as `HH:MM disposition xN`.
async fn ledger(policy: Value, later: &str) -> Vec<String> {
    let app = TestApp::at(NOW).await;
    let mut declared = task("cron", "0 * * * *", &json!([{"id": "one", "uses": "test.echo"}]));
    declared["policy"] = policy;
    app.add_task(declared).await;
    app.clock.set(later.parse().unwrap());
    let scheduler = app.start_scheduler();
    app.until("select count(*) from task where cursor_at > '2026-03-01T08:30:00Z'", 1).await;
    scheduler.stop().await;
    app.check_invariants().await;
    sqlx::query_scalar(
        "select to_char(nominal_at at time zone 'UTC', 'HH24:MI') || ' ' || disposition || ' x' || count
         from occurrence order by nominal_at",
    )
    .fetch_all(&app.servers.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_time_seen_when_it_comes_fires() {
    assert_eq!(ledger(json!({}), "2026-03-01T09:00:00Z").await, ["09:00 fired x1"]);
}

#[tokio::test]
async fn with_latest_one_run_stands_for_all_that_passed() {
    let found = ledger(
        json!({"catch_up": "latest", "catch_up_window_seconds": 86400}),
        "2026-03-01T12:30:00Z",
    );

    assert_eq!(found.await, ["09:00 coalesced x3", "12:00 fired x1"]);
}

#[tokio::test]
async fn what_is_older_than_the_window_is_left() {
    let found = ledger(
        json!({"catch_up": "latest", "catch_up_window_seconds": 5400}),
        "2026-03-01T12:30:00Z",
    );

    assert_eq!(found.await, ["09:00 skipped_too_old x2", "11:00 coalesced x1", "12:00 fired x1"]);
}

#[tokio::test]
async fn with_none_nothing_is_caught_up() {
    let found = ledger(json!({"catch_up": "none"}), "2026-03-01T12:30:00Z");

    assert_eq!(found.await, ["09:00 skipped_too_old x4"]);
}

#[tokio::test]
async fn with_all_each_runs_unless_the_one_before_is_still_on() {
    let window = json!({"catch_up": "all", "catch_up_window_seconds": 86400, "overlap": "allow"});
    let busy = json!({"catch_up": "all", "catch_up_window_seconds": 86400, "overlap": "skip"});

    let allowed = ledger(window, "2026-03-01T11:30:00Z").await;
    let skipped = ledger(busy, "2026-03-01T11:30:00Z").await;

    assert_eq!(allowed, ["09:00 fired x1", "10:00 fired x1", "11:00 fired x1"]);
    assert_eq!(skipped, ["09:00 fired x1", "10:00 skipped_overlap x2"]);
}

#[tokio::test]
async fn times_put_off_by_a_snooze_come_as_one_run() {
    let app = TestApp::at(NOW).await;
    let mut declared = task("cron", "0 * * * *", &json!([{"id": "one", "uses": "test.echo"}]));
    declared["policy"] = json!({"overlap": "allow"});
    let id = app.add_task(declared).await;
    sqlx::query("update task set snoozed_until = '2026-03-01T11:10:00Z', next_fire_at = '2026-03-01T11:10:00Z' where id = $1")
        .bind(id)
        .execute(&app.servers.pool)
        .await
        .unwrap();
    app.clock.set("2026-03-01T11:10:00Z".parse().unwrap());
    let scheduler = app.start_scheduler();
    app.until("select count(*) from due_work", 1).await;
    scheduler.stop().await;

    let ledger: Vec<String> = sqlx::query_scalar(
        "select to_char(nominal_at at time zone 'UTC', 'HH24:MI') || ' ' || disposition || ' x' || count
         from occurrence order by nominal_at",
    )
    .fetch_all(&app.servers.pool)
    .await
    .unwrap();
    assert_eq!(ledger, ["09:00 coalesced x2", "11:00 fired x1"]);
}

/// Two thousand minutes were missed, and each is to be caught up.
#[tokio::test]
async fn at_most_a_thousand_times_of_a_task_are_caught_up_and_the_rest_is_in_the_ledger() {
    let app = TestApp::at(NOW).await;
    let mut declared = task("cron", "* * * * *", &json!([{"id": "one", "uses": "test.echo"}]));
    declared["policy"] =
        json!({"catch_up": "all", "catch_up_window_seconds": 864_000, "overlap": "allow"});
    app.add_task(declared).await;
    app.clock.set("2026-03-02T17:20:00Z".parse().unwrap());
    let ctx = app.context(orchestrator_boot::Service::Scheduler);

    orchestrator_scheduler::fire::Firing::new(ctx).fire_due().await.unwrap();

    assert_eq!(
        app.count("select sum(count) from occurrence where disposition = 'skipped_too_old'").await,
        1_000
    );
    assert_eq!(
        app.count("select count(*) from occurrence where disposition = 'fired'").await,
        1_000
    );
    assert_eq!(
        app.count("select count(*) from due_work where nominal_at <= '2026-03-02T00:40:00Z'").await,
        0
    );
}
