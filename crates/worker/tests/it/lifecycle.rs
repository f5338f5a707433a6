//! From the queue to the record, also when workers come and go.

use std::time::Duration;

use orchestrator_engine::run::RunError;
use orchestrator_engine::store::{queue, run};
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::json;

const NOW: &str = "2026-03-01T08:00:00Z";

#[tokio::test]
async fn a_run_ends_with_a_record_of_every_step() {
    let app = TestApp::at(NOW).await;
    let task = app
        .add_task(task(
            "manual",
            "",
            &json!([
                {"id": "one", "uses": "test.echo", "with": {"n": 20}},
                {"id": "never", "uses": "test.echo", "if": "${false}"},
                {"id": "two", "uses": "test.echo", "with": {"sum": "${steps.one.n + 1}"}},
            ]),
        ))
        .await;
    let tools = FakeTools::default();
    let worker = app.start_worker(&tools);

    let run = app.run_now(task).await;
    app.until_idle().await;
    worker.stop().await;

    let (status, attempt, error, output) = app.finished(run).await;
    assert_eq!((status.as_str(), attempt, error), ("succeeded", 1, None));
    assert_eq!(output, Some(json!({"sum": 21})));
    let mut steps = app.steps(run).await;
    steps.sort();
    assert_eq!(steps, ["never#1 skipped", "one#1 succeeded", "two#1 succeeded"]);
    assert_eq!(tools.calls()[1].key, format!("{run}/two"));
    app.check_invariants().await;
}

/// A worker is lost in the third of five steps. Another takes the run over when the lease has
/// lapsed, and goes on with that step.
#[tokio::test]
async fn a_run_whose_worker_is_lost_goes_on_behind_the_last_checkpoint() {
    let app = TestApp::with(NOW, &[("WORKER_LEASE_SECONDS", "5")]).await;
    let steps: Vec<_> = (1..=5)
        .map(|n| json!({"id": format!("s{n}"), "uses": if n == 3 { "test.hang" } else { "test.echo" }}))
        .collect();
    let task = app.add_task(task("manual", "", &json!(steps))).await;
    let first_tools = FakeTools::default();
    let first = app.start_worker(&first_tools);
    let run = app.run_now(task).await;
    first_tools.called(3).await;
    app.until("select count(*) from checkpointed where status = 'running'", 1).await;
    first.kill();

    let second_tools = FakeTools::default();
    second_tools.release();
    let second = app.start_worker(&second_tools);
    app.until_idle().await;
    second.stop().await;

    let called: Vec<_> = second_tools.calls().into_iter().map(|call| call.key).collect();
    assert_eq!(called, ["s3", "s4", "s5"].map(|step| format!("{run}/{step}")));
    let (status, attempt, ..) = app.finished(run).await;
    assert_eq!((status.as_str(), attempt), ("succeeded", 2));
    let mut recorded = app.steps(run).await;
    recorded.sort();
    assert_eq!(
        recorded,
        [
            "s1#1 succeeded",
            "s2#1 succeeded",
            "s3#1 failed",
            "s3#2 succeeded",
            "s4#1 succeeded",
            "s5#1 succeeded",
        ]
    );
    app.check_invariants().await;
}

#[tokio::test]
async fn a_worker_told_to_stop_gives_its_runs_back_and_burns_no_attempt() {
    let app = TestApp::at(NOW).await;
    let task = app
        .add_task(task(
            "manual",
            "",
            &json!([
                {"id": "one", "uses": "test.echo"}, {"id": "two", "uses": "test.hang"},
            ]),
        ))
        .await;
    let first_tools = FakeTools::default();
    let first = app.start_worker(&first_tools);
    let run = app.run_now(task).await;
    first_tools.called(2).await;
    first.stop().await;
    let held = app.count("select count(*) from leased").await;

    let second_tools = FakeTools::default();
    second_tools.release();
    let second = app.start_worker(&second_tools);
    app.until_idle().await;
    second.stop().await;

    assert_eq!(held, 0, "the lease is given back");
    assert_eq!(second_tools.calls().len(), 1, "only the second step is done again");
    let (status, attempt, ..) = app.finished(run).await;
    assert_eq!((status.as_str(), attempt), ("succeeded", 1));
    app.check_invariants().await;
}

#[tokio::test]
async fn a_running_run_is_canceled_and_says_so() {
    let app = TestApp::with(NOW, &[("WORKER_LEASE_SECONDS", "5")]).await;
    let task = app.add_task(task("manual", "", &json!([{"id": "one", "uses": "test.hang"}]))).await;
    let tools = FakeTools::default();
    let worker = app.start_worker(&tools);
    let run = app.run_now(task).await;
    tools.called(1).await;

    let why = RunError { kind: "canceled".into(), message: "enough".into(), step: None };
    let mut tx = app.servers.pool.begin().await.unwrap();
    queue::cancel(&mut tx, run, &why).await.unwrap();
    tx.commit().await.unwrap();
    app.until_idle().await;
    worker.stop().await;

    let (status, _, error, _) = app.finished(run).await;
    assert_eq!((status.as_str(), error.as_deref()), ("canceled", Some("canceled")));
    assert_eq!(app.steps(run).await, ["one#1 canceled"]);
}

#[tokio::test]
async fn a_result_that_postgres_cannot_keep_is_kept_without_what_it_cannot() {
    let app = TestApp::at(NOW).await;
    let task = app.add_task(task("manual", "", &json!([{"id": "one", "uses": "test.nul"}]))).await;
    let fine =
        app.add_task(self::task("manual", "", &json!([{"id": "one", "uses": "test.echo"}]))).await;
    let tools = FakeTools::default().on("test.nul", |_| Ok(json!({"text": "a\0b"})));
    let (run, neighbour) = (app.run_now(task).await, app.run_now(fine).await);
    let worker = app.start_worker(&tools);
    app.until_idle().await;
    worker.stop().await;

    assert_eq!(app.finished(run).await.3, Some(json!({"text": "ab"})));
    assert_eq!(app.finished(neighbour).await.0, "succeeded");
}

#[tokio::test]
async fn a_run_that_was_not_started_in_time_expires() {
    let app = TestApp::at(NOW).await;
    let mut work = app.work(None);
    work.expires_after = Some(std::time::Duration::ZERO);
    let run = work.run_id;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    queue::enqueue(&mut conn, work).await.unwrap();
    let worker = app.start_worker(&FakeTools::default());
    app.until_idle().await;
    worker.stop().await;

    let (status, _, error, _) = app.finished(run).await;
    assert_eq!((status.as_str(), error.as_deref()), ("expired", Some("expired")));
}

#[tokio::test]
async fn three_workers_share_many_runs_and_do_each_once() {
    let app = TestApp::with(NOW, &[("WORKER_CONCURRENCY", "20")]).await;
    let task = app.add_task(task("manual", "", &json!([{"id": "one", "uses": "test.echo"}]))).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let work = (0..500).map(|_| app.work(Some(task))).collect();
    queue::enqueue_many(&mut conn, work).await.unwrap();
    let tools = FakeTools::default();

    let workers = [(); 3].map(|()| app.start_worker(&tools));
    let ended = app.until_idle().await;
    for worker in workers {
        worker.stop().await;
    }

    assert_eq!(ended, [("succeeded".to_owned(), 500)]);
    assert_eq!(tools.calls().len(), 500);
    app.check_invariants().await;
}

#[tokio::test]
async fn without_redis_work_is_found_by_polling() {
    let app = TestApp::with(NOW, &[("REDIS_URL", "redis://127.0.0.1:1/")]).await;
    let task = app.add_task(task("manual", "", &json!([{"id": "one", "uses": "test.echo"}]))).await;
    let worker = app.start_worker(&FakeTools::default());

    let run = app.run_now(task).await;
    app.until_idle().await;
    worker.stop().await;

    assert_eq!(app.finished(run).await.0, "succeeded");
}

/// A run that brings down each worker that begins it does so no more often than it may be tried.
#[tokio::test]
async fn a_run_whose_workers_are_all_lost_ends_with_its_last_attempt() {
    let app = TestApp::at(NOW).await;
    let mut declared = task("manual", "", &json!([{"id": "one", "uses": "test.echo"}]));
    declared["max_retries"] = json!(1);
    let task = app.add_task(declared).await;
    let run = app.run_now(task).await;
    let mut conn = app.servers.pool.acquire().await.expect("the database answers");
    for _ in 0..2 {
        assert_eq!(app.take(&mut conn, Duration::ZERO, 1).await.runs.len(), 1, "and is lost");
    }

    let tools = FakeTools::default();
    let worker = app.start_worker(&tools);
    app.until_idle().await;
    worker.stop().await;

    assert!(tools.calls().is_empty());
    let (status, attempt, kind, _) = app.finished(run).await;
    assert_eq!((status.as_str(), attempt, kind.as_deref()), ("failed", 2, Some("lease_lost")));
    app.check_invariants().await;
}

/// What another program wrote into the queue and nobody can read fails alone; its neighbours run.
#[tokio::test]
async fn a_run_whose_params_cannot_be_read_fails_and_stops_nobody() {
    let app = TestApp::at(NOW).await;
    let task = app.add_task(task("manual", "", &json!([{"id": "one", "uses": "test.echo"}]))).await;
    let (bad, good) = (app.run_now(task).await, app.run_now(task).await);
    let deep = "update due_work set params = (repeat('[', 1000) || repeat(']', 1000))::jsonb where run_id = $1";
    sqlx::query(deep).bind(bad).execute(&app.servers.pool).await.unwrap();

    let worker = app.start_worker(&FakeTools::default());
    app.until_idle().await;
    worker.stop().await;

    assert_eq!(app.finished(good).await.0, "succeeded");
    let (status, _, kind, _) = app.finished(bad).await;
    assert_eq!((status.as_str(), kind.as_deref()), ("failed", Some("input")));
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let shown = run::get(&mut conn, bad, None).await.unwrap().params.unwrap();
    assert!(shown.as_str().unwrap().starts_with("cannot be shown: "), "{shown}");
}

/// Who takes a scope away from an agent takes it away from its tasks.
#[tokio::test]
async fn a_run_whose_owner_has_lost_the_scope_it_needs_does_not_begin() {
    let app = TestApp::with(NOW, &[("SECRET_TOKEN", "s3cret-of-a-test")]).await;
    let step = json!({"id": "one", "uses": "test.echo", "with": {"t": "${secrets.TOKEN}"}});
    let task = app.add_task(task("manual", "", &json!([step]))).await;
    let tools = FakeTools::default();
    let worker = app.start_worker(&tools);
    let set = async |scopes: &str| {
        let sql = "update agent set scopes = string_to_array($1, ',')";
        sqlx::query(sql).bind(scopes).execute(&app.servers.pool).await.unwrap();
        let run = app.run_now(task).await;
        app.until_idle().await;
        app.finished(run).await
    };

    let with = set("runs:write,secret:TOKEN").await;
    let without = set("runs:write").await;
    worker.stop().await;

    assert_eq!(with.0, "succeeded");
    assert_eq!((without.0.as_str(), without.2.as_deref()), ("failed", Some("refused")));
    assert_eq!(tools.calls().len(), 1);
}
