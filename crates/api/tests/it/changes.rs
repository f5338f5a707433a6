//! The same request sent again does nothing again.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, TestApi, request, task, task_with};

fn keyed(path: &str, key: &str, body: &Value) -> axum::http::Request<axum::body::Body> {
    let mut request = request("POST", path, ADMIN_KEY, body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_and_does_nothing_again() {
    let api = TestApi::new().await;

    let first = api.send(keyed("/tasks", "k1", &task("t"))).await.expect(201);
    let again = api.send(keyed("/tasks", "k1", &task("t"))).await.expect(201);

    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("etag"), first.header("etag"));
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        ("", "true")
    );
    assert_eq!(api.get("/tasks").await.body["items"].as_array().unwrap().len(), 1);
    let audit = api.get("/audit?action=task.create").await;
    assert_eq!(audit.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_used_for_another_request_is_refused() {
    let api = TestApi::new().await;
    api.send(keyed("/tasks", "k1", &task("t"))).await.expect(201);

    let other_body = api.send(keyed("/tasks", "k1", &task("other"))).await.expect(409);
    let other_path = api.send(keyed("/events", "k1", &json!({"topic": "a"}))).await.expect(409);

    assert_eq!(other_body.str("/type"), "/problems/idempotency-key-reused");
    assert_eq!(other_path.str("/type"), "/problems/idempotency-key-reused");
    api.send(keyed("/tasks", &"k".repeat(256), &task("t"))).await.expect(400);
}

#[tokio::test]
async fn a_refused_request_may_be_corrected_and_sent_again_with_its_key() {
    let api = TestApi::new().await;

    api.send(keyed("/tasks", "k1", &task_with(json!({"priority": 0})))).await.expect(422);
    api.send(keyed("/tasks", "k1", &task_with(json!({"priority": 1})))).await.expect(201);
}

#[tokio::test]
async fn of_twins_sent_at_once_one_does_it_and_all_get_its_answer() {
    let api = TestApi::new().await;
    let made = api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    drop(made);

    let send = || api.send(keyed("/tasks/t/run_now", "k1", &json!({"params": {"city": "Iasi"}})));
    let (a, b, c, d) = tokio::join!(send(), send(), send(), send());

    let replies = [a, b, c, d];
    for reply in &replies {
        assert_eq!(reply.status, 202, "{}", reply.text);
        assert_eq!(reply.body, replies[0].body);
    }
    let replayed = replies.iter().filter(|r| r.header("idempotency-replayed") == "true").count();
    assert_eq!(replayed, 3);
    assert_eq!(api.get("/runs").await.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day_and_belongs_to_its_agent() {
    let api = TestApi::new().await;
    let ann = api.agent("ann", &["tasks:write"]).await;
    let first = api.send(keyed("/tasks", "k1", &task("t"))).await.expect(201);
    let mut anns = keyed("/tasks", "k1", &task("t"));
    anns.headers_mut().insert("authorization", format!("Bearer {ann}").parse().unwrap());

    let other = api.send(anns).await.expect(201);
    api.clock.advance(TimeDelta::hours(25));
    let later = api.send(keyed("/tasks", "k1", &task("t"))).await.expect(201);

    assert_ne!(other.str("/id"), first.str("/id"));
    assert_ne!(later.str("/id"), first.str("/id"));
}

/// The key of an agent is told once, and kept nowhere: not even for a repetition.
#[tokio::test]
async fn a_repeated_request_for_a_key_does_not_tell_the_key_again() {
    let api = TestApi::new().await;
    api.post("/agents", json!({"name": "ann", "scopes": []})).await.expect(201);

    let first = api.send(keyed("/agents/ann/keys", "k1", &json!({}))).await.expect(201);
    let again = api.send(keyed("/agents/ann/keys", "k1", &json!({}))).await.expect(201);

    assert!(first.str("/key").starts_with("orc_"));
    assert_eq!(again.body["key"], Value::Null);
    assert_eq!(again.str("/id"), first.str("/id"));
    let kept: Vec<Value> =
        sqlx::query_scalar("select body from idempotency").fetch_all(&api.db.pool).await.unwrap();
    assert!(!json!(kept).to_string().contains(&first.str("/key")));
}
