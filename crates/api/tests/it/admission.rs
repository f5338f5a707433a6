//! `rate_limit`, `debounce_seconds`, `singleton`: which run stands for a `run_now`, and what it waits for.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::{self, ProcessId};
use orchestrator_engine::store::queue::{QueueView, Take};
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, TestApi, request, send_to, task_with};

async fn with(fields: Value) -> TestApi {
    let api = TestApi::new().await;
    let mut declared = task_with(fields);
    declared["name"] = json!("t");
    api.post("/tasks", declared).await.expect(201);
    api
}

async fn run_now(api: &TestApi, city: &str) -> Reply {
    api.post("/tasks/t/run_now", json!({"params": {"city": city}})).await.expect(202)
}

async fn runs(api: &TestApi) -> usize {
    api.get("/runs").await.body["items"].as_array().unwrap().len()
}

async fn show(api: &TestApi, run: &str) -> Reply {
    api.get(&format!("/runs/{run}")).await.expect(200)
}

fn time(reply: &Reply, pointer: &str) -> DateTime<Utc> {
    reply.str(pointer).parse().unwrap()
}

/// As the first lease by a worker leaves it.
async fn begin(api: &TestApi, run: &str) {
    let mut conn = api.db.pool.acquire().await.unwrap();
    sqlx::query(
        "update due_work set run_at = now() where run_id = $1::text::uuid and held is null",
    )
    .bind(run)
    .execute(&mut *conn)
    .await
    .unwrap();
    let worker = ProcessId::new(api.clock.now(), &mut id::rng());
    let (duration, ageing) = (Duration::from_secs(30), Duration::from_mins(1));
    let how = Take { worker, duration, wanted: 10, slots: 10, ageing };
    let taken = QueueView::default().take(&mut conn, how).await.unwrap().runs;
    assert!(taken.iter().any(|one| one.lease.run_id.to_string() == run), "{run} was not taken");
}

/// Forty calls to two replicas at once; the ids they were answered with.
async fn storm(api: &TestApi) -> Vec<(String, bool)> {
    let replicas = [api.replica(&[]), api.replica(&[])];
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..40 {
        let app = replicas[n % 2].clone();
        calls.spawn(async move {
            let body = json!({"params": {"city": n.to_string()}});
            let call = request("POST", "/tasks/t/run_now", ADMIN_KEY, &body);
            let answer = send_to(&app, call).await.expect(202);
            (answer.str("/run_id"), answer.body["deduplicated"] == json!(true))
        });
    }
    calls.join_all().await
}

#[tokio::test]
async fn a_trigger_within_the_window_moves_the_run_that_has_not_begun() {
    let api = with(json!({"debounce_seconds": 600})).await;

    let first = run_now(&api, "Iasi").await;
    let run = first.str("/run_id");
    let before = show(&api, &run).await;
    api.clock.advance(TimeDelta::seconds(100));
    let second = run_now(&api, "Chisinau").await;
    let after = show(&api, &run).await;

    assert_eq!(first.body["deduplicated"], false);
    assert_eq!(second.body, json!({"run_id": run, "deduplicated": true}));
    assert_eq!(time(&before, "/scheduled_at"), crate::harness::start() + TimeDelta::seconds(600));
    assert!(time(&after, "/run_at") > time(&before, "/run_at"));
    assert!(time(&after, "/scheduled_at") > time(&before, "/scheduled_at"));
    assert_eq!(after.body["params"], json!({"city": "Chisinau"}));
    assert_eq!(after.body["waits_for"], json!(null));
    assert_eq!(runs(&api).await, 1);
}

#[tokio::test]
async fn a_run_is_not_moved_beyond_its_bound_and_once_it_has_begun_not_at_all() {
    let api = with(json!({"debounce_seconds": 600, "debounce_max_seconds": 900})).await;
    let run = run_now(&api, "Iasi").await.str("/run_id");
    // The first trigger was 890 s ago.
    sqlx::query("update due_work set debounce_until = now() + interval '10 seconds'")
        .execute(&api.db.pool)
        .await
        .unwrap();

    run_now(&api, "Chisinau").await;
    let left: f64 = sqlx::query_scalar(
        "select extract(epoch from debounce_until - run_at)::float8 from due_work",
    )
    .fetch_one(&api.db.pool)
    .await
    .unwrap();
    assert!(left.abs() < 1e-6, "it is at its bound: {left}");
    begin(&api, &run).await;
    let next = run_now(&api, "Balti").await;

    assert_eq!(next.body["deduplicated"], false);
    assert_eq!(runs(&api).await, 2);
    assert_eq!(show(&api, &run).await.body["params"], json!({"city": "Chisinau"}));
}

#[tokio::test]
async fn without_a_bound_of_its_own_a_run_is_moved_to_ten_times_the_window() {
    let api = with(json!({"debounce_seconds": 60})).await;
    run_now(&api, "Iasi").await;

    let bound: f64 = sqlx::query_scalar(
        "select extract(epoch from debounce_until - run_at)::float8 from due_work",
    )
    .fetch_one(&api.db.pool)
    .await
    .unwrap();

    assert!((bound - 540.0).abs() < 1e-6, "{bound}");
}

#[tokio::test]
async fn a_run_that_is_moved_after_an_edit_is_of_the_new_revision() {
    let api = with(json!({"debounce_seconds": 600, "expires_after_seconds": 60})).await;
    let run = run_now(&api, "Iasi").await.str("/run_id");
    let patch = json!({"priority": 2, "rate_limit": {"limit": 1, "period_seconds": 60}});
    api.call("PATCH", "/tasks/t", ADMIN_KEY, patch).await.expect(200);

    let second = run_now(&api, "Iasi").await;

    let shown = show(&api, &run).await;
    assert_eq!(second.str("/run_id"), run);
    assert_eq!((&shown.body["revision"], &shown.body["priority"]), (&json!(2), &json!(2)));
    assert_eq!(shown.body["waits_for"], "rate", "its time has not come, and then it needs a turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_triggers_at_once_move_one_run() {
    let api = with(json!({"debounce_seconds": 600})).await;

    let answers = storm(&api).await;

    let ids: std::collections::BTreeSet<_> = answers.iter().map(|(id, _)| id).collect();
    assert_eq!((ids.len(), runs(&api).await), (1, 1));
    assert_eq!(answers.iter().filter(|(_, repeated)| !repeated).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_triggers_at_once_make_one_run_of_a_singleton() {
    let api = with(json!({"singleton": true})).await;

    let answers = storm(&api).await;

    let ids: std::collections::BTreeSet<_> = answers.iter().map(|(id, _)| id).collect();
    assert_eq!((ids.len(), runs(&api).await), (1, 1));
    assert_eq!(answers.iter().filter(|(_, repeated)| !repeated).count(), 1);
}

#[tokio::test]
async fn a_singleton_makes_no_run_until_the_one_before_has_ended() {
    let api = with(json!({"singleton": true})).await;

    let first = run_now(&api, "Iasi").await.str("/run_id");
    let queued = run_now(&api, "Chisinau").await;
    begin(&api, &first).await;
    let on = run_now(&api, "Chisinau").await;
    sqlx::query("update due_work set run_at = now() + interval '1 hour'")
        .execute(&api.db.pool)
        .await
        .unwrap();
    let between_attempts = run_now(&api, "Chisinau").await;
    sqlx::query("delete from due_work").execute(&api.db.pool).await.unwrap();
    let after = run_now(&api, "Chisinau").await;

    for answer in [&queued, &on, &between_attempts] {
        assert_eq!(answer.body, json!({"run_id": first, "deduplicated": true}));
    }
    assert_eq!(after.body["deduplicated"], false);
    assert_eq!(show(&api, &after.str("/run_id")).await.body["params"], json!({"city": "Chisinau"}));
}

#[tokio::test]
async fn runs_beyond_the_rate_wait_and_say_so() {
    let api = with(json!({"rate_limit": {"limit": 2, "period_seconds": 3600}})).await;

    let mut waits = Vec::new();
    for _ in 0..3 {
        let run = run_now(&api, "Iasi").await.str("/run_id");
        waits.push(show(&api, &run).await.body["waits_for"].clone());
    }

    assert_eq!(waits, [json!(null), json!(null), json!("rate")]);
    let shown = api.get("/admin/invariants").await.expect(200);
    assert!(!shown.text.contains("\"violations\":1"), "{}", shown.text);
}

#[tokio::test]
async fn the_fields_are_shown_changed_and_taken_back() {
    let fields = json!({
        "rate_limit": {"limit": 10, "period_seconds": 60, "key": "mail"},
        "debounce_seconds": 5, "debounce_max_seconds": 20, "singleton": true,
    });
    let api = with(fields.clone()).await;
    let shown = api.get("/tasks/t").await.expect(200);
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&shown.body[name], value, "{name}");
    }

    let patch = json!({"rate_limit": {"limit": 5, "key": null}, "debounce_max_seconds": null});
    let changed = api.call("PATCH", "/tasks/t", ADMIN_KEY, patch).await.expect(200);
    assert_eq!(changed.body["rate_limit"], json!({"limit": 5, "period_seconds": 60, "key": null}));
    let patch = json!({"rate_limit": null, "debounce_seconds": null, "singleton": null});
    let back = api.call("PATCH", "/tasks/t", ADMIN_KEY, patch).await.expect(200);
    for name in ["rate_limit", "debounce_seconds", "debounce_max_seconds"] {
        assert_eq!(back.body[name], json!(null), "{name}");
    }
    assert_eq!(back.body["singleton"], false);
}

#[tokio::test]
async fn what_is_wrong_with_them_is_said_where_it_is() {
    let api = TestApi::new().await;
    for (fields, pointer) in [
        (json!({"rate_limit": {"limit": 0, "period_seconds": 60}}), "/rate_limit/limit"),
        (json!({"rate_limit": {"limit": 1001, "period_seconds": 60}}), "/rate_limit/limit"),
        (json!({"rate_limit": {"limit": 1, "period_seconds": 0}}), "/rate_limit/period_seconds"),
        (json!({"rate_limit": {"limit": 1}}), "/rate_limit/period_seconds"),
        (json!({"rate_limit": {"limit": 1, "period_seconds": 1, "per": 1}}), "/rate_limit/per"),
        (json!({"rate_limit": {"limit": 1, "period_seconds": 1, "key": ""}}), "/rate_limit/key"),
        (
            json!({"rate_limit": {"limit": 1, "period_seconds": 1, "key": "${event.topic}"}}),
            "/rate_limit/key",
        ),
        (json!({"rate_limit": 5}), "/rate_limit"),
        (json!({"debounce_seconds": 0}), "/debounce_seconds"),
        (json!({"debounce_seconds": 90_000}), "/debounce_seconds"),
        (json!({"debounce_max_seconds": 5}), "/debounce_max_seconds"),
        (json!({"debounce_seconds": 5, "debounce_max_seconds": 4}), "/debounce_max_seconds"),
        (json!({"singleton": "yes"}), "/singleton"),
    ] {
        let refused = api.post("/tasks", task_with(fields.clone())).await.expect(422);
        assert_eq!(refused.pointers(), [pointer], "{fields}");
    }
}
