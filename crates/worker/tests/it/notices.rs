//! What the commit that adds runs tells workers.

use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, ProcessId};
use orchestrator_engine::store::notices;
use orchestrator_engine::store::queue::{self, Call, NewWork};
use orchestrator_testkit::{TestApp, task};
use serde_json::json;
use sqlx::postgres::PgListener;

const NOW: &str = "2026-03-01T08:00:00Z";

/// What is heard until a word that comes last.
async fn heard(app: &TestApp, ear: &mut PgListener) -> Vec<String> {
    sqlx::query("select pg_notify($1, 'last')")
        .bind(notices::WORK)
        .execute(&app.servers.pool)
        .await
        .expect("the database answers");
    let mut heard = Vec::new();
    loop {
        match ear.recv().await.expect("the connection is there").payload() {
            "last" => return heard,
            word => heard.push(word.to_owned()),
        }
    }
}

#[tokio::test]
async fn a_commit_that_adds_runs_tells_workers_when_one_sleeps() {
    let app = TestApp::at(NOW).await;
    let mut ear = PgListener::connect_with(&app.servers.pool).await.unwrap();
    ear.listen(notices::WORK).await.unwrap();
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let asked =
        app.add_task(task("manual", "", &json!([{"id": "one", "uses": "test.echo"}]))).await;
    let reference = asked.to_string();
    let call = |work: Option<NewWork>| Call {
        reference: &reference,
        sees: None,
        caller: app.agent,
        request_id: "req_1",
        detail: json!({}),
        work,
    };

    queue::enqueue_many(&mut conn, vec![app.work(None), app.work(None)]).await.unwrap();
    queue::enqueue_called(&mut conn, vec![call(Some(app.work(Some(asked))))]).await.unwrap();
    assert_eq!(heard(&app, &mut ear).await, [""; 0], "nobody sleeps");

    let worker = ProcessId::new(app.clock.now(), &mut id::rng());
    notices::sleep(&mut conn, worker).await.unwrap();
    queue::enqueue_many(&mut conn, vec![app.work(None), app.work(None)]).await.unwrap();
    assert_eq!(heard(&app, &mut ear).await, [""], "once for both");
    queue::enqueue_called(&mut conn, vec![call(Some(app.work(Some(asked)))), call(None)])
        .await
        .unwrap();
    assert_eq!(heard(&app, &mut ear).await, [""]);
    queue::enqueue_called(&mut conn, vec![call(None)]).await.unwrap();
    assert_eq!(heard(&app, &mut ear).await, [""; 0], "a task that is only looked up");

    notices::wake(&mut conn, worker).await.unwrap();
    queue::enqueue_many(&mut conn, vec![app.work(None)]).await.unwrap();
    assert_eq!(heard(&app, &mut ear).await, [""; 0], "it is awake again");
}
