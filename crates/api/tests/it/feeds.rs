//! Planned runs for calendar programs, and the tokens that these come in with.

use std::io::Write;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, TestApi, request, task_with};

const NO_KEY: &str = "";

async fn without_key(api: &TestApi, path: &str) -> Reply {
    api.send(request("GET", path, NO_KEY, &Value::Null)).await
}

/// Start and title of each entry.
fn entries(feed: &Reply) -> Vec<String> {
    let text = feed.text.replace("\r\n ", "");
    text.split("BEGIN:VEVENT")
        .skip(1)
        .map(|event| {
            let field = |name: &str| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|line| line.strip_prefix(':')).unwrap_or_default().to_owned()
            };
            format!("{} {}", field("DTSTART"), field("SUMMARY"))
        })
        .collect()
}

#[tokio::test]
async fn planned_runs_are_in_the_feed_of_their_task_and_of_their_owner() {
    let api = TestApi::new().await;
    let ann = api.agent("ann", &["tasks:read", "tasks:write"]).await;
    let make = |key: String, fields: Value| {
        let api = &api;
        async move { api.call("POST", "/tasks", &key, task_with(fields)).await.expect(201) }
    };
    make(ann.clone(), json!({"name": "a", "title": "Tidy; up, \n daily"})).await;
    let daily = json!({"name": "b", "title": "Backup", "exclude": ["2026-03-03"],
                       "schedule_expr": "0 9 * * *", "max_fires": 2});
    let b = make(ann.clone(), daily).await;
    make(ann.clone(), json!({"name": "p", "title": "Paused"})).await;
    api.call("POST", "/tasks/p/pause", &ann, json!({})).await.expect(200);
    make(ADMIN_KEY.to_owned(), json!({"name": "o", "title": "Of the admin"})).await;
    let feed = |path: &'static str, key: String| {
        let api = &api;
        async move { api.call("GET", path, &key, Value::Null).await.expect(200) }
    };

    let all = feed("/calendar.ics?days=2", ann.clone()).await;
    let one = feed("/tasks/b.ics", ann.clone()).await;
    let admin = feed("/calendar.ics?days=1", ADMIN_KEY.to_owned()).await;
    let paused = feed("/tasks/p.ics", ann.clone()).await;

    assert_eq!(all.header("content-type"), "text/calendar; charset=utf-8");
    assert_eq!(
        entries(&all),
        [
            "20260302T083000Z Tidy\\; up\\,   daily",
            "20260302T090000Z Backup",
            "20260303T083000Z Tidy\\; up\\,   daily",
        ]
    );
    assert_eq!(entries(&one), ["20260302T090000Z Backup", "20260304T090000Z Backup"]);
    assert_eq!(entries(&admin).len(), 3, "an admin sees everybody's");
    assert_eq!(entries(&paused), [""; 0]);
    let uid = format!("UID:{}-20260302T090000Z@orchestrator", b.str("/id"));
    for feed in [&all, &one] {
        assert_eq!(feed.text.replace("\r\n ", "").matches(&uid).count(), 1, "{}", feed.text);
    }
    assert!(one.text.replace("\r\n ", "").contains("Before this: 2026-03-03 is in exclude"));
    let wrong = api.get("/calendar.ics?days=367&dais=1").await.expect(400);
    assert_eq!(wrong.body["errors"].as_array().unwrap().len(), 2);
    api.call("GET", "/tasks/o.ics", &ann, Value::Null).await.expect(404);
}

#[tokio::test]
async fn what_fired_in_the_last_seven_days_is_in_the_feed() {
    let api = TestApi::new().await;
    let made = api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let run = made.str("/id");
    for (at, disposition) in [
        ("2026-02-22T08:30:00Z", "fired"),
        ("2026-02-28T08:30:00Z", "fired"),
        ("2026-03-01T08:30:00Z", "skipped_paused"),
    ] {
        sqlx::query(
            "insert into occurrence (task_id, nominal_at, disposition, run_id, revision, decided_at)
             values ($1::uuid, $2::timestamptz, $3, $1::uuid, 1, now())",
        )
        .bind(&run)
        .bind(at.parse::<chrono::DateTime<chrono::Utc>>().unwrap())
        .bind(disposition)
        .execute(&api.db.pool)
        .await
        .unwrap();
    }

    let feed = api.get("/tasks/t.ics?days=1").await.expect(200);

    assert_eq!(entries(&feed), ["20260228T083000Z A task", "20260302T083000Z A task"]);
    assert!(feed.text.replace("\r\n ", "").contains(&format!("fired: run {run}")));
}

/// A task that fires every minute has its next 366 times in the feed of all, and leaves room for the
/// daily one.
#[tokio::test]
async fn a_feed_has_the_nearest_entries_and_not_too_many_of_one_task() {
    let api = TestApi::new().await;
    let often = json!({"name": "often", "title": "Often", "schedule_expr": "* * * * *"});
    api.post("/tasks", task_with(often)).await.expect(201);
    api.post("/tasks", task_with(json!({"title": "Daily"}))).await.expect(201);

    let all = entries(&api.get("/calendar.ics?days=366").await.expect(200));
    let one = entries(&api.get("/tasks/often.ics?days=366").await.expect(200));

    let count = |title| all.iter().filter(|entry| entry.ends_with(title)).count();
    assert_eq!((count("Often"), count("Daily")), (366, 366));
    assert_eq!((one.len(), &one[0][..]), (2_000, "20260302T080100Z Often"));
    assert_eq!(one[1_999], "20260303T172000Z Often");
}

#[tokio::test]
async fn a_feed_token_reads_feeds_and_nothing_else() {
    let api = TestApi::new().await;
    let ann = api.agent("ann", &["tasks:read", "tasks:write"]).await;
    api.call("POST", "/tasks", &ann, task_with(json!({"name": "t"}))).await.expect(201);

    let made = api.call("POST", "/calendar/token", &ann, Value::Null).await.expect(201);
    let token = made.str("/token");
    let url = made.str("/url");

    assert_eq!(url, format!("/calendar.ics?token={token}"));
    assert!(token.starts_with("ofd_") && token.len() == 47, "256 bits: {}", token.len());
    assert_eq!(entries(&without_key(&api, &format!("{url}&days=1")).await.expect(200)).len(), 1);
    without_key(&api, &format!("/tasks/t.ics?token={token}")).await.expect(200);
    for path in [
        "/tasks",
        "/tasks/t",
        "/calendars",
        "/calendar/token",
        "/tasks/t/occurrences",
        "/tasks/t%2Eics",
        "/audit",
        "/runs",
    ] {
        without_key(&api, &format!("{path}?token={token}")).await.expect(401);
    }
    let post = format!("/tasks/t.ics?token={token}");
    api.send(request("POST", &post, NO_KEY, &json!({}))).await.expect(401);
    api.send(request("DELETE", &post, NO_KEY, &Value::Null)).await.expect(401);
    api.send(request("PATCH", &post, NO_KEY, &json!({"title": "x"}))).await.expect(401);
    api.call("GET", "/tasks", &token, Value::Null).await.expect(401);
    api.call("GET", "/calendar.ics", &token, Value::Null).await.expect(401);
    // Who says who they are by header is not let in by a token as well, nor is a key a feed token.
    api.send(request("GET", &url, "orc_wrong", &Value::Null)).await.expect(401);
    without_key(&api, &format!("/calendar.ics?token={ann}")).await.expect(401);
    without_key(&api, "/calendar.ics?token=").await.expect(401);
    without_key(&api, "/calendar.ics").await.expect(401);
}

#[tokio::test]
async fn a_feed_token_is_shown_once_and_good_until_it_is_revoked_or_its_agent_disabled() {
    let api = TestApi::new().await;
    let ann = api.agent("ann", &["tasks:read"]).await;
    let nobody = api.agent("nobody", &["runs:read"]).await;
    let create = || {
        let mut request = request("POST", "/calendar/token", &ann, &json!({}));
        request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        api.send(request)
    };

    let made = create().await.expect(201);
    let again = create().await.expect(201);
    let other = api.call("POST", "/calendar/token", &ann, json!({})).await.expect(201);
    api.call("POST", "/calendar/token", &nobody, json!({})).await.expect(403);

    assert_eq!((&again.body["token"], &again.body["url"]), (&Value::Null, &Value::Null));
    let list = api.call("GET", "/calendar/token", &ann, Value::Null).await.expect(200);
    assert_eq!(list.body["items"].as_array().unwrap().len(), 2);
    assert!(!list.text.contains(&made.str("/token")));
    assert!(list.text.contains(&made.str("/hint")), "{}", list.text);
    let kept: i64 = sqlx::query_scalar(
        "select count(*) from idempotency where body::text like '%' || $1 || '%'",
    )
    .bind(made.str("/token"))
    .fetch_one(&api.db.pool)
    .await
    .unwrap();
    assert_eq!(kept, 0);

    let path = format!("/calendar/token/{}", made.str("/id"));
    api.call("DELETE", &path, ADMIN_KEY, Value::Null).await.expect(404);
    api.call("DELETE", &path, &ann, Value::Null).await.expect(204);
    without_key(&api, &made.str("/url")).await.expect(401);
    without_key(&api, &other.str("/url")).await.expect(200);
    api.call("PATCH", "/agents/ann", ADMIN_KEY, json!({"disabled": true})).await.expect(200);
    without_key(&api, &other.str("/url")).await.expect(401);
}

#[tokio::test]
async fn a_feed_counts_against_the_rate_limit_of_its_agent() {
    let api = TestApi::with(&[("API_RATE_LIMIT", "3")]).await;
    let url = api.post("/calendar/token", json!({})).await.expect(201).str("/url");

    without_key(&api, &url).await.expect(200);
    without_key(&api, &url).await.expect(200);
    without_key(&api, &url).await.expect(429);
    api.clock.advance(TimeDelta::minutes(1));
}

/// What was logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_feed_token_is_in_no_log_no_metric_and_no_refusal() {
    let api = TestApi::new().await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let made = api.post("/calendar/token", json!({})).await.expect(201);
    let token = made.str("/token");
    let secret = token.strip_prefix("ofd_").unwrap();
    let mut refusals = Vec::new();
    without_key(&api, &made.str("/url")).await.expect(200);
    for path in ["/calendar.ics?days=0&", "/tasks/none.ics?", "/tasks?", "/nowhere?"] {
        refusals.push(without_key(&api, &format!("{path}token={token}")).await);
    }
    let metrics = api.get("/metrics").await.expect(200);

    let told = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(told.contains("GET /calendar.ics answered 200"), "{told}");
    assert!(!told.contains(secret));
    assert!(!metrics.text.contains(secret));
    assert_eq!(
        refusals.iter().map(|one| one.status.as_u16()).collect::<Vec<_>>(),
        [400, 404, 401, 404]
    );
    for refusal in refusals {
        assert!(!refusal.text.contains(secret), "{}", refusal.text);
    }
}
