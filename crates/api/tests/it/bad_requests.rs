//! A table of what callers get wrong: each row is one mistake, the status and the place it is told at.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, TestApi, request, send_to, task_with};

/// Every refusal has the form of RFC 9457 and names its request.
#[track_caller]
fn is_problem(reply: &Reply, status: u16, case: &str) {
    assert_eq!(reply.status.as_u16(), status, "{case}: {}", reply.text);
    assert_eq!(reply.header("content-type"), "application/problem+json", "{case}");
    assert_eq!(reply.body["status"], status, "{case}");
    assert!(reply.str("/type").starts_with("/problems/"), "{case}: {}", reply.text);
    assert_eq!(reply.str("/request_id"), reply.header("x-request-id"), "{case}");
    assert!(!reply.str("/instance").is_empty() && !reply.str("/title").is_empty(), "{case}");
}

/// Field, value, place, and words that the sentence must have.
fn mistakes() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let step = |step: Value| json!({"pipeline": [step]});
    let log =
        |message: &str| step(json!({"id": "a", "uses": "log.write", "with": {"message": message}}));
    vec![
        ("titel", json!("x"), "/titel", "Did you mean \"title\""),
        ("title", Value::Null, "/title", "must be"),
        ("title", json!(""), "/title", "1 to 300"),
        ("title", json!("x".repeat(301)), "/title", "300"),
        ("title", json!(7), "/title", "number 7"),
        ("name", json!("Not A Slug"), "/name", "lower-case"),
        ("name", json!(""), "/name", "1 to 100"),
        ("name", json!("0190b0a0-0000-7000-8000-000000000000"), "/name", "look like an id"),
        ("description", json!("x".repeat(10_001)), "/description", "10000"),
        ("schedule_kind", json!("crom"), "/schedule_kind", "Did you mean \"cron\""),
        ("schedule_kind", json!(null), "/schedule_kind", "must be"),
        ("schedule_expr", json!("61 * * * *"), "/schedule_expr", "61"),
        ("schedule_expr", json!("* * *"), "/schedule_expr", ""),
        ("schedule_expr", json!(""), "/schedule_expr", ""),
        ("schedule_expr", json!(["30 8 * * *"]), "/schedule_expr", "list"),
        ("schedule_expr", json!("x".repeat(4_097)), "/schedule_expr", "4096"),
        ("schedule_expr", json!("0 0 30 2 *"), "/schedule_expr", "never"),
        ("timezone", json!("Europe/Chisinao"), "/timezone", "Europe/Chisinau"),
        ("timezone", json!("Mars/Olympus"), "/timezone", ""),
        ("starts_at", json!("tomorrow"), "/starts_at", "RFC 3339"),
        ("ends_at", json!("2020-01-01T00:00:00Z"), "/ends_at", "does not fire"),
        ("max_fires", json!(0), "/max_fires", "at least 1"),
        ("max_fires", json!(-1), "/max_fires", "at least 1"),
        ("exclude", json!("2026-12-25"), "/exclude", "list"),
        ("exclude", json!(["25.12.2026"]), "/exclude/0", ""),
        ("exclude", json!(["2026-12-25", "2026-12-26/2026-12-24"]), "/exclude/1", ""),
        ("policy", json!({"overlap": "skipp"}), "/policy/overlap", "Did you mean \"skip\""),
        ("policy", json!({"overlaps": "skip"}), "/policy/overlaps", "Did you mean \"overlap\""),
        ("policy", json!({"jitter_seconds": 90_000}), "/policy/jitter_seconds", "86400"),
        ("policy", json!({"catch_up": true}), "/policy/catch_up", ""),
        ("policy", json!("skip"), "/policy", "object"),
        ("priority", json!(0), "/priority", "1 (first) to 9"),
        ("priority", json!(10), "/priority", "1 (first) to 9"),
        ("priority", json!("high"), "/priority", "whole number"),
        ("priority", json!(1.5), "/priority", "whole number"),
        ("max_retries", json!(-1), "/max_retries", "0 to 100"),
        ("max_retries", json!(101), "/max_retries", "0 to 100"),
        ("backoff_strategy", json!("expo"), "/backoff_strategy", "exponential"),
        ("timeout_seconds", json!(0), "/timeout_seconds", "1 to"),
        ("timeout_seconds", json!(9_999_999), "/timeout_seconds", "604800"),
        ("expires_after_seconds", json!(0), "/expires_after_seconds", "at least 1"),
        ("concurrency_key", json!("${params.city}"), "/concurrency_key", "expressions"),
        ("concurrency_limit", json!(0), "/concurrency_limit", "1 to 10000"),
        ("created_by", json!("nobody"), "/created_by", "no agent"),
        ("created_by", json!(5), "/created_by", "name or id"),
        ("id", json!("x"), "/id", "set by the server"),
        ("status", json!("paused"), "/status", "set by the server"),
        ("next_fire_at", json!(null), "/next_fire_at", "set by the server"),
        ("payload", json!([]), "/payload", ""),
        ("payload", json!({}), "/payload/pipeline", ""),
        ("payload", json!({"pipeline": []}), "/payload/pipeline", ""),
        ("payload", json!({"pipeline": "x"}), "/payload/pipeline", ""),
        (
            "payload",
            json!({"pipeline": task_with(json!({}))["payload"]["pipeline"], "parms": {}}),
            "/payload/parms",
            "params",
        ),
        (
            "payload",
            step(json!({"id": "a", "uses": "log.wirte"})),
            "/payload/pipeline/0/uses",
            "log.write",
        ),
        (
            "payload",
            step(json!({"id": "a", "uses": "rocket.launch"})),
            "/payload/pipeline/0/uses",
            "",
        ),
        ("payload", step(json!({"id": "a"})), "/payload/pipeline/0", ""),
        ("payload", step(json!(1)), "/payload/pipeline/0", ""),
        ("payload", log("${ params.city + }"), "/payload/pipeline/0/with/message", ""),
        ("payload", log("${ params.town }"), "/payload/pipeline/0/with/message", "town"),
        ("payload", log("${ steps.b }"), "/payload/pipeline/0/with/message", ""),
        ("payload", log("${ 'x' | uper }"), "/payload/pipeline/0/with/message", "upper"),
        (
            "payload",
            step(json!({"id": "a", "uses": "log.write", "with": {"message": 5}})),
            "/payload/pipeline/0/with/message",
            "",
        ),
        (
            "payload",
            step(json!({"id": "a", "uses": "log.write", "with": {}})),
            "/payload/pipeline/0/with",
            "message",
        ),
        (
            "payload",
            step(json!({"id": "a", "uses": "log.write", "with": {"message": "x"}, "iff": "true"})),
            "/payload/pipeline/0/iff",
            "",
        ),
        ("title", json!("a\u{0}b"), "/title", "U+0000"),
    ]
}

/// The same of numbers that their types cannot hold: the limit of the field is told nevertheless.
fn far_too_large() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    vec![
        ("max_fires", json!(1_000_000_000_000_u64), "/max_fires", "4294967295 or less"),
        ("max_retries", json!(1_000_000_000), "/max_retries", "0 to 100"),
        ("timeout_seconds", json!(9_999_999_999_u64), "/timeout_seconds", "604800"),
        ("timeout_seconds", json!(1e30), "/timeout_seconds", "604800"),
        ("policy", json!({"jitter_seconds": 9_000_000_000_u64}), "/policy/jitter_seconds", "86400"),
    ]
}

#[tokio::test]
async fn every_mistake_in_a_task_is_told_at_its_place() {
    let cases: Vec<_> = mistakes().into_iter().chain(far_too_large()).collect();
    assert!(cases.len() >= 60, "the table has {} rows", cases.len());
    let api = TestApi::new().await;
    let mut missed = Vec::new();

    for (field, value, pointer, words) in cases {
        let shown: String = value.to_string().chars().take(80).collect();
        let case = format!("{field} = {shown}");
        let reply = api.post("/tasks", task_with(json!({field: value}))).await;

        is_problem(&reply, 422, &case);
        let errors = reply.body["errors"].as_array().unwrap();
        let told = errors.iter().any(|error| {
            error["pointer"].as_str().is_some_and(|at| at.starts_with(pointer))
                && error["message"].as_str().is_some_and(|message| message.contains(words))
        });
        if !told || errors.len() != 1 {
            missed.push(format!("{case}: not once {words:?} at {pointer}: {errors:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    let tasks = api.get("/tasks").await.expect(200);
    assert_eq!(tasks.body["items"], json!([]), "nothing was made of them");
}

#[tokio::test]
async fn all_mistakes_of_a_task_are_told_at_once() {
    let api = TestApi::new().await;
    let wrong = task_with(json!({
        "titel": "x", "priority": 99, "timezone": "Europe/Berln", "exclude": ["x"],
        "payload": {"pipeline": [{"id": "a", "uses": "log.wirte"}, {"id": "b", "uses": "http.requst"}]},
    }));

    let reply = api.post("/tasks", wrong).await.expect(422);

    let expected = [
        "/exclude/0",
        "/payload/pipeline/0/uses",
        "/payload/pipeline/1/uses",
        "/priority",
        "/timezone",
        "/titel",
    ];
    assert_eq!(reply.pointers(), expected, "{}", reply.text);
}

/// Method, path, content type, body, status.
#[tokio::test]
async fn requests_that_cannot_be_read_are_refused_with_the_right_status() {
    let api = TestApi::new().await;
    let json = "application/json";
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let deep_in =
        format!("{{\"payload\": {}{}}}", "{\"a\":".repeat(500), "1".to_owned() + &"}".repeat(500));
    let huge = format!("{{\"title\": \"{}\"}}", "x".repeat(1024 * 1024));
    let utf8 = b"{\"title\": \"\xff\"}".to_vec();
    let cases: Vec<(&str, &str, &str, Vec<u8>, u16)> = vec![
        ("POST", "/tasks", json, b"{".to_vec(), 400),
        ("POST", "/tasks", json, b"{\"a\": 1,}".to_vec(), 400),
        ("POST", "/tasks", json, b"nonsense".to_vec(), 400),
        ("POST", "/tasks", json, b"{} {}".to_vec(), 400),
        ("POST", "/tasks", json, deep.into_bytes(), 400),
        ("POST", "/tasks", json, deep_in.into_bytes(), 400),
        ("POST", "/tasks", json, utf8, 400),
        ("POST", "/tasks", json, huge.into_bytes(), 413),
        ("POST", "/tasks", json, b"[]".to_vec(), 422),
        ("POST", "/tasks", json, b"null".to_vec(), 422),
        ("POST", "/tasks", json, b"\"x\"".to_vec(), 422),
        ("POST", "/tasks", json, Vec::new(), 422),
        ("POST", "/tasks", json, b"{\"\\u0000\": 1}".to_vec(), 422),
        ("POST", "/tasks", "text/plain", b"{}".to_vec(), 415),
        ("POST", "/tasks", "application/xml", b"<a/>".to_vec(), 415),
        ("POST", "/tasks", "", b"{}".to_vec(), 415),
        ("PATCH", "/tasks/x", "application/yaml", b"a: 1".to_vec(), 415),
        ("PUT", "/tasks", json, b"{}".to_vec(), 405),
        ("DELETE", "/runs", json, Vec::new(), 405),
        ("GET", "/schedules/preview", json, Vec::new(), 405),
        ("BREW", "/tasks", json, Vec::new(), 405),
        ("GET", "/nowhere", json, Vec::new(), 404),
        ("POST", "/", json, b"{}".to_vec(), 405),
        ("GET", "/tasks/no-such", json, Vec::new(), 404),
        ("GET", "/tasks/0190b0a0-0000-7000-8000-000000000000", json, Vec::new(), 404),
        ("GET", "/tasks/%ff", json, Vec::new(), 400),
        ("GET", "/tasks/a%00b", json, Vec::new(), 400),
        ("GET", "/runs/no-id", json, Vec::new(), 404),
        ("GET", "/events/no-id", json, Vec::new(), 404),
        ("GET", "/tools/no.such", json, Vec::new(), 404),
        ("GET", "/agents/nobody", json, Vec::new(), 404),
        ("GET", "/tasks?limit=0", json, Vec::new(), 400),
        ("GET", "/tasks?limit=201", json, Vec::new(), 400),
        ("GET", "/tasks?limit=many", json, Vec::new(), 400),
        ("GET", "/tasks?cursor=x", json, Vec::new(), 400),
        ("GET", "/tasks?status=sleeping", json, Vec::new(), 400),
        ("GET", "/tasks?stattus=active", json, Vec::new(), 400),
        ("GET", "/tasks?status=active&status=paused", json, Vec::new(), 400),
        ("GET", "/tasks?q=a%00b", json, Vec::new(), 400),
        ("GET", "/runs?from=yesterday", json, Vec::new(), 400),
        ("GET", "/runs?trigger=magic", json, Vec::new(), 400),
        ("POST", "/runs", json, b"{}".to_vec(), 422),
        ("POST", "/events", json, b"{\"topic\": \"a b\"}".to_vec(), 422),
        ("POST", "/events", json, b"{\"topic\": \"\"}".to_vec(), 422),
        ("POST", "/events", json, b"{\"payload\": 1}".to_vec(), 422),
        ("POST", "/agents", json, b"{\"name\": \"a\", \"scopes\": [\"tasks:reed\"]}".to_vec(), 422),
        ("POST", "/agents", json, b"{\"name\": \"a b\", \"scopes\": []}".to_vec(), 422),
        (
            "POST",
            "/schedules/preview",
            json,
            b"{\"schedule_kind\": \"cron\", \"schedule_expr\": \"0 8 * * *\", \"count\": 1001}"
                .to_vec(),
            422,
        ),
        (
            "POST",
            "/schedules/preview",
            json,
            b"{\"schedule_kind\": \"rrule\", \"schedule_expr\": \"FREQ=NEVER\"}".to_vec(),
            422,
        ),
        ("POST", "/auth/token", json, b"{\"grant_type\": \"password\"}".to_vec(), 422),
        ("POST", "/auth/token", "text/plain", b"grant_type=client_credentials".to_vec(), 415),
    ];

    for (method, path, media_type, body, status) in cases {
        let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
        let case = format!("{method} {path} {media_type} {shown}");
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {ADMIN_KEY}"));
        if !media_type.is_empty() {
            request = request.header("content-type", media_type);
        }
        let reply = api.send(request.body(Body::from(body)).unwrap()).await;

        is_problem(&reply, status, &case);
        if status == 405 {
            assert!(!reply.header("allow").is_empty(), "{case}");
        }
    }
}

/// chrono reads more years than Postgres keeps.
#[tokio::test]
async fn a_time_beyond_the_calendar_is_refused_wherever_it_is_sent() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let fine = "2026-03-01T00:00:00Z";
    let cron = json!({"schedule_kind": "cron", "schedule_expr": "30 8 * * *"});

    for far in
        ["-9999-01-01T00:00:00Z", "+262142-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-01:00"]
    {
        for (path, parameter) in [
            ("/runs", "from"),
            ("/runs", "to"),
            ("/audit", "from"),
            ("/audit", "to"),
            ("/tasks/t/occurrences", "from"),
            ("/tasks/t/occurrences", "to"),
            ("/tasks/t/occurrences", "cursor"),
        ] {
            let case = format!("{path}?{parameter}={}", far.replace('+', "%2B"));
            let reply = api.get(&case).await;
            is_problem(&reply, 400, &case);
            assert_eq!(reply.str("/errors/0/parameter"), parameter, "{case}: {}", reply.text);
            let words = if parameter == "cursor" { "next_cursor" } else { "years 1 to 9999" };
            assert!(reply.str("/errors/0/message").contains(words), "{case}: {}", reply.text);
        }
        let mut preview = cron.clone();
        preview["from"] = json!(far);
        for (path, body, pointer) in [
            ("/runs/cancel", json!({"from": far, "dry_run": true}), "/from"),
            ("/runs/cancel", json!({"to": far}), "/to"),
            ("/runs/retry", json!({"from": far}), "/from"),
            ("/runs/retry", json!({"to": far, "dry_run": true}), "/to"),
            ("/runs/batch", json!({"runs": [{"task": "t", "run_at": far}]}), "/runs/0/run_at"),
            ("/tasks/t/backfill", json!({"from": far, "to": fine}), "/from"),
            ("/tasks/t/backfill", json!({"from": fine, "to": far}), "/to"),
            ("/tasks/t/snooze", json!({"until": far}), "/until"),
            ("/tasks", task_with(json!({"starts_at": far})), "/starts_at"),
            ("/tasks", task_with(json!({"ends_at": far})), "/ends_at"),
            ("/schedules/preview", preview, "/from"),
        ] {
            let case = format!("{path} {far}");
            let reply = api.post(path, body).await;
            is_problem(&reply, 422, &case);
            assert_eq!(reply.pointers(), [pointer], "{case}: {}", reply.text);
            let told = reply.str("/errors/0/message");
            assert_eq!(told, "must be in the years 1 to 9999", "{case}");
        }
    }
}

#[tokio::test]
async fn a_request_id_from_outside_is_taken_if_it_is_safe() {
    let api = TestApi::new().await;
    let mut fine = request("GET", "/tasks/none", ADMIN_KEY, &Value::Null);
    fine.headers_mut().insert("x-request-id", "abc-1".parse().unwrap());
    let mut unsafe_id = request("GET", "/tasks/none", ADMIN_KEY, &Value::Null);
    unsafe_id.headers_mut().insert("x-request-id", "a b".parse().unwrap());

    let fine = api.send(fine).await;
    let replaced = api.send(unsafe_id).await;

    assert_eq!((fine.header("x-request-id"), fine.str("/request_id")), ("abc-1", "abc-1".into()));
    assert_ne!(replaced.header("x-request-id"), "a b");
    assert_eq!(replaced.header("x-request-id").len(), 36);
}

/// The database goes away while the API serves: no secret, no stack trace, and a hint to come again.
#[tokio::test]
async fn without_a_database_a_request_is_to_be_repeated_later() {
    let api = TestApi::new().await;
    api.db.pool.close().await;

    let reply = api.get("/tasks").await;

    is_problem(&reply, 503, "a closed pool");
    assert_eq!(reply.header("retry-after"), "2");
    assert_eq!(api.get("/health/live").await.status, 200);
    assert_eq!(api.get("/health").await.status, 503);
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_problem_and_not_a_broken_connection() {
    async fn broken() -> &'static str {
        panic!("password=hunter2")
    }
    let api = TestApi::new().await;
    let app = axum::Router::new()
        .route("/broken", axum::routing::get(broken))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(orchestrator_api::frame::caught))
        .layer(axum::middleware::from_fn_with_state(
            api.api.clone(),
            orchestrator_api::frame::frame,
        ));

    let reply = send_to(&app, request("GET", "/broken", "", &Value::Null)).await;

    is_problem(&reply, 500, "a panic");
    assert!(!reply.text.contains("hunter2"), "{}", reply.text);
}
