//! Who may call, and what: keys, tokens, scopes, ownership.

use base64::Engine as _;
use chrono::TimeDelta;
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::store::agent;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, TestApi, request, task};

async fn token(api: &TestApi, id: &str, secret: &str) -> Reply {
    let body =
        json!({"grant_type": "client_credentials", "client_id": id, "client_secret": secret});
    api.call("POST", "/auth/token", "", body).await
}

#[tokio::test]
async fn whoever_does_not_say_who_they_are_gets_no_further() {
    let api = TestApi::new().await;

    for (header, case) in [
        ("", "nothing"),
        ("Bearer", "no key"),
        ("Bearer orc_wrong", "an unknown key"),
        ("Basic YWRtaW46eA==", "another scheme"),
        (ADMIN_KEY, "no scheme"),
    ] {
        let mut asked = request("GET", "/tasks", "", &Value::Null);
        if !header.is_empty() {
            asked.headers_mut().insert("authorization", header.parse().unwrap());
        }
        let reply = api.send(asked).await.expect(401);
        assert!(reply.header("www-authenticate").starts_with("Bearer"), "{case}");
        assert_eq!(reply.header("content-type"), "application/problem+json", "{case}");
    }
    for path in ["/", "/health", "/health/live", "/health/ready", "/metrics", "/openapi.json"] {
        api.call("GET", path, "", Value::Null).await.expect(200);
    }
    let docs = api.call("GET", "/docs/", "", Value::Null).await.expect(200);
    assert!(docs.text.contains("swagger"), "{}", docs.text);
}

#[tokio::test]
async fn a_server_that_is_on_its_way_out_says_so() {
    let api = TestApi::new().await;
    assert_eq!(api.get("/health/ready").await.expect(200).body, json!({"status": "ready"}));

    api.api.health.stopping();

    let reply = api.get("/health/ready").await.expect(503);
    assert_eq!(reply.body, json!({"status": "not_ready", "message": "stopping"}));
}

#[tokio::test]
async fn a_scope_that_is_missing_is_named() {
    let api = TestApi::new().await;
    let key = api.agent("reader", &["tasks:read"]).await;

    api.call("GET", "/tasks", &key, Value::Null).await.expect(200);
    for (method, path, scope) in [
        ("POST", "/tasks", "tasks:write"),
        ("GET", "/runs", "runs:read"),
        ("POST", "/runs", "runs:write"),
        ("POST", "/events", "events:publish"),
        ("GET", "/events", "events:read"),
        ("GET", "/agents", "agents:admin"),
        ("GET", "/audit", "audit:read"),
        ("GET", "/admin/invariants", "admin"),
    ] {
        // The scope is looked at before the body: what is wrong with it is nobody's business.
        let body = if method == "POST" { json!({"x": 1}) } else { Value::Null };
        let reply = api.call(method, path, &key, body).await.expect(403);
        assert!(reply.text.contains(scope), "{path}: {}", reply.text);
        assert_eq!(reply.str("/type"), "/problems/missing-scope", "{path}");
    }
}

#[tokio::test]
async fn what_belongs_to_another_agent_is_not_there() {
    let api = TestApi::new().await;
    let all = ["tasks:read", "tasks:write", "runs:read", "runs:write"];
    let (ann, bob) = (api.agent("ann", &all).await, api.agent("bob", &all).await);
    let mut named = task("Ann's");
    named["name"] = json!("hers");
    let id = api.call("POST", "/tasks", &ann, named).await.expect(201).str("/id");
    let run = api.call("POST", "/tasks/hers/run_now", &ann, json!({})).await.expect(202);
    let run = run.str("/run_id");

    for (method, path) in [
        ("GET", format!("/tasks/{id}")),
        ("GET", "/tasks/hers".to_owned()),
        ("PATCH", format!("/tasks/{id}")),
        ("DELETE", format!("/tasks/{id}")),
        ("POST", format!("/tasks/{id}/pause")),
        ("POST", format!("/tasks/{id}/run_now")),
        ("GET", format!("/tasks/{id}/occurrences")),
        ("GET", format!("/tasks/{id}/revisions")),
        ("GET", format!("/runs/{run}")),
        ("POST", format!("/runs/{run}/cancel")),
        ("POST", format!("/runs/{run}/retry")),
    ] {
        let body = if method == "GET" { Value::Null } else { json!({}) };
        let reply = api.call(method, &path, &bob, body).await.expect(404);
        assert_eq!(reply.str("/type"), "/problems/not-found", "{method} {path}");
    }
    for path in ["/tasks", "/tasks?created_by=ann", "/runs", &format!("/runs?task_id={id}")] {
        let reply = api.call("GET", path, &bob, Value::Null).await.expect(200);
        assert_eq!(reply.body["items"], json!([]), "{path}");
        let reply = api.get(path).await.expect(200);
        assert_eq!(reply.body["items"].as_array().unwrap().len(), 1, "an admin sees {path}");
    }
}

#[tokio::test]
async fn a_revoked_key_and_its_tokens_open_nothing() {
    let api = TestApi::new().await;
    let key = api.agent("ann", &["tasks:read"]).await;
    let token = token(&api, "ann", &key).await.expect(200).str("/access_token");
    api.call("GET", "/tasks", &token, Value::Null).await.expect(200);

    let keys = api.get("/agents/ann/keys").await.expect(200);
    assert!(!keys.text.contains(&key) && key.starts_with(&keys.str("/items/0/hint")));
    let path = format!("/agents/ann/keys/{}", keys.str("/items/0/id"));
    api.call("DELETE", &path, ADMIN_KEY, Value::Null).await.expect(204);

    api.call("GET", "/tasks", &key, Value::Null).await.expect(401);
    api.call("GET", "/tasks", &token, Value::Null).await.expect(401);
}

#[tokio::test]
async fn a_token_is_good_until_its_time_and_makes_no_other() {
    let api = TestApi::with(&[("AUTH_TOKEN_EXPIRE", "600")]).await;
    let key = api.agent("ann", &["tasks:read"]).await;

    let made = token(&api, "ann", &key).await.expect(200);
    let secret = made.str("/access_token");

    assert_eq!((&made.body["expires_in"], made.str("/token_type")), (&json!(600), "Bearer".into()));
    token(&api, "ann", &secret).await.expect(401);
    token(&api, "admin", &key).await.expect(401);
    token(&api, "ann", ADMIN_KEY).await.expect(401);
    api.clock.advance(TimeDelta::seconds(599));
    api.call("GET", "/tasks", &secret, Value::Null).await.expect(200);
    api.clock.advance(TimeDelta::seconds(1));
    api.call("GET", "/tasks", &secret, Value::Null).await.expect(401);
}

#[tokio::test]
async fn a_token_is_given_for_a_form_and_for_http_basic_too() {
    let api = TestApi::new().await;
    let key = api.agent("ann", &[]).await;
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("ann:{key}"));
    let form = |body: String, authorization: Option<&str>| {
        let mut request = axum::http::Request::post("/auth/token")
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        request.body(body.into()).unwrap()
    };

    let whole = format!("grant_type=client_credentials&client_id=ann&client_secret={key}");
    api.send(form(whole, None)).await.expect(200);
    let only_grant = "grant_type=client_credentials".to_owned();
    api.send(form(only_grant.clone(), Some(&format!("Basic {basic}")))).await.expect(200);
    let refused = api.send(form(only_grant, None)).await.expect(401);
    assert!(refused.header("www-authenticate").starts_with("Basic"));
}

#[tokio::test]
async fn a_disabled_agent_is_refused_and_comes_back_when_enabled() {
    let api = TestApi::new().await;
    let key = api.agent("ann", &["tasks:read"]).await;
    let patch = |body: Value| api.call("PATCH", "/agents/ann", ADMIN_KEY, body);

    assert!(!patch(json!({"disabled": true})).await.expect(200).str("/disabled_at").is_empty());
    api.call("GET", "/tasks", &key, Value::Null).await.expect(401);
    patch(json!({"disabled": false})).await.expect(200);
    api.call("GET", "/tasks", &key, Value::Null).await.expect(200);
    let last = api.call("PATCH", "/agents/admin", ADMIN_KEY, json!({"disabled": true})).await;
    last.expect(409);
}

/// Otherwise `agents:admin` would be another word for `admin`.
#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let api = TestApi::new().await;
    let clerk = api.agent("clerk", &["agents:admin", "tasks:read"]).await;
    let post = |path: &'static str, body: Value| api.call("POST", path, &clerk, body);

    post("/agents", json!({"name": "a", "scopes": ["tasks:read"]})).await.expect(201);
    post("/agents", json!({"name": "b", "scopes": ["admin"]})).await.expect(403);
    post("/agents/admin/keys", json!({})).await.expect(403);
    let path = "/agents/clerk";
    api.call("PATCH", path, &clerk, json!({"scopes": ["admin"]})).await.expect(403);
    api.call("PATCH", "/agents/admin", &clerk, json!({"disabled": true})).await.expect(403);
}

#[tokio::test]
async fn the_admin_of_the_settings_is_made_once_however_many_start() {
    let api = TestApi::new().await;
    let now = api.clock.now();
    let key = "orc_another-admin-key-of-good-length";

    let again = || agent::ensure_admin(&api.db.pool, key, now);
    let (a, b, c) = tokio::join!(again(), again(), again());

    assert!(a.is_ok() && b.is_ok() && c.is_ok(), "{a:?} {b:?} {c:?}");
    api.call("GET", "/agents", key, Value::Null).await.expect(200);
    api.get("/agents").await.expect(200);
    assert!(agent::ensure_admin(&api.db.pool, "short", now).await.is_err());
    let stored: Vec<Vec<u8>> =
        sqlx::query_scalar("select hash from agent_key").fetch_all(&api.db.pool).await.unwrap();
    assert_eq!(stored.len(), 2);
    assert!(stored.iter().all(|hash| hash.len() == 32), "hashes, no secrets");
}
