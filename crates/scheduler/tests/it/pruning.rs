//! What is old goes, but not what is still needed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, RunId};
use orchestrator_engine::store::queue::{self, NewWork};
use orchestrator_engine::store::retention::{self, Pruned};
use orchestrator_testkit::TestApp;

const KEPT: Duration = Duration::from_hours(30 * 24);

/// A run made at `at` that has done a step and waits for its next try.
async fn waiting_since(app: &TestApp, at: &str) -> RunId {
    let at: DateTime<Utc> = at.parse().unwrap();
    let run_id = RunId::new(at, &mut id::rng());
    sqlx::query("select ensure_run_partitions($1, $1)")
        .bind(at)
        .execute(&app.servers.pool)
        .await
        .unwrap();
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, NewWork { run_id, ..app.work(None) }).await.unwrap();
    sqlx::query(
        "insert into run_step (run_id, path, attempt, id, status, started_at, finished_at)
         values ($1, 'one', 1, 'one', 'succeeded', $2, $2)",
    )
    .bind(run_id)
    .bind(at)
    .execute(&mut *conn)
    .await
    .unwrap();
    run_id
}

/// One of two runs of last summer has ended; the other waits for a year.
#[tokio::test]
async fn the_steps_of_a_run_that_is_still_queued_are_kept() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    let ended = waiting_since(&app, "2025-06-04T12:00:00Z").await;
    let queued = waiting_since(&app, "2025-07-02T12:00:00Z").await;
    sqlx::query("delete from due_work where run_id = $1")
        .bind(ended)
        .execute(&app.servers.pool)
        .await
        .unwrap();
    let mut conn = app.servers.pool.acquire().await.unwrap();

    let pruned = retention::prune(&mut conn, KEPT, app.clock.now()).await.unwrap().unwrap();
    let kept: Vec<RunId> =
        sqlx::query_scalar("select run_id from run_step").fetch_all(&mut *conn).await.unwrap();

    assert_eq!(kept, [queued]);
    assert_eq!(pruned.partitions, 2, "the week of the run that ended: runs and their steps");
}

/// A week has gone by, and a backup is reading the runs.
#[tokio::test]
async fn whoever_reads_runs_for_long_holds_up_partitions_and_nothing_else() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    let ended = waiting_since(&app, "2025-06-04T12:00:00Z").await;
    let pool = &app.servers.pool;
    sqlx::query("delete from due_work where run_id = $1").bind(ended).execute(pool).await.unwrap();
    // More than go in one transaction, and one that is still to be kept.
    sqlx::query(
        "insert into occurrence (task_id, nominal_at, disposition, revision, decided_at)
         select gen_random_uuid(), '2025-06-04'::timestamptz, 'skipped_dst', 1, '2025-06-04'::timestamptz from generate_series(1, 5001)
         union all select gen_random_uuid(), '2026-02-28'::timestamptz, 'skipped_dst', 1, '2026-02-28'::timestamptz",
    )
    .execute(pool)
    .await
    .unwrap();
    let mut backup = pool.begin().await.unwrap();
    sqlx::query("lock table run in access share mode").execute(&mut *backup).await.unwrap();
    let mut conn = pool.acquire().await.unwrap();

    let during = retention::prune(&mut conn, KEPT, app.clock.now()).await.unwrap().unwrap();
    backup.rollback().await.unwrap();
    let after = retention::prune(&mut conn, KEPT, app.clock.now()).await.unwrap().unwrap();

    // Those of its steps, which nobody reads, go at once.
    let while_read =
        Pruned { occurrences: 5_001, partitions: 1, postponed: true, ..Pruned::default() };
    assert_eq!(during, while_read);
    assert_eq!(after, Pruned { partitions: 1, ..Pruned::default() });
    assert_eq!(app.count("select count(*) from occurrence").await, 1);
}

#[tokio::test]
async fn a_dedupe_key_goes_when_its_window_is_over_and_not_before() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    sqlx::query(
        "insert into dedupe (agent_id, key, run_id, until)
         select gen_random_uuid(), 'old', gen_random_uuid(), now() - interval '1 s' from generate_series(1, 5001)
         union all select gen_random_uuid(), 'open', gen_random_uuid(), now() + interval '1 hour'",
    )
    .execute(&app.servers.pool)
    .await
    .unwrap();
    let mut conn = app.servers.pool.acquire().await.unwrap();

    retention::prune(&mut conn, KEPT, app.clock.now()).await.unwrap().unwrap();

    let kept: Vec<String> =
        sqlx::query_scalar("select key from dedupe").fetch_all(&mut *conn).await.unwrap();
    assert_eq!(kept, ["open"]);
}

/// The tests' role is called orchestrator, as the schema of what other programs may call: nothing of ours goes
/// in there.
#[tokio::test]
async fn the_partitions_of_weeks_to_come_are_made_where_the_others_are() {
    let app = TestApp::at("2027-03-01T08:00:00Z").await;
    let mut conn = app.servers.pool.acquire().await.unwrap();

    retention::prune(&mut conn, KEPT, app.clock.now()).await.unwrap().unwrap();

    let weeks = "select count(*) from pg_class where relname in ('run_2027w11', 'run_step_2027w11')
                 and relnamespace = (select relnamespace from pg_class where oid = 'run'::regclass)";
    assert_eq!(app.count(weeks).await, 2);
}
