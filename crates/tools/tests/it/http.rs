use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{any, get};
use futures::stream;
use orchestrator_engine::tool::{ToolCaller, ToolError};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::setup::{ask, call, reaching, serve};

/// Answers with what it was asked.
async fn mirror(request: Request) -> axum::Json<Value> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let headers: serde_json::Map<_, _> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    axum::Json(json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8(body.to_vec()).unwrap(),
    }))
}

#[tokio::test]
async fn a_request_is_sent_as_written_and_its_answer_comes_back() {
    let at = serve(Router::new().route("/mirror", any(mirror))).await;
    let tools = reaching("127.0.0.1").await;

    let input = json!({
        "method": "post", "url": format!("http://{at}/mirror?a=1"), "query": {"tag": ["x", "y z"]},
        "headers": {"X-Key": "secret"}, "json": {"n": 1},
    });
    let output = ask(&tools, "http.request", input).await.unwrap();

    assert_eq!(output["status"], 200);
    assert_eq!(output["headers"]["content-type"], "application/json");
    let seen = &output["json"];
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["uri"], "/mirror?a=1&tag=x&tag=y+z");
    assert_eq!(seen["body"], "{\"n\":1}");
    assert_eq!(seen["headers"]["x-key"], "secret");
    assert_eq!(seen["headers"]["content-type"], "application/json");
    assert_eq!(seen["headers"]["idempotency-key"], "0198/fetch");
    assert!(seen["headers"]["user-agent"].as_str().unwrap().starts_with("orchestrator/"));
    assert_eq!(seen["headers"]["accept-encoding"], Value::Null);
}

#[tokio::test]
async fn a_key_of_the_steps_own_is_kept_and_a_get_has_none() {
    let at = serve(Router::new().route("/", any(mirror))).await;
    let tools = reaching("127.0.0.1").await;
    let url = format!("http://{at}/");

    let own = json!({
        "method": "PUT", "url": url, "headers": {"Idempotency-Key": "mine"}, "form": {"a": "b c"},
    });
    let own = ask(&tools, "http.request", own).await.unwrap();
    let got = ask(&tools, "http.request", json!({"url": url})).await.unwrap();

    assert_eq!(own["json"]["headers"]["idempotency-key"], "mine");
    assert_eq!(own["json"]["body"], "a=b+c");
    assert_eq!(got["json"]["headers"]["idempotency-key"], Value::Null);
}

#[tokio::test]
async fn this_machine_is_not_reached_unless_allowed() {
    let at = serve(Router::new().route("/", get(|| async { "in" }))).await;
    let port = at.port();
    let cases = [
        ("", format!("http://127.0.0.1:{port}/"), false, "by address"),
        ("", format!("http://localhost:{port}/"), false, "by name"),
        ("", format!("http://2130706433:{port}/"), false, "by one number"),
        ("", format!("http://[::ffff:127.0.0.1]:{port}/"), false, "in the dress of IPv6"),
        ("127.0.0.0/8, ::1", format!("http://localhost:{port}/"), true, "an allowed network"),
        (&*format!("localhost:{port}"), format!("http://localhost:{port}/"), true, "name and port"),
        ("localhost:1", format!("http://localhost:{port}/"), false, "another port"),
        ("localhost", format!("http://127.0.0.1:{port}/"), false, "another way to say it"),
    ];
    for (allow, url, passes, why) in cases {
        let result = ask(&reaching(allow).await, "http.request", json!({"url": url})).await;
        match result {
            Ok(output) => assert!(passes && output["body"] == "in", "{why}"),
            Err(ToolError::Refused { reason, .. }) => {
                assert!(!passes && reason.contains("allow it with HTTP_ALLOW_PRIVATE"), "{reason}");
            }
            Err(error) => panic!("{why}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused() {
    let inner = serve(Router::new().route("/", get(|| async { "secret" }))).await;
    let target = format!("http://{inner}/");
    let outer = Router::new().route("/", get(move || async move { Redirect::temporary(&target) }));
    let outer = serve(outer).await;
    let tools = reaching(&outer.to_string()).await;

    let error = ask(&tools, "http.request", json!({"url": format!("http://{outer}/")})).await;

    let said = error.unwrap_err().to_string();
    assert!(said.contains("address 127.0.0.1") && said.contains("is private"), "{said}");
}

#[tokio::test]
async fn credentials_stay_with_the_origin_they_were_meant_for() {
    let other = serve(Router::new().route("/mirror", any(mirror))).await;
    let router = Router::new()
        .route(
            "/away",
            any(move || async move { Redirect::temporary(&format!("http://{other}/mirror")) }),
        )
        .route("/here", any(|| async { Redirect::temporary("/mirror") }))
        .route("/mirror", any(mirror));
    let at = serve(router).await;
    let tools = reaching("127.0.0.1").await;
    let ask_at = async |path: &str| {
        let input = json!({
            "method": "POST", "url": format!("http://{at}{path}"), "body": "hello",
            "headers": {"Authorization": "Bearer s", "X-Api-Key": "s", "Accept": "application/json"},
        });
        ask(&tools, "http.request", input).await.unwrap()
    };

    let (away, here) = (ask_at("/away").await, ask_at("/here").await);

    assert_eq!(away["url"], format!("http://{other}/mirror"));
    let kept = &away["json"]["headers"];
    assert_eq!((&kept["authorization"], &kept["x-api-key"]), (&Value::Null, &Value::Null));
    assert_eq!(kept["accept"], "application/json");
    assert_eq!(away["json"]["body"], "hello", "307 keeps the body");
    assert_eq!(here["json"]["headers"]["x-api-key"], "s");
}

#[tokio::test]
async fn redirects_end_somewhere_or_are_shown() {
    let router = Router::new()
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/see", any(|| async { Redirect::to("/mirror") }))
        .route("/mirror", any(mirror));
    let at = serve(router).await;
    let tools = reaching("127.0.0.1").await;

    let lost = json!({"url": format!("http://{at}/loop")});
    let lost = ask(&tools, "http.request", lost).await.unwrap_err().to_string();
    let shown = json!({"url": format!("http://{at}/loop"), "follow_redirects": false});
    let shown = ask(&tools, "http.request", shown).await.unwrap();
    let see = json!({"url": format!("http://{at}/see"), "method": "POST", "json": {}});
    let see = ask(&tools, "http.request", see).await.unwrap();

    assert!(lost.contains("more than 5 redirects"), "{lost}");
    assert_eq!((&shown["status"], &shown["headers"]["location"]), (&json!(307), &json!("/loop")));
    assert_eq!((&see["json"]["method"], &see["json"]["body"]), (&json!("GET"), &json!("")));
}

#[tokio::test]
async fn a_status_decides_whether_to_try_again() {
    let router = Router::new()
        .route(
            "/busy",
            get(|| async {
                (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "7")], "slow down")
            }),
        )
        .route("/gone", get(|| async { (StatusCode::GONE, "x".repeat(10_000)) }));
    let at = serve(router).await;
    let tools = reaching("127.0.0.1").await;

    let busy = json!({"url": format!("http://{at}/busy")});
    let busy = ask(&tools, "http.request", busy).await.unwrap_err();
    let gone = json!({"url": format!("http://{at}/gone")});
    let gone = ask(&tools, "http.request", gone).await.unwrap_err();
    let expected = json!({"url": format!("http://{at}/gone"), "expect_status": [200, 410]});
    let expected = ask(&tools, "http.request", expected).await.unwrap();
    let unexpected = json!({"url": format!("http://{at}/gone"), "expect_status": 200});

    assert_eq!(
        busy,
        ToolError::Busy {
            tool: "http.request".to_owned(),
            reason: "status 429 Too Many Requests: slow down".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
        }
    );
    assert!(!gone.is_transient() && gone.to_string().len() < 2_100, "{gone}");
    assert_eq!(expected["status"], 410);
    assert!(!ask(&tools, "http.request", unexpected).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_huge_answer_is_given_up_at_its_limit() {
    let endless = || async {
        let letters =
            stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 4096])));
        Body::from_stream(letters)
    };
    let at = serve(
        Router::new().route("/", get(endless)).route("/small", get(|| async { "x".repeat(100) })),
    )
    .await;
    let tools = reaching("127.0.0.1").await;

    let said = ask(&tools, "http.request", json!({"url": format!("http://{at}/")})).await;
    let exact = json!({"url": format!("http://{at}/small"), "max_bytes": 100});
    let over = json!({"url": format!("http://{at}/small"), "max_bytes": 99});

    let said = said.unwrap_err().to_string();
    assert!(said.contains("larger than 1048576 bytes"), "{said}");
    assert!(ask(&tools, "http.request", exact).await.is_ok());
    assert!(ask(&tools, "http.request", over).await.is_err());
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let at = serve(Router::new().route("/", get(std::future::pending::<()>))).await;
    let tools = reaching("127.0.0.1").await;
    let mut slow = call("http.request", json!({"url": format!("http://{at}/")}));
    slow.timeout = Duration::from_millis(50);
    let canceled = call("http.request", json!({"url": format!("http://{at}/")}));
    canceled.cancel.cancel();

    let waited = slow.timeout;
    assert_eq!(
        tools.call(slow).await,
        Err(ToolError::Timeout { tool: "http.request".to_owned(), waited })
    );
    assert!(matches!(tools.call(canceled).await, Err(ToolError::Canceled { .. })));
}

/// A call that is told to stop is on its way: what the server did is known, if it says so soon.
#[tokio::test]
async fn an_answer_that_comes_right_after_the_call_was_canceled_counts() {
    let (asked, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (come, go) = (Arc::clone(&asked), Arc::clone(&release));
    let held = move || {
        let (come, go) = (Arc::clone(&come), Arc::clone(&go));
        async move {
            come.notify_one();
            go.notified().await;
            "done"
        }
    };
    let at = serve(Router::new().route("/", get(held))).await;
    let tools = reaching("127.0.0.1").await;
    let call = call("http.request", json!({"url": format!("http://{at}/")}));
    let cancel = call.cancel.clone();
    let calling = tokio::spawn(async move { tools.call(call).await });
    asked.notified().await;

    cancel.cancel();
    release.notify_one();

    assert_eq!(calling.await.unwrap().unwrap()["body"], "done");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://user:hunter2@{at}/?token=hunter2");

    let error = ask(&reaching("127.0.0.1").await, "http.request", json!({"url": url})).await;

    let error = error.unwrap_err();
    assert!(matches!(error, ToolError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let tools = reaching("").await;
    for input in [
        json!({"url": "file:///etc/passwd"}),
        json!({"url": "gopher://example.com/"}),
        json!({"url": "no url"}),
        json!({"url": "http://example.com/", "method": "CONNECT"}),
        json!({"url": "http://example.com/", "headers": {"Host": "other"}}),
        json!({"url": "http://example.com/", "headers": {"X": "a\nb"}}),
        json!({"url": "http://example.com/", "json": 1, "body": "x"}),
        json!({"url": "http://example.com/", "max_bytes": 10_485_761}),
        json!({"url": "http://example.com/", "colour": "blue"}),
    ] {
        let error = ask(&tools, "http.request", input.clone()).await.unwrap_err();
        assert!(matches!(error, ToolError::Refused { .. }), "{input}: {error}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_come_as_base64() {
    async fn picture(_: HeaderMap) -> impl IntoResponse {
        ([(header::CONTENT_TYPE, "image/png")], vec![0x89, b'P', b'N', b'G', 0xff])
    }
    let at = serve(Router::new().route("/", get(picture))).await;

    let input = json!({"url": format!("http://{at}/")});
    let output = ask(&reaching("127.0.0.1").await, "http.request", input).await.unwrap();

    assert_eq!((&output["body"], &output["body_base64"]), (&json!("iVBOR/8="), &json!(true)));
    assert_eq!(output["json"], Value::Null);
}
