//! `/openapi.json` against the server: what it says of refusals, headers and bodies is what happens.

use axum::body::Body;
use axum::http::{HeaderName, Request};
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, TestApi, request, task_with};

const PROBLEM: &str = "application/problem+json";

/// An operation of the document.
struct Operation {
    /// `POST /tasks/{id}/pause`
    name: String,
    method: String,
    path: String,
    says: Value,
}

impl Operation {
    /// A request to it, about things that there are not.
    fn request(&self, key: &str) -> Request<Body> {
        self.request_about("none", key)
    }

    fn request_about(&self, thing: &str, key: &str) -> Request<Body> {
        let parts = self.path.split('/').map(|part| match part.split_once('}') {
            Some((_, rest)) => format!("{thing}{rest}"),
            None => part.to_owned(),
        });
        let path = parts.collect::<Vec<_>>().join("/");
        request(&self.method.to_uppercase(), &path, key, &Value::Null)
    }

    fn header(&self, name: &str) -> Option<&Value> {
        let mut parameters = self.says["parameters"].as_array().into_iter().flatten();
        parameters.find(|one| one["in"] == "header" && one["name"] == name)
    }

    fn is_private(&self) -> bool {
        self.says["security"].is_null()
    }

    fn refusals(&self) -> impl Iterator<Item = (u16, &Value)> {
        let responses = self.says["responses"].as_object().unwrap().iter();
        let known = responses.map(|(status, response)| (status.parse().unwrap(), response));
        known.filter(|(status, _)| *status >= 400)
    }

    fn refuses_with(&self, wanted: u16) -> bool {
        self.refusals().any(|(status, _)| status == wanted)
    }

    /// A refusal is one of those that the document names, of the form that it names.
    #[track_caller]
    fn check(&self, reply: &Reply) {
        let status = reply.status.as_u16();
        if status < 400 {
            return;
        }
        let name = &self.name;
        assert_ne!(status, 500, "{name}: {}", reply.text);
        assert!(self.refuses_with(status), "{name} may not answer {status}: {}", reply.text);
        let of_status = &self.says["responses"][status.to_string()]["content"];
        assert!(of_status[reply.header("content-type")].is_object(), "{name}: {of_status}");
    }
}

async fn operations(api: &TestApi) -> Vec<Operation> {
    let document = api.get("/openapi.json").await.expect(200).body;
    let problem = &document["components"]["schemas"]["Problem"]["properties"];
    assert!(problem["request_id"].is_object(), "{problem}");
    let paths = document["paths"].as_object().unwrap().iter();
    let operations: Vec<_> = paths
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, says)| Operation {
                name: format!("{} {path}", method.to_uppercase()),
                method: method.clone(),
                path: path.clone(),
                says: says.clone(),
            })
        })
        .collect();
    assert!(operations.len() > 40, "{} operations", operations.len());
    operations
}

async fn send(api: &TestApi, operation: &Operation, request: Request<Body>) -> Reply {
    // Whoever fails to say who it is too often in a minute is slowed down.
    api.clock.advance(chrono::TimeDelta::minutes(1));
    let reply = api.send(request).await;
    operation.check(&reply);
    reply
}

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
    request
}

#[tokio::test]
async fn every_refusal_is_described_as_the_problem_document_that_it_is() {
    let api = TestApi::new().await;

    for operation in operations(&api).await {
        let name = &operation.name;
        for (status, response) in operation.refusals() {
            let content = response["content"].as_object();
            let content = content.unwrap_or_else(|| panic!("{name} {status} has no content"));
            let is_report = operation.path.starts_with("/health");
            let form = if is_report { "application/json" } else { PROBLEM };
            assert_eq!(content.keys().collect::<Vec<_>>(), [form], "{name} {status}");
            let schema = &content[form]["schema"];
            assert!(is_report || schema["$ref"] == "#/components/schemas/Problem", "{schema}");
            assert!(!response["description"].as_str().unwrap().is_empty(), "{name} {status}");
        }
    }
}

/// One caller says nothing, one has no scope, one sends a header that cannot be read.
#[tokio::test]
async fn who_is_refused_at_the_door_is_what_the_document_says() {
    let api = TestApi::new().await;
    let nobody = api.agent("nobody", &[]).await;

    for operation in operations(&api).await {
        let name = &operation.name;
        let unknown = send(&api, &operation, operation.request("")).await;
        if operation.is_private() {
            assert_eq!(unknown.status, 401, "{name}");
            let powerless = send(&api, &operation, operation.request(&nobody)).await;
            assert_eq!(powerless.status == 403, operation.refuses_with(403), "{name}");
            let unreadable = with(operation.request(ADMIN_KEY), "if-match", "3");
            assert_eq!(send(&api, &operation, unreadable).await.status, 400, "{name}");
            for status in [429, 500, 503] {
                assert!(operation.refuses_with(status), "{name} may answer {status}");
            }
        } else {
            assert_ne!(unknown.status, 403, "{name}");
        }
        if operation.path.contains('{') && operation.says["requestBody"].is_null() {
            let missing = send(&api, &operation, operation.request(ADMIN_KEY)).await;
            let wanted = if operation.path.ends_with("/explain") { 400 } else { 404 };
            assert_eq!(missing.status, wanted, "{name}");
        }
    }
}

#[tokio::test]
async fn a_body_is_refused_as_the_document_says_and_left_out_where_it_says_so() {
    let api = TestApi::new().await;
    let mut optional = Vec::new();

    for operation in operations(&api).await {
        let name = &operation.name;
        let body = &operation.says["requestBody"];
        let Some(forms) = body["content"].as_object() else { continue };
        let sent = |form: &str, text: &'static str| {
            let mut request = with(operation.request(ADMIN_KEY), "content-type", form);
            *request.body_mut() = text.into();
            request
        };
        assert!(operation.refuses_with(413), "{name}");
        let other = send(&api, &operation, sent("text/plain", "x")).await;
        assert_eq!(other.status, 415, "{name}");
        if !forms.contains_key("text/calendar") {
            let broken = send(&api, &operation, sent("application/json", "{")).await;
            assert_eq!(broken.status, 400, "{name}");
            let list = send(&api, &operation, sent("application/json", "[]")).await;
            assert_eq!(list.status, 422, "{name}");
        }
        if operation.method == "post" {
            let nothing = send(&api, &operation, operation.request(ADMIN_KEY)).await;
            if body["required"] != true {
                assert!(nothing.status != 422, "{name}: {}", nothing.text);
                optional.push(operation.path);
            }
        }
    }
    optional.sort_unstable();
    let wanted = [
        "/agents/{id}/keys",
        "/calendar/token",
        "/runs/{id}/cancel",
        "/runs/{id}/retry",
        "/tasks/{id}/cancel",
        "/tasks/{id}/pause",
        "/tasks/{id}/resume",
        "/tasks/{id}/run_now",
    ];
    assert_eq!(optional, wanted);
}

#[tokio::test]
async fn a_post_names_the_idempotency_key_that_it_takes() {
    let api = TestApi::new().await;

    for operation in operations(&api).await {
        let takes = operation.method == "post"
            && !["/auth/token", "/pipelines/validate", "/schedules/preview"]
                .contains(&operation.path.as_str());
        let key = operation.header("Idempotency-Key");
        assert_eq!(key.is_some(), takes, "{}", operation.name);
        if let Some(key) = key {
            assert_eq!(
                (&key["required"], &key["schema"]["maxLength"]),
                (&json!(false), &json!(255))
            );
            assert!(operation.refuses_with(409), "{}", operation.name);
        }
    }
}

#[tokio::test]
async fn what_takes_if_match_says_so_and_refuses_another_version() {
    let api = TestApi::new().await;
    let ics = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTART;VALUE=DATE:20260303\r\n\
               END:VEVENT\r\nEND:VCALENDAR\r\n";
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    api.post("/calendars", json!({"name": "t", "ics": ics})).await.expect(201);
    let mut named = Vec::new();

    for operation in operations(&api).await {
        let mut request = operation.request_about("t", ADMIN_KEY);
        if operation.header("If-Match").is_none() {
            continue;
        }
        let (form, body) = match operation.name.as_str() {
            "PUT /calendars/{name}" => ("text/calendar", ics.to_owned()),
            "POST /calendars" => ("application/json", json!({"name": "t", "ics": ics}).to_string()),
            "POST /tasks/{id}/snooze" => {
                ("application/json", json!({"delay_seconds": 1}).to_string())
            }
            "POST /tasks/{id}/backfill" => {
                let range = json!({"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"});
                ("application/json", range.to_string())
            }
            _ => ("application/json", "{}".to_owned()),
        };
        *request.body_mut() = body.into();
        let request = with(with(request, "content-type", form), "if-match", "\"999\"");
        let reply = send(&api, &operation, request).await;
        assert_eq!(reply.status, 412, "{}: {}", operation.name, reply.text);
        named.push(operation.name);
    }

    named.sort_unstable();
    let wanted = [
        "DELETE /calendars/{name}",
        "DELETE /tasks/{id}",
        "PATCH /tasks/{id}",
        "POST /calendars",
        "POST /tasks/{id}/backfill",
        "POST /tasks/{id}/cancel",
        "POST /tasks/{id}/pause",
        "POST /tasks/{id}/resume",
        "POST /tasks/{id}/run_now",
        "POST /tasks/{id}/snooze",
        "PUT /calendars/{name}",
    ];
    assert_eq!(named, wanted);
}
