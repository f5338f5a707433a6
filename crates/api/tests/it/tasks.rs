//! Tasks from their making to their end.

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, TestApi, request, task, task_with};

#[tokio::test]
async fn a_task_is_returned_whole_and_found_by_id_and_by_name() {
    let api = TestApi::new().await;

    let made = api.post("/tasks", task_with(json!({"name": "briefing"}))).await.expect(201);
    let id = made.str("/id");

    assert_eq!(made.header("location"), format!("/tasks/{id}"));
    assert_eq!(made.header("etag"), "\"1\"");
    assert_eq!(made.str("/next_fire_at"), "2026-03-02T08:30:00Z");
    assert_eq!(made.str("/status"), "active");
    assert_eq!(made.str("/created_by"), "admin");
    assert_eq!(made.body["policy"]["overlap"], "skip", "defaults are written out");
    assert!(!made.str("/summary").is_empty());
    for reference in [&id, "briefing"] {
        let shown = api.get(&format!("/tasks/{reference}")).await.expect(200);
        assert_eq!(shown.body, made.body);
        assert_eq!(shown.header("etag"), "\"1\"");
    }
    api.post("/tasks", task_with(json!({"name": "briefing"}))).await.expect(409);
}

#[tokio::test]
async fn a_patch_makes_a_revision_only_when_something_has_changed() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t", "priority": 3}))).await.expect(201);
    let patch = |fields: Value| api.call("PATCH", "/tasks/t", ADMIN_KEY, fields);

    let same = patch(json!({"priority": 3, "created_by": "admin"})).await.expect(200);
    let titled = patch(json!({"title": "Another"})).await.expect(200);
    let back = patch(json!({"priority": null})).await.expect(200);
    let moved = patch(json!({"schedule_expr": "0 12 * * *"})).await.expect(200);

    assert_eq!((&same.body["revision"], &same.body["version"]), (&json!(1), &json!(1)));
    assert_eq!((&titled.body["revision"], titled.header("etag")), (&json!(2), "\"2\""));
    assert_eq!(titled.str("/next_fire_at"), "2026-03-02T08:30:00Z");
    assert_eq!(back.body["priority"], 5);
    assert_eq!(moved.str("/next_fire_at"), "2026-03-02T12:00:00Z");
    let revisions = api.get("/tasks/t/revisions").await.expect(200);
    assert_eq!(revisions.body["items"].as_array().unwrap().len(), 4);
    assert_eq!(revisions.body["items"][0]["revision"], 4);
}

#[tokio::test]
async fn a_task_changed_meanwhile_is_not_changed_over_it() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let with = |tag: &str, body: Value| {
        let mut request = request("PATCH", "/tasks/t", ADMIN_KEY, &body);
        request.headers_mut().insert("if-match", tag.parse().unwrap());
        request
    };

    api.send(with("\"1\"", json!({"title": "mine"}))).await.expect(200);
    let late = api.send(with("\"1\"", json!({"title": "yours"}))).await.expect(412);
    assert_eq!(late.header("etag"), "\"2\"");
    api.send(with("*", json!({"title": "any"}))).await.expect(200);
    api.send(with("\"2\", \"3\"", json!({"title": "either"}))).await.expect(200);
    api.send(with("W/\"4\"", json!({"title": "weak"}))).await.expect(412);
    api.send(with("4", json!({"title": "bare"}))).await.expect(400);

    let mut delete = request("DELETE", "/tasks/t", ADMIN_KEY, &Value::Null);
    delete.headers_mut().insert("if-match", "\"1\"".parse().unwrap());
    api.send(delete).await.expect(412);
    assert_eq!(api.get("/tasks/t").await.str("/title"), "either");
}

/// Paused over two of its times, the task goes on with the third; the two are in the ledger.
#[tokio::test]
async fn times_that_pass_while_a_task_is_paused_are_skipped_and_said_so() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);

    let paused = api.post("/tasks/t/pause", json!({"reason": "holidays"})).await.expect(200);
    api.clock.advance(TimeDelta::hours(30));
    let resumed = api.post("/tasks/t/resume", Value::Null).await.expect(200);

    assert_eq!(
        (paused.str("/status"), paused.str("/paused_by")),
        ("paused".into(), "admin".into())
    );
    assert_eq!(paused.body["next_fire_at"], Value::Null);
    assert_eq!(resumed.str("/next_fire_at"), "2026-03-04T08:30:00Z");
    assert_eq!(resumed.body["paused_at"], Value::Null);
    let occurrences =
        api.get("/tasks/t/occurrences?from=2026-03-01T00:00:00Z&to=2026-03-06T00:00:00Z").await;
    let told: Vec<_> = occurrences.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["nominal_at"].as_str().unwrap(), item["disposition"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("2026-03-02T08:30:00Z", "skipped_paused"),
            ("2026-03-04T08:30:00Z", "planned"),
            ("2026-03-05T08:30:00Z", "planned"),
        ]
    );
    assert_eq!(occurrences.body["items"][0]["count"], 2);
    assert_eq!(occurrences.body["items"][0]["until_at"], "2026-03-03T08:30:00Z");
}

#[tokio::test]
async fn a_snooze_postpones_the_next_time_and_only_forward() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let snooze = |body: Value| api.post("/tasks/t/snooze", body);

    let later = snooze(json!({"delay_seconds": 600})).await.expect(200);
    let until = snooze(json!({"until": "2026-03-02T09:15:00Z"})).await.expect(200);

    assert_eq!(later.str("/next_fire_at"), "2026-03-02T08:40:00Z");
    assert_eq!(until.str("/next_fire_at"), "2026-03-02T09:15:00Z");
    assert_eq!(until.str("/snoozed_until"), "2026-03-02T09:15:00Z");
    let back = snooze(json!({"until": "2026-03-02T08:10:00Z"})).await.expect(422);
    assert_eq!(back.pointers(), ["/until"]);
    snooze(json!({})).await.expect(422);
    snooze(json!({"delay_seconds": 1, "until": "2026-03-02T10:00:00Z"})).await.expect(422);
    assert_eq!(
        snooze(json!({"delay_seconds": 0})).await.expect(422).pointers(),
        ["/delay_seconds"]
    );
    for (field, far) in [
        ("delay_seconds", json!(40_000_000)),
        ("delay_seconds", json!(5_000_000_000_u64)),
        ("delay_seconds", json!(u64::MAX)),
        ("until", json!("9999-12-31T23:59:59Z")),
    ] {
        let far = snooze(json!({field: far})).await.expect(422);
        assert_eq!(far.pointers(), [format!("/{field}")], "{}", far.text);
        assert!(far.str("/errors/0/message").contains("366 days"), "{}", far.text);
    }
    api.post("/tasks/t/pause", json!({})).await.expect(200);
    snooze(json!({"delay_seconds": 5})).await.expect(409);
}

#[tokio::test]
async fn a_canceled_task_keeps_its_history_and_gives_its_name_and_queued_runs_up() {
    let api = TestApi::new().await;
    let made = api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let id = made.str("/id");
    let run = api.post("/tasks/t/run_now", json!({})).await.expect(202).str("/run_id");

    let gone = api.call("DELETE", "/tasks/t", ADMIN_KEY, Value::Null).await.expect(204);

    assert_eq!(gone.text, "");
    assert_eq!(api.get(&format!("/tasks/{id}")).await.expect(200).str("/status"), "canceled");
    assert_eq!(api.get(&format!("/runs/{run}")).await.expect(200).str("/status"), "canceled");
    api.get("/tasks/t").await.expect(404);
    api.post(&format!("/tasks/{id}/run_now"), json!({})).await.expect(409);
    api.call("PATCH", &format!("/tasks/{id}"), ADMIN_KEY, json!({"title": "x"})).await.expect(409);
    api.call("DELETE", &format!("/tasks/{id}"), ADMIN_KEY, Value::Null).await.expect(204);
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
}

#[tokio::test]
async fn only_an_admin_makes_tasks_for_others_and_then_they_own_them() {
    let api = TestApi::new().await;
    let key = api.agent("ann", &["tasks:read", "tasks:write"]).await;

    let for_ann = api.post("/tasks", task_with(json!({"created_by": "ann"}))).await.expect(201);
    let own = task_with(json!({"created_by": "ann"}));
    api.call("POST", "/tasks", &key, own).await.expect(201);
    let others = task_with(json!({"created_by": "admin"}));
    let refused = api.call("POST", "/tasks", &key, others).await.expect(422);

    assert_eq!(for_ann.str("/created_by"), "ann");
    assert_eq!(refused.pointers(), ["/created_by"]);
    let path = format!("/tasks/{}", for_ann.str("/id"));
    api.call("GET", &path, &key, Value::Null).await.expect(200);
    let unknown = api.post("/tasks", task_with(json!({"created_by": "nobody"}))).await.expect(422);
    assert_eq!(unknown.pointers(), ["/created_by"]);
}

#[tokio::test]
async fn a_name_that_several_agents_use_is_no_name_for_an_admin() {
    let api = TestApi::new().await;
    let ann = api.agent("ann", &["tasks:read", "tasks:write"]).await;
    let named = task_with(json!({"name": "same"}));
    api.call("POST", "/tasks", &ann, named.clone()).await.expect(201);

    api.get("/tasks/same").await.expect(200);
    api.post("/tasks", named).await.expect(201);
    api.get("/tasks/same").await.expect(409);
    api.call("GET", "/tasks/same", &ann, Value::Null).await.expect(200);
}

#[tokio::test]
async fn a_tool_may_only_be_used_by_whoever_has_its_scope() {
    let api = TestApi::new().await;
    let plain = api.agent("plain", &["tasks:write"]).await;
    let http = api.agent("http", &["tasks:write", "tool:http"]).await;
    let calls = task_with(json!({"payload": {"pipeline": [
        {"id": "log", "uses": "log.write", "with": {"message": "x"}},
        {"id": "get", "uses": "http.request", "with": {"url": "https://example.org"}},
    ]}}));

    let refused = api.call("POST", "/tasks", &plain, calls.clone()).await.expect(422);
    api.call("POST", "/tasks", &http, calls).await.expect(201);

    assert_eq!(refused.pointers(), ["/payload/pipeline/1/uses"]);
    assert!(refused.text.contains("needs the scope tool:http"), "{}", refused.text);
}

#[tokio::test]
async fn a_task_due_once_in_the_past_is_refused_and_in_the_future_taken() {
    let api = TestApi::new().await;
    let once = |at: &str| task_with(json!({"schedule_kind": "once", "schedule_expr": at}));

    let past = api.post("/tasks", once("2026-03-02T07:59:59Z")).await.expect(422);
    let future = api.post("/tasks", once("2026-03-02T08:00:01Z")).await.expect(201);

    assert_eq!(past.pointers(), ["/schedule_expr"]);
    assert!(past.text.contains("past"), "{}", past.text);
    assert_eq!(future.str("/next_fire_at"), "2026-03-02T08:00:01Z");
}

#[tokio::test]
async fn a_zone_that_is_not_named_is_the_one_of_the_settings() {
    let api = TestApi::with(&[("DEFAULT_TIMEZONE", "Europe/Chisinau")]).await;

    let made = api.post("/tasks", task("t")).await.expect(201);
    let preview = api
        .post("/schedules/preview", json!({"schedule_kind": "cron", "schedule_expr": "30 8 * * *"}))
        .await
        .expect(200);

    assert_eq!(made.str("/timezone"), "Europe/Chisinau");
    assert_eq!(made.str("/next_fire_at"), "2026-03-03T06:30:00Z", "06:30 UTC is over by now");
    assert_eq!(preview.str("/fires/0/local"), "2026-03-03T08:30:00+02:00");
}

#[tokio::test]
async fn a_rule_that_is_written_in_a_zone_brings_it_along() {
    let api = TestApi::new().await;
    let event = "BEGIN:VEVENT\nSUMMARY:Review\nDTSTART;TZID=Asia/Kathmandu:20260303T083000\n\
                 RRULE:FREQ=DAILY\nEND:VEVENT";
    let schedule = json!({"schedule_kind": "rrule", "schedule_expr": event});

    let made = api.post("/tasks", task_with(schedule.clone())).await.expect(201);
    let preview = api.post("/schedules/preview", schedule.clone()).await.expect(200);
    let mut elsewhere = schedule;
    elsewhere["timezone"] = json!("Europe/Berlin");
    let refused = api.post("/schedules/preview", elsewhere).await.expect(422);

    assert_eq!(made.str("/timezone"), "Asia/Kathmandu");
    assert_eq!(made.str("/next_fire_at"), "2026-03-03T02:45:00Z");
    assert_eq!(preview.str("/fires/0/local"), "2026-03-03T08:30:00+05:45");
    assert_eq!(refused.pointers(), ["/schedule_expr"]);
}

#[tokio::test]
async fn every_change_has_its_record_with_who_and_by_which_request() {
    let api = TestApi::new().await;
    let mut create = request("POST", "/tasks", ADMIN_KEY, &task_with(json!({"name": "t"})));
    create.headers_mut().insert("x-request-id", "my-request".parse().unwrap());

    let made = api.send(create).await.expect(201);
    api.post("/tasks/t/pause", json!({})).await.expect(200);
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(409);

    assert_eq!(made.header("x-request-id"), "my-request");
    let path = format!("/audit?object_kind=task&object_id={}", made.str("/id"));
    let audit = api.get(&path).await.expect(200);
    let actions: Vec<_> = audit.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["task.pause", "task.create"]);
    assert_eq!(audit.body["items"][1]["request_id"], "my-request");
    assert_eq!(audit.body["items"][1]["agent"], "admin");
}

/// What is done about overlap decides no times: a snooze outlives it, and nothing is written off.
#[tokio::test]
async fn a_patch_that_leaves_the_times_alone_leaves_the_next_one_alone() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    api.post("/tasks/t/snooze", json!({"delay_seconds": 60})).await.expect(200);

    let patch = json!({"policy": {"overlap": "allow"}});
    let patched = api.call("PATCH", "/tasks/t", ADMIN_KEY, patch).await.expect(200);

    assert_eq!(patched.body["policy"]["overlap"], "allow");
    assert_eq!(patched.str("/next_fire_at"), "2026-03-02T08:31:00Z");
    assert_eq!(patched.str("/snoozed_until"), "2026-03-02T08:31:00Z");
}
