//! Runs as callers see them, and what else there is to see.

use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, TestApi, task, task_with};

/// Ends the queued run as a worker would: with two steps done and the third failed.
async fn fail(api: &TestApi, run: &str) {
    let id: uuid::Uuid = run.parse().unwrap();
    let mut tx = api.db.pool.begin().await.unwrap();
    sqlx::query(
        "with gone as (delete from due_work where run_id = $1 returning *)
         insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                          scheduled_at, started_at, finished_at, params, definition, error)
         select run_id, agent_id, task_id, revision, 'failed', priority, 4, trigger, scheduled_at,
                now(), now(), params, definition, $2 from gone",
    )
    .bind(id)
    .bind(json!({"kind": "tool_failed", "message": "it broke", "step": "c"}))
    .execute(&mut *tx)
    .await
    .unwrap();
    for (n, (step, status)) in
        [("a", "succeeded"), ("b", "succeeded"), ("c", "failed")].into_iter().enumerate()
    {
        sqlx::query(
            "insert into run_step (run_id, path, attempt, id, uses, status, started_at, finished_at,
                                   input, output)
             values ($1, $2, 1, $2, 'log.write', $3, now() + make_interval(secs => $4), now(),
                     '{}', '\"said\"')",
        )
        .bind(id)
        .bind(step)
        .bind(status)
        .bind(f64::from(u8::try_from(n).unwrap()))
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
}

fn steps(body: &Value) -> Vec<(&str, &str)> {
    let steps = body["steps"].as_array().unwrap();
    steps.iter().map(|s| (s["path"].as_str().unwrap(), s["status"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_payload_without_a_task_is_queued_and_shown() {
    let api = TestApi::new().await;
    let payload = task("x")["payload"].clone();

    let queued = api
        .post("/runs", json!({"payload": payload, "params": {"city": "Iasi"}, "priority": 1}))
        .await
        .expect(202);
    let run = queued.str("/run_id");
    let shown = api.get(&format!("/runs/{run}")).await.expect(200);

    assert_eq!(queued.body["deduplicated"], false);
    assert_eq!(queued.header("location"), format!("/runs/{run}"));
    assert_eq!((shown.str("/status"), shown.str("/trigger")), ("queued".into(), "run_now".into()));
    assert_eq!(shown.body["params"], json!({"city": "Iasi"}));
    assert_eq!((&shown.body["priority"], &shown.body["steps"]), (&json!(1), &json!([])));
    assert_eq!(shown.body["payload"]["pipeline"][0]["id"], "hello");
    let unknown = json!({"payload": payload, "params": {"town": "Iasi"}});
    assert_eq!(api.post("/runs", unknown).await.expect(422).pointers(), ["/params/town"]);
}

/// Many ask at once, some of them for what is not to be had.
#[tokio::test]
async fn runs_asked_for_at_once_are_each_answered_by_themselves() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let keyed = task_with(json!({"name": "keyed", "concurrency_key": "k"}));
    api.post("/tasks", keyed).await.expect(201);
    let gone = api.post("/tasks", task_with(json!({"name": "gone"}))).await.expect(201).str("/id");
    api.post("/tasks/gone/cancel", json!({})).await.expect(200);
    let once = json!({"name": "once", "dedupe_key": "d", "dedupe_window_seconds": 60});
    api.post("/tasks", task_with(once)).await.expect(201);
    let run = |task: &str, params: Value| {
        let (api, path) = (&api, format!("/tasks/{task}/run_now"));
        async move { api.post(&path, json!({"params": params})).await }
    };

    let (first, second, wrong, unknown, canceled, keyed, once, again) = tokio::join!(
        run("t", json!({"city": "Iasi"})),
        run("t", json!({"city": "Cluj"})),
        run("t", json!({"town": "Iasi"})),
        run("nothing", json!({})),
        run(&gone, json!({})),
        run("keyed", json!({})),
        run("once", json!({})),
        run("once", json!({})),
    );

    assert_eq!(wrong.expect(422).pointers(), ["/params/town"]);
    unknown.expect(404);
    canceled.expect(409);
    for (reply, city) in [(first.expect(202), "Iasi"), (second.expect(202), "Cluj")] {
        let run = reply.str("/run_id");
        assert_eq!(reply.header("location"), format!("/runs/{run}"));
        assert_eq!(api.get(&format!("/runs/{run}")).await.expect(200).str("/params/city"), city);
    }
    let let_in = api.get(&format!("/runs/{}", keyed.expect(202).str("/run_id"))).await.expect(200);
    assert_eq!(let_in.body["waits_for"], Value::Null);
    let (once, again) = (once.expect(202), again.expect(202));
    assert_eq!(once.str("/run_id"), again.str("/run_id"));
    assert_eq!(api.get("/runs").await.body["items"].as_array().unwrap().len(), 4);
    let audit = api.get("/audit?action=task.run_now").await.expect(200);
    assert_eq!(audit.body["items"].as_array().unwrap().len(), 5, "{}", audit.text);
}

/// Whoever starts a run remembers the task from the time before.
#[tokio::test]
async fn a_run_is_of_the_task_as_it_is_now() {
    let api = TestApi::new().await;
    let run = async |name: &str, params: Value| {
        api.post(&format!("/tasks/{name}/run_now"), json!({"params": params})).await
    };
    let id = api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201).str("/id");
    run("t", json!({"city": "Iasi"})).await.expect(202);

    let town = json!({"payload": {
        "params": {"city": null, "town": "Iasi"},
        "pipeline": [{"id": "hello", "uses": "log.write", "with": {"message": "${params.town}"}}],
    }, "priority": 2});
    api.call("PATCH", "/tasks/t", ADMIN_KEY, town).await.expect(200);
    let revised = run("t", json!({"town": "Cluj"})).await.expect(202).str("/run_id");
    let shown = api.get(&format!("/runs/{revised}")).await.expect(200);
    assert_eq!((&shown.body["revision"], &shown.body["priority"]), (&json!(2), &json!(2)));
    assert_eq!(run("t", json!({"city": "Iasi"})).await.expect(422).pointers(), ["/params/city"]);

    api.call("PATCH", "/tasks/t", ADMIN_KEY, json!({"name": "u"})).await.expect(200);
    run("t", json!({})).await.expect(404);
    run("u", json!({})).await.expect(202);
    let other = api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201).str("/id");
    let of_other = run("t", json!({"city": "Iasi"})).await.expect(202).str("/run_id");
    assert_eq!(api.get(&format!("/runs/{of_other}")).await.expect(200).str("/task_id"), other);

    run(&id, json!({})).await.expect(202);
    api.post("/tasks/u/cancel", json!({})).await.expect(200);
    run(&id, json!({})).await.expect(409);
    run("u", json!({})).await.expect(404);
    let audit = api.get("/audit?action=task.run_now").await.expect(200);
    assert_eq!(audit.body["items"].as_array().unwrap().len(), 5, "{}", audit.text);
}

/// Workers look for what became due a moment ago.
#[tokio::test]
async fn a_run_that_had_to_wait_for_a_change_of_its_task_is_due_from_then_on() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    api.post("/tasks/t/run_now", json!({})).await.expect(202); // from now on one statement is enough
    let mut change = api.db.pool.begin().await.unwrap();
    sqlx::query("select from task for update").execute(&mut *change).await.unwrap();

    let changed = async {
        let waiting = "select exists (select from pg_stat_activity
                                      where datname = current_database() and wait_event_type = 'Lock')";
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&api.db.pool).await.unwrap() {}
        let now: chrono::DateTime<chrono::Utc> =
            sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *change).await.unwrap();
        change.commit().await.unwrap();
        now
    };
    let (changed, run) = tokio::join!(changed, api.post("/tasks/t/run_now", json!({})));

    let run: uuid::Uuid = run.expect(202).str("/run_id").parse().unwrap();
    let due: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select run_at from due_work where run_id = $1")
            .bind(run)
            .fetch_one(&api.db.pool)
            .await
            .unwrap();
    assert!(due >= changed, "{due} {changed}");
}

#[tokio::test]
async fn a_second_run_inside_the_dedupe_window_is_the_first() {
    let api = TestApi::new().await;
    let fields = json!({"name": "t", "dedupe_key": "d", "dedupe_window_seconds": 60});
    api.post("/tasks", task_with(fields)).await.expect(201);

    let first = api.post("/tasks/t/run_now", json!({})).await.expect(202);
    let second = api.post("/tasks/t/run_now", json!({})).await.expect(202);

    assert_eq!(second.body, json!({"run_id": first.str("/run_id"), "deduplicated": true}));
    assert_eq!(api.get("/runs").await.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn runs_are_listed_by_task_status_trigger_and_time() {
    let api = TestApi::new().await;
    let id = api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201).str("/id");
    let first = api.post("/tasks/t/run_now", json!({})).await.expect(202).str("/run_id");
    api.clock.advance(chrono::TimeDelta::hours(1));
    let payload = task("x")["payload"].clone();
    let second = api.post("/runs", json!({"payload": payload})).await.expect(202).str("/run_id");
    fail(&api, &first).await;

    for (query, expected) in [
        ("", vec![&second, &first]),
        ("task_id=t", vec![&first]),
        (&format!("task_id={id}"), vec![&first]),
        ("task_id=other", vec![]),
        ("status=queued", vec![&second]),
        ("status=failed", vec![&first]),
        ("status=waiting", vec![]),
        ("trigger=run_now", vec![&second, &first]),
        ("trigger=schedule", vec![]),
        ("from=2026-03-02T08:30:00Z", vec![&second]),
        ("to=2026-03-02T10:30:00%2B02:00", vec![&first]),
        ("limit=1", vec![&second]),
        (&format!("cursor={second}"), vec![&first]),
    ] {
        let page = api.get(&format!("/runs?{query}")).await.expect(200);
        let ids: Vec<_> =
            page.body["items"].as_array().unwrap().iter().map(|r| r["id"].clone()).collect();
        assert_eq!(json!(ids), json!(expected), "{query}");
    }
}

#[tokio::test]
async fn a_leased_run_is_running_until_its_lease_is_over() {
    let api = TestApi::new().await;
    let payload = task("x")["payload"].clone();
    let run = api.post("/runs", json!({"payload": payload})).await.expect(202).str("/run_id");
    let lease = "insert into lease (token, worker, until, made_at, run_ids)
                 select 1, run_id, now() + make_interval(secs => $1), now(), array[run_id] from due_work
                 on conflict (token) do update set until = excluded.until";

    sqlx::query(lease).bind(60.0).execute(&api.db.pool).await.unwrap();
    assert_eq!(api.get(&format!("/runs/{run}")).await.str("/status"), "running");
    let asked = api.post(&format!("/runs/{run}/cancel"), json!({})).await.expect(202);
    assert!(!asked.str("/cancel_requested_at").is_empty());
    api.post(&format!("/runs/{run}/retry"), json!({})).await.expect(409);

    sqlx::query(lease).bind(-1.0).execute(&api.db.pool).await.unwrap();
    assert_eq!(api.get(&format!("/runs/{run}")).await.str("/status"), "queued");
    let ended = api.post(&format!("/runs/{run}/cancel"), json!({})).await.expect(200);
    assert_eq!(ended.str("/status"), "canceled");
    api.post(&format!("/runs/{run}/cancel"), json!({})).await.expect(200);
}

#[tokio::test]
async fn a_failed_run_goes_on_behind_what_succeeded() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let run = api.post("/tasks/t/run_now", json!({})).await.expect(202).str("/run_id");
    fail(&api, &run).await;
    let path = format!("/runs/{run}");
    assert_eq!(api.get(&path).await.str("/error/message"), "it broke");
    api.post(&format!("{path}/cancel"), json!({})).await.expect(409);

    let retried = api.post(&format!("{path}/retry"), json!({})).await.expect(202);

    assert_eq!((retried.str("/status"), &retried.body["attempt"]), ("queued".into(), &json!(0)));
    let kept = [("a", "succeeded"), ("b", "succeeded"), ("c", "failed")];
    assert_eq!(steps(&retried.body), kept);
    assert_eq!(api.get("/admin/invariants").await.body["holds"], true);
}

#[tokio::test]
async fn a_retry_from_a_step_sets_it_and_all_behind_it_aside_and_forgets_nothing() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let run = api.post("/tasks/t/run_now", json!({})).await.expect(202).str("/run_id");
    fail(&api, &run).await;
    let path = format!("/runs/{run}/retry");

    let never = api.post(&path, json!({"from_step": "zzz"})).await.expect(409);
    assert!(never.text.contains("never reached"), "{}", never.text);
    let retried = api.post(&path, json!({"from_step": "b"})).await.expect(202);

    let set_aside = [("a", "succeeded"), ("b", "canceled"), ("c", "failed")];
    assert_eq!(steps(&retried.body), set_aside);
    assert_eq!(retried.body["steps"][1]["output"], "said");
    assert!(retried.str("/steps/1/error/message").contains("retried from step"));
}

#[tokio::test]
async fn an_event_is_kept_once_per_key() {
    let api = TestApi::new().await;
    let event = json!({"topic": "mail.arrived", "payload": {"from": "ann"}, "key": "m1"});

    let first = api.post("/events", event.clone()).await.expect(202);
    let second = api.post("/events", event).await.expect(202);
    let shown = api.get(&format!("/events/{}", first.str("/event_id"))).await.expect(200);
    let listed = api.get("/events?topic=mail.arrived").await.expect(200);

    assert_eq!(first.body["deduplicated"], false);
    assert_eq!(second.body, json!({"event_id": first.str("/event_id"), "deduplicated": true}));
    assert_eq!(
        (&shown.body["payload"], &shown.body["runs"]),
        (&json!({"from": "ann"}), &json!([]))
    );
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/events?topic=other").await.body["items"], json!([]));
}

#[tokio::test]
async fn a_payload_is_checked_without_making_anything() {
    let api = TestApi::new().await;
    let fine = task("x")["payload"].clone();

    let valid = api.post("/pipelines/validate", fine).await.expect(200);
    let wrong = json!({"pipeline": [{"id": "a", "uses": "log.wirte"}]});
    let invalid = api.post("/pipelines/validate", wrong).await.expect(200);

    assert_eq!((&valid.body["valid"], &valid.body["problems"]), (&json!(true), &json!([])));
    assert_eq!(valid.body["pipeline"]["pipeline"][0]["uses"], "log.write");
    assert_eq!(invalid.body["valid"], false);
    assert_eq!(invalid.body["problems"][0]["pointer"], "/pipeline/0/uses");
}

#[tokio::test]
async fn a_schedule_is_shown_before_it_is_used() {
    let api = TestApi::new().await;
    let schedule = json!({
        "schedule_kind": "rrule", "schedule_expr": "FREQ=DAILY;BYHOUR=2;BYMINUTE=30",
        "timezone": "Europe/Berlin", "from": "2026-03-28T12:00:00Z", "count": 2,
    });

    let preview = api.post("/schedules/preview", schedule).await.expect(200);

    assert_eq!(preview.str("/fires/0/at"), "2026-03-29T01:30:00Z");
    assert_eq!(preview.str("/fires/0/local"), "2026-03-29T03:30:00+02:00");
    assert!(preview.str("/fires/0/note").contains("02:30"), "{}", preview.text);
    assert_eq!(preview.body["fires"].as_array().unwrap().len(), 2);
    assert_eq!(preview.body["exhausted"], false);
}

#[tokio::test]
async fn the_screens_of_the_server_have_what_they_promise() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    api.post("/tasks/t/run_now", json!({})).await.expect(202);

    let stats = api.get("/stats").await.expect(200);
    let tools = api.get("/tools").await.expect(200);
    let health = api.get("/health").await;
    let metrics = api.get("/metrics").await.expect(200);
    let openapi = api.get("/openapi.json").await.expect(200);

    assert_eq!(
        (&stats.body["tasks"]["active"], &stats.body["runs"]["queued"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(tools.str("/items/0/address"), "http.request");
    assert_eq!(tools.str("/items/0/scope"), "tool:http");
    for check in ["database", "redis", "scheduler", "workers"] {
        assert!(health.body["checks"][check].is_object(), "{check}: {}", health.text);
    }
    let counted = "orchestrator_http_requests_total{method=\"POST\",route=\"/tasks/{id}/run_now\",\
                   status=\"2xx\"} 1";
    assert!(metrics.text.contains(counted), "{}", metrics.text);
    assert!(!metrics.text.contains("/tasks/t/"), "labels are templates");
    for path in ["/tasks", "/tasks/{id}", "/tasks/{id}/snooze", "/runs/{id}/retry", "/auth/token"] {
        assert!(openapi.body["paths"][path].is_object(), "{path}");
    }
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in openapi.body["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{method} {path}: {name} is there twice");
        }
    }
    let of_task = &openapi.body["components"]["schemas"]["TaskFields"]["properties"];
    assert!(of_task["schedule_kind"].is_object(), "{of_task}");
    api.call("GET", "/admin/invariants", ADMIN_KEY, Value::Null).await.expect(200);
}
