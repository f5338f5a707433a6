//! Many runs in one request: batches, and ending and retrying by a filter.

use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, TestApi, request, task, task_with};

fn ids(reply: &Reply) -> Vec<String> {
    let items = reply.body["items"].as_array().unwrap();
    items.iter().map(|item| item["run_id"].as_str().unwrap().to_owned()).collect()
}

async fn count(api: &TestApi, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&api.db.pool).await.unwrap()
}

/// Ends `count` queued runs of the task as a worker would: failed, with this kind of error.
async fn fail(api: &TestApi, task: &str, count: i64, kind: &str) {
    sqlx::query(
        "with gone as (
             delete from due_work where run_id in (
                 select run_id from due_work join task on task.id = task_id
                 where name = $1 order by run_id limit $2)
             returning *)
         insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger,
                          nominal_at, scheduled_at, started_at, finished_at, params, error)
         select run_id, agent_id, task_id, revision, 'failed', priority, 4, trigger, nominal_at,
                scheduled_at, now(), now(), params, $3 from gone",
    )
    .bind(task)
    .bind(count)
    .bind(json!({"kind": kind, "message": "it broke"}))
    .execute(&api.db.pool)
    .await
    .unwrap();
}

async fn start(api: &TestApi, task: &str, count: usize) {
    let runs = vec![json!({"task": task}); count];
    api.post("/runs/batch", json!({"runs": runs})).await.expect(202);
}

#[tokio::test]
async fn a_batch_makes_a_run_of_each_entry_in_the_order_given() {
    let api = TestApi::new().await;
    let task_id =
        api.post("/tasks", task_with(json!({"name": "t", "priority": 3}))).await.expect(201);
    let payload = task("x")["payload"].clone();

    let made = api
        .post(
            "/runs/batch",
            json!({"runs": [
                {"task": "t", "params": {"city": "Iasi"}},
                {"task": task_id.str("/id"), "priority": 1, "delay_seconds": 60},
                {"payload": payload, "run_at": "2026-03-05T08:00:00Z", "expires_after_seconds": 5},
            ]}),
        )
        .await
        .expect(202);

    let made = ids(&made);
    let first = api.get(&format!("/runs/{}", made[0])).await.expect(200);
    assert_eq!(first.body["params"], json!({"city": "Iasi"}));
    assert_eq!((&first.body["priority"], first.str("/task_id")), (&json!(3), task_id.str("/id")));
    assert_eq!(first.body["nominal_at"], Value::Null);
    let second = api.get(&format!("/runs/{}", made[1])).await.expect(200);
    assert_eq!(second.str("/scheduled_at"), "2026-03-02T08:01:00Z");
    assert_eq!(
        (&second.body["priority"], second.str("/nominal_at")),
        (&json!(1), "2026-03-02T08:01:00Z".to_owned())
    );
    let third = api.get(&format!("/runs/{}", made[2])).await.expect(200);
    assert_eq!(
        (third.str("/scheduled_at"), &third.body["task_id"]),
        ("2026-03-05T08:00:00Z".to_owned(), &Value::Null)
    );
    assert_eq!(
        count(&api, "select count(*) from audit_log where action = 'run.create_batch'").await,
        1
    );
}

#[tokio::test]
async fn one_mistake_in_a_batch_keeps_all_of_it_out_and_is_told_at_its_place() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let gone = api.post("/tasks", task_with(json!({"name": "gone"}))).await.expect(201).str("/id");
    api.post("/tasks/gone/cancel", json!({})).await.expect(200);
    let fine = json!({"task": "t"});
    let large = "x".repeat(1024 * 1024);

    for (wrong, pointer, words) in [
        (json!({"task": "t", "params": {"town": 1}}), "/runs/1/params/town", "town"),
        (json!({"task": "t", "params": {"city": large}}), "/runs/1/params", "RUN_DATA_MAX_BYTES"),
        (json!({"task": "t", "params": []}), "/runs/1/params", "object"),
        (json!({"task": "u"}), "/runs/1/task", "no task"),
        (json!({"task": "gone"}), "/runs/1/task", "no task"),
        (json!({"task": gone}), "/runs/1/task", "canceled"),
        (json!({"task": 7}), "/runs/1/task", "number 7"),
        (json!({}), "/runs/1", "either task or payload"),
        (json!({"task": "t", "payload": {"pipeline": []}}), "/runs/1", "either task or payload"),
        (json!({"payload": {"pipeline": []}}), "/runs/1/payload/pipeline", ""),
        (json!({"task": "t", "priority": 10}), "/runs/1/priority", "1 (first) to 9"),
        (json!({"task": "t", "prio": 1}), "/runs/1/prio", "no field"),
        (json!({"task": "t", "run_at": "soon"}), "/runs/1/run_at", "RFC 3339"),
        (json!({"task": "t", "run_at": "2040-01-01T00:00:00Z"}), "/runs/1/run_at", "3660 days"),
        (
            json!({"task": "t", "run_at": "2026-03-05T08:00:00Z", "delay_seconds": 1}),
            "/runs/1/delay_seconds",
            "run_at",
        ),
        (
            json!({"task": "t", "delay_seconds": 5_000_000_000_u64}),
            "/runs/1/delay_seconds",
            "3660 days",
        ),
        (json!({"task": "t", "delay_seconds": -1}), "/runs/1/delay_seconds", "0 or more"),
        (
            json!({"task": "t", "expires_after_seconds": 0}),
            "/runs/1/expires_after_seconds",
            "at least 1",
        ),
        (json!({"task": "t", "dedupe_key": "d"}), "/runs/1/dedupe_window_seconds", "dedupe_key"),
        (
            json!({"task": "t", "dedupe_key": "", "dedupe_window_seconds": 9}),
            "/runs/1/dedupe_key",
            "1 to 200",
        ),
    ] {
        let case: String = wrong.to_string().chars().take(80).collect();
        let refused = api.post("/runs/batch", json!({"runs": [fine, wrong]})).await.expect(422);
        assert_eq!(refused.pointers(), [pointer], "{case}: {}", refused.text);
        assert!(refused.text.contains(words), "{case}: {}", refused.text);
    }
    for (runs, pointer) in
        [(json!([]), "/runs"), (json!(vec![fine; 1001]), "/runs"), (json!(null), "/runs")]
    {
        let refused = api.post("/runs/batch", json!({"runs": runs})).await.expect(422);
        assert_eq!(refused.pointers(), [pointer]);
    }
    assert_eq!(count(&api, "select count(*) from due_work").await, 0);
}

#[tokio::test]
async fn dedupe_keys_hold_inside_a_batch_and_between_batches() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let one = |key: &str| json!({"task": "t", "dedupe_key": key, "dedupe_window_seconds": 60});

    let first =
        api.post("/runs/batch", json!({"runs": [one("b"), one("a"), one("b")]})).await.expect(202);
    let second = api.post("/runs/batch", json!({"runs": [one("c"), one("a")]})).await.expect(202);

    let (first, items) = (ids(&first), first.body["items"].clone());
    let flags: Vec<_> = (0..3).map(|n| items[n]["deduplicated"].as_bool().unwrap()).collect();
    assert_eq!(flags, [false, false, true]);
    assert_eq!(first[2], first[0]);
    assert_eq!(second.body["items"][1], json!({"run_id": first[1], "deduplicated": true}));
    assert_eq!(count(&api, "select count(*) from due_work").await, 3);
}

#[tokio::test]
async fn a_batch_of_a_thousand_is_made_once_when_it_is_sent_twice() {
    let api = TestApi::new().await;
    let fields = json!({"name": "t", "concurrency_key": "door", "concurrency_limit": 2});
    api.post("/tasks", task_with(fields)).await.expect(201);
    let send = || {
        let runs = vec![json!({"task": "t"}); 1000];
        let mut request = request("POST", "/runs/batch", ADMIN_KEY, &json!({"runs": runs}));
        request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        api.send(request)
    };

    let first = send().await.expect(202);
    let second = send().await.expect(202);

    assert_eq!(ids(&first), ids(&second));
    assert_eq!(second.header("idempotency-replayed"), "true");
    assert_eq!(count(&api, "select count(*) from due_work").await, 1000);
    assert_eq!(
        count(&api, "select count(*) from due_work where held is null").await,
        2,
        "let in at once"
    );
}

#[tokio::test]
async fn an_agent_starts_ends_and_retries_its_own_runs_alone() {
    let api = TestApi::new().await;
    let scopes = ["tasks:read", "tasks:write", "runs:read", "runs:write"];
    let key = api.agent("other", &scopes).await;
    let reader = api.agent("reader", &["runs:read"]).await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    api.call("POST", "/tasks", &key, task_with(json!({"name": "own"}))).await.expect(201);
    start(&api, "t", 3).await;
    let own = json!({"runs": [{"task": "own"}, {"task": "own"}]});
    api.call("POST", "/runs/batch", &key, own).await.expect(202);

    let foreign = api.call("POST", "/runs/batch", &key, json!({"runs": [{"task": "t"}]})).await;
    let canceled = api.call("POST", "/runs/cancel", &key, json!({"all": true})).await.expect(200);
    let by_task = json!({"task_id": "t"});
    let none = api.call("POST", "/runs/cancel", &key, by_task).await.expect(200);
    let retried = json!({"status": "canceled"});
    let retried = api.call("POST", "/runs/retry", &key, retried).await.expect(202);

    assert_eq!(foreign.expect(422).pointers(), ["/runs/0/task"]);
    assert_eq!((&canceled.body["matched"], &canceled.body["done"]), (&json!(2), &json!(2)));
    assert_eq!(none.body["matched"], 0);
    assert_eq!(retried.body["done"], 2);
    assert_eq!(count(&api, "select count(*) from due_work").await, 5);
    for route in ["/runs/batch", "/runs/cancel", "/runs/retry"] {
        api.call("POST", route, &reader, json!({})).await.expect(403);
    }
}

#[tokio::test]
async fn runs_that_match_are_ended_a_thousand_at_a_time_until_none_is_left() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    api.post("/tasks", task_with(json!({"name": "u"}))).await.expect(201);
    start(&api, "t", 1000).await;
    start(&api, "t", 30).await;
    start(&api, "u", 5).await;

    let filter = |more: Value| {
        let mut filter = json!({"task_id": "t", "status": "queued"});
        filter.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        filter
    };
    let counted = api.post("/runs/cancel", filter(json!({"dry_run": true}))).await.expect(200);
    let first = api.post("/runs/cancel", filter(json!({}))).await.expect(200);
    let second = api
        .post("/runs/cancel", filter(json!({"cursor": first.body["next_cursor"]})))
        .await
        .expect(200);

    assert_eq!((&counted.body["matched"], &counted.body["dry_run"]), (&json!(1030), &json!(true)));
    assert_eq!((&first.body["done"], &first.body["more"]), (&json!(1000), &json!(true)));
    assert_eq!(first.body["run_ids"].as_array().unwrap().len(), 100);
    assert_eq!((&second.body["done"], &second.body["more"]), (&json!(30), &json!(false)));
    assert_eq!(second.body["next_cursor"], Value::Null);
    assert_eq!(count(&api, "select count(*) from due_work").await, 5);
    assert_eq!(count(&api, "select count(*) from run where status = 'canceled'").await, 1030);
    assert_eq!(
        count(&api, "select count(*) from audit_log where action = 'run.cancel_many'").await,
        2
    );
}

#[tokio::test]
async fn failed_runs_are_retried_by_task_and_kind_of_error() {
    let api = TestApi::new().await;
    let fields = json!({"name": "t", "concurrency_key": "door", "concurrency_limit": 1});
    api.post("/tasks", task_with(fields)).await.expect(201);
    api.post("/tasks", task_with(json!({"name": "u"}))).await.expect(201);
    start(&api, "t", 4).await;
    start(&api, "u", 2).await;
    fail(&api, "t", 3, "timeout").await;
    fail(&api, "t", 1, "refused").await;
    fail(&api, "u", 2, "timeout").await;

    let timeouts = json!({"task_id": "t", "error_kind": "timeout"});
    let listed = api.get("/runs?task_id=t&error_kind=timeout").await.expect(200);
    let retried = api.post("/runs/retry", timeouts.clone()).await.expect(202);
    let again = api.post("/runs/retry", timeouts).await.expect(202);

    assert_eq!(listed.body["items"].as_array().unwrap().len(), 3);
    assert_eq!((&retried.body["matched"], &retried.body["done"]), (&json!(3), &json!(3)));
    assert_eq!(again.body["matched"], 0);
    assert_eq!(count(&api, "select count(*) from due_work where attempt = 0").await, 3);
    assert_eq!(
        count(&api, "select count(*) from due_work where held is null").await,
        1,
        "one is let in"
    );
    assert_eq!(count(&api, "select count(*) from run where status = 'failed'").await, 3);
}

#[tokio::test]
async fn a_filter_that_is_empty_or_wrong_ends_and_retries_nothing() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    start(&api, "t", 2).await;

    for (route, body, pointer) in [
        ("/runs/cancel", json!({}), ""),
        ("/runs/cancel", json!({"limit": 5}), ""),
        ("/runs/cancel", json!({"all": false}), ""),
        ("/runs/cancel", json!({"all": true, "limit": 0}), "/limit"),
        ("/runs/cancel", json!({"all": true, "limit": 1001}), "/limit"),
        ("/runs/cancel", json!({"status": "failed"}), "/status"),
        ("/runs/cancel", json!({"status": "gone"}), "/status"),
        ("/runs/cancel", json!({"trigger": "x"}), "/trigger"),
        ("/runs/cancel", json!({"error_kind": "timeout"}), "/error_kind"),
        ("/runs/cancel", json!({"from": "yesterday"}), "/from"),
        ("/runs/cancel", json!({"all": true, "cursor": "x"}), "/cursor"),
        ("/runs/retry", json!({}), ""),
        ("/runs/retry", json!({"status": "succeeded"}), "/status"),
        ("/runs/retry", json!({"status": "queued"}), "/status"),
        ("/runs/retry", json!({"all": true, "dry": true}), "/dry"),
    ] {
        let refused = api.post(route, body.clone()).await.expect(422);
        assert_eq!(refused.pointers(), [pointer], "{route} {body}: {}", refused.text);
    }
    assert_eq!(count(&api, "select count(*) from due_work").await, 2);
    let all = api.post("/runs/cancel", json!({"all": true, "limit": 1})).await.expect(200);
    assert_eq!((&all.body["done"], &all.body["more"]), (&json!(1), &json!(true)));
}

/// Runs are made on time, long before their time and long after it; weeks have partitions, or none.
#[tokio::test]
async fn a_list_by_time_finds_runs_whenever_they_were_made() {
    let api = TestApi::new().await;
    sqlx::query("select ensure_run_partitions('2026-03-02', '2026-03-20')")
        .execute(&api.db.pool)
        .await
        .unwrap();
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let ahead = json!({"runs": [{"task": "t", "run_at": "2026-03-10T08:00:00Z"}]});
    let ahead = ids(&api.post("/runs/batch", ahead).await.expect(202));
    api.clock.advance(chrono::TimeDelta::days(8));
    let on_time = api.post("/tasks/t/run_now", json!({})).await.expect(202).str("/run_id");
    api.clock.advance(chrono::TimeDelta::days(30));
    let late = api.post("/tasks/t/run_now", json!({})).await.expect(202).str("/run_id");
    sqlx::query(
        "update due_work set scheduled_at = '2026-03-10T08:30:00Z' where run_id = $1::text::uuid",
    )
    .bind(&late)
    .execute(&api.db.pool)
    .await
    .unwrap();

    let expected = [late.as_str(), on_time.as_str(), ahead[0].as_str()];
    for place in ["queued", "failed"] {
        let hour = "/runs?from=2026-03-10T08:00:00Z&to=2026-03-10T09:00:00Z";
        let found = api.get(hour).await.expect(200);
        let items = found.body["items"].as_array().unwrap();
        let found: Vec<_> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{place}");
        let page = api.get(&format!("{hour}&limit=2&task_id=t&status={place}")).await.expect(200);
        let cursor = page.str("/next_cursor");
        assert_eq!(cursor, on_time, "{place}");
        let rest = api.get(&format!("{hour}&cursor={cursor}")).await.expect(200);
        assert_eq!(rest.str("/items/0/id"), ahead[0], "{place}");
        let before = api.get("/runs?to=2026-03-10T08:00:00Z").await.expect(200);
        assert_eq!(before.body["items"], json!([]), "{place}");
        let after = api.get("/runs?from=2026-03-10T08:30:00Z").await.expect(200);
        assert_eq!(after.body["items"].as_array().unwrap().len(), 1, "{place}");
        fail(&api, "t", 3, "timeout").await;
    }
}

/// Nobody follows more than 500 changes a second; that there were more is told.
#[tokio::test]
async fn of_a_large_batch_a_part_is_told_one_by_one_and_the_number_of_the_others() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);

    start(&api, "t", 1_000).await;

    let client = redis::Client::open(api.db.redis_url.as_str()).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    let (mut one_by_one, mut others, mut after) = (0, 0, "0".to_owned());
    while one_by_one + others < 1_000 {
        let told: redis::streams::StreamReadReply = redis::cmd("XREAD")
            .arg("BLOCK")
            .arg(10_000)
            .arg("STREAMS")
            .arg(orchestrator_engine::streams::LIFECYCLE)
            .arg(&after)
            .query_async(&mut connection)
            .await
            .unwrap();
        let entries: Vec<_> = told.keys.into_iter().flat_map(|key| key.ids).collect();
        assert!(!entries.is_empty(), "{one_by_one} were told one by one, {others} as a number");
        for entry in entries {
            match entry.get::<String>("kind").unwrap().as_str() {
                "run.queued" => one_by_one += 1,
                "runs.changed" => others += entry.get::<u64>("count").unwrap(),
                _ => {}
            }
            after = entry.id;
        }
    }
    assert_eq!((one_by_one, others), (500, 500));
    let hints: usize = redis::cmd("XLEN")
        .arg(orchestrator_engine::streams::WORK)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(hints, 1);
}
