//! Named calendars: uploading them, and tasks that rest on their dates.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, TestApi, request, task_with};

/// Two holidays near the clock of the tests, one of them every year.
const HOLIDAYS: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\n\
    BEGIN:VEVENT\r\nUID:1\r\nSUMMARY:Mărțișor\r\nDTSTART;VALUE=DATE:20260303\r\nEND:VEVENT\r\n\
    BEGIN:VEVENT\r\nUID:2\r\nSUMMARY:Women's Day\r\nDTSTART;VALUE=DATE:20200308\r\n\
    RRULE:FREQ=YEARLY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

fn put(name: &str, key: &str, ics: impl Into<Body>) -> Request<Body> {
    let mut request = request("PUT", &format!("/calendars/{name}"), key, &Value::Null);
    request.headers_mut().insert("content-type", "text/calendar".parse().unwrap());
    *request.body_mut() = ics.into();
    request
}

async fn with_holidays() -> TestApi {
    let api = TestApi::new().await;
    api.send(put("holidays", ADMIN_KEY, HOLIDAYS)).await.expect(201);
    api
}

fn resting() -> Value {
    task_with(json!({"name": "t", "exclude": ["2026-03-05", "calendar:holidays"]}))
}

async fn planned(api: &TestApi) -> Vec<String> {
    let shown = api.get("/tasks/t/occurrences?to=2026-03-10T00:00:00Z").await.expect(200);
    let items = shown.body["items"].as_array().unwrap().iter();
    items.map(|item| item["nominal_at"].as_str().unwrap()[8..10].to_owned()).collect()
}

#[tokio::test]
async fn a_calendar_is_made_shown_replaced_and_deleted() {
    let api = TestApi::new().await;

    let made = api.send(put("holidays", ADMIN_KEY, HOLIDAYS)).await.expect(201);
    let again = api.send(put("holidays", ADMIN_KEY, HOLIDAYS)).await.expect(200);
    let shown = api.get("/calendars/holidays").await.expect(200);
    let dates = api.get("/calendars/holidays/dates?from=2026-03-01&to=2026-03-31").await;
    let mut file = request("GET", "/calendars/holidays", ADMIN_KEY, &Value::Null);
    file.headers_mut().insert("accept", "text/calendar, */*;q=0.1".parse().unwrap());
    let file = api.send(file).await.expect(200);

    assert_eq!(made.header("location"), "/calendars/holidays");
    assert_eq!((made.header("etag"), again.header("etag")), ("\"1\"", "\"2\""));
    assert_eq!(shown.body, again.body);
    // Every 8 March from 2021 to 2055, and the one day.
    let told = [&made.body["events"], &made.body["dates"], &made.body["used_by"]];
    assert_eq!(told, [&json!(2), &json!(36), &json!([])]);
    assert_eq!((made.str("/first"), made.str("/last")), ("2021-03-08".into(), "2055-03-08".into()));
    assert_eq!(made.str("/created_by"), "admin");
    assert_eq!(
        dates.body["items"],
        json!([{"date": "2026-03-03", "name": "Mărțișor"}, {"date": "2026-03-08", "name": "Women's Day"}])
    );
    assert_eq!(
        (&file.text[..], file.header("content-type")),
        (HOLIDAYS, "text/calendar; charset=utf-8")
    );
    let list = api.get("/calendars").await.expect(200);
    assert_eq!(list.body["items"], json!([shown.body]));

    api.call("DELETE", "/calendars/holidays", ADMIN_KEY, Value::Null).await.expect(204);
    api.get("/calendars/holidays").await.expect(404);
    let audit = api.get("/audit?object_kind=calendar").await.expect(200);
    let actions: Vec<_> =
        audit.body["items"].as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["calendar.delete", "calendar.update", "calendar.create"]);
}

#[tokio::test]
async fn a_task_rests_on_the_dates_of_its_calendar_and_says_why() {
    let api = with_holidays().await;

    let made = api.post("/tasks", resting()).await.expect(201);
    let preview = json!({"schedule_kind": "cron", "schedule_expr": "30 8 * * *", "count": 2,
                         "exclude": ["calendar:holidays"]});
    let preview = api.post("/schedules/preview", preview).await.expect(200);

    assert!(made.str("/summary").ends_with("not on days of calendar holidays"), "{}", made.text);
    assert_eq!(planned(&api).await, ["02", "04", "06", "07", "09"]);
    assert_eq!(
        preview.str("/fires/1/note"),
        "Before this: 2026-03-03 is in calendar holidays (Mărțișor)"
    );
    let shown = api.get("/calendars/holidays").await.expect(200);
    assert_eq!(shown.body["used_by"], json!([{"id": made.str("/id"), "name": "t"}]));
}

#[tokio::test]
async fn a_calendar_that_is_not_there_is_refused_with_the_nearest_name() {
    let api = with_holidays().await;
    let ann = api.agent("ann", &["tasks:read", "tasks:write"]).await;
    let entry = json!({"exclude": ["2026-12-25", "calendar:holiday"]});

    let task = api.post("/tasks", task_with(entry.clone())).await.expect(422);
    api.post("/tasks", resting()).await.expect(201);
    let patch = api.call("PATCH", "/tasks/t", ADMIN_KEY, entry).await.expect(422);
    let preview = json!({"schedule_kind": "cron", "schedule_expr": "30 8 * * *",
                         "exclude": ["calendar:holiday"]});
    let preview = api.post("/schedules/preview", preview).await.expect(422);
    let others = api.call("POST", "/tasks", &ann, resting()).await.expect(422);

    assert_eq!((task.pointers(), patch.pointers()), (vec!["/exclude/1"], vec!["/exclude/1"]));
    assert_eq!(preview.pointers(), ["/exclude/0"]);
    for said in [&task, &patch, &preview] {
        assert!(said.text.contains("did you mean \\\"holidays\\\"?"), "{}", said.text);
    }
    assert_eq!(others.pointers(), ["/exclude/1"], "calendars belong to one agent");
}

#[tokio::test]
async fn a_replaced_calendar_is_what_the_schedule_follows_from_then_on() {
    let api = with_holidays().await;
    api.post("/tasks", resting()).await.expect(201);

    let moved = HOLIDAYS.replace("20260303", "20260304");
    api.send(put("holidays", ADMIN_KEY, moved)).await.expect(200);

    assert_eq!(planned(&api).await, ["02", "03", "06", "07", "09"]);
    let (epoch, due): (i32, chrono::DateTime<chrono::Utc>) =
        sqlx::query_as("select calendar_epoch, next_fire_at from task")
            .fetch_one(&api.db.pool)
            .await
            .unwrap();
    assert_eq!((epoch, due), (1, crate::harness::start()), "a scheduler looks at once");
    assert_eq!(api.get("/tasks/t").await.body["version"], 1, "the task itself is as it was");

    // Paused, snoozed or never due: counted on, and not looked at before its time.
    api.post("/tasks/t/pause", json!({})).await.expect(200);
    api.send(put("holidays", ADMIN_KEY, HOLIDAYS)).await.expect(200);
    let resumed = api.post("/tasks/t/resume", json!({})).await.expect(200);
    assert_eq!(resumed.str("/next_fire_at"), "2026-03-02T08:30:00Z");
    let snooze = json!({"until": "2026-03-02T12:00:00Z"});
    api.post("/tasks/t/snooze", snooze).await.expect(200);
    api.send(put("holidays", ADMIN_KEY, HOLIDAYS)).await.expect(200);
    let task = api.get("/tasks/t").await.expect(200);
    assert_eq!(task.str("/next_fire_at"), "2026-03-02T12:00:00Z");
}

#[tokio::test]
async fn a_calendar_that_tasks_name_is_not_deleted() {
    let api = with_holidays().await;
    api.post("/tasks", resting()).await.expect(201);
    let delete = || api.call("DELETE", "/calendars/holidays", ADMIN_KEY, Value::Null);

    let refused = delete().await.expect(409);
    api.call("PATCH", "/tasks/t", ADMIN_KEY, json!({"exclude": []})).await.expect(200);
    api.call("PATCH", "/tasks/t", ADMIN_KEY, json!({"exclude": ["calendar:holidays"]}))
        .await
        .expect(200);
    delete().await.expect(409);
    api.post("/tasks/t/cancel", json!({})).await.expect(200);
    delete().await.expect(204);

    assert!(refused.str("/detail").contains("in exclude: t;"), "{}", refused.text);
    let canceled = api.get("/tasks?status=canceled").await.expect(200);
    let summary = canceled.str("/items/0/summary");
    assert!(summary.ends_with("calendar holidays"), "can still be seen: {summary}");
}

#[tokio::test]
async fn calendars_of_others_are_seen_and_changed_by_an_admin_alone() {
    let api = with_holidays().await;
    let ann = api.agent("ann", &["tasks:read", "tasks:write"]).await;
    let reader = api.agent("reader", &["tasks:read"]).await;

    api.call("GET", "/calendars/holidays", &ann, Value::Null).await.expect(404);
    api.call("GET", "/calendars/holidays?agent=admin", &ann, Value::Null).await.expect(403);
    api.send(put("holidays", &ann, HOLIDAYS)).await.expect(201);
    api.send(put("holidays", &reader, HOLIDAYS)).await.expect(403);
    api.send(put("more?agent=ann", ADMIN_KEY, HOLIDAYS)).await.expect(201);

    let own = api.call("GET", "/calendars", &ann, Value::Null).await.expect(200);
    let all = api.get("/calendars").await.expect(200);
    let anns = api.get("/calendars?agent=ann").await.expect(200);
    let count = |reply: &Reply| reply.body["items"].as_array().unwrap().len();
    assert_eq!((count(&own), count(&all), count(&anns)), (2, 3, 2));
    api.call("DELETE", "/calendars/more?agent=ann", ADMIN_KEY, Value::Null).await.expect(204);
}

#[tokio::test]
async fn json_makes_the_same_calendar_once_for_an_idempotency_key() {
    let api = TestApi::new().await;
    let body = json!({"name": "holidays", "ics": HOLIDAYS});
    let send = |body: &Value| {
        let mut request = request("POST", "/calendars", ADMIN_KEY, body);
        request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        api.send(request)
    };

    let made = send(&body).await.expect(201);
    let again = send(&body).await.expect(201);
    let wrong = api.post("/calendars", json!({"name": "A B", "ics": HOLIDAYS})).await.expect(422);
    let empty = api.post("/calendars", json!({"name": "a", "ics": "x"})).await.expect(422);

    assert_eq!(again.body, made.body);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!((wrong.pointers(), empty.pointers()), (vec!["/name"], vec!["/ics"]));
}

#[tokio::test]
async fn a_file_that_is_no_calendar_is_refused_with_event_and_line() {
    let api = with_holidays().await;
    let broken = HOLIDAYS.replace("20260303", "2026-03-03").replace("FREQ=YEARLY", "FREQ=SECONDLY");

    let refused = api.send(put("holidays", ADMIN_KEY, broken)).await.expect(422);
    let latin =
        api.send(put("holidays", ADMIN_KEY, &b"BEGIN:VCALENDAR\n\xe9"[..])).await.expect(422);
    let nul = api.send(put("holidays", ADMIN_KEY, "BEGIN:VCALENDAR\n\0")).await.expect(422);
    let large = api.send(put("holidays", ADMIN_KEY, vec![b'x'; (1 << 20) + 1])).await.expect(413);
    let mut json = put("holidays", ADMIN_KEY, "{}");
    json.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let json = api.send(json).await.expect(415);
    let mut stale = put("holidays", ADMIN_KEY, HOLIDAYS);
    stale.headers_mut().insert("if-match", "\"7\"".parse().unwrap());
    api.send(stale).await.expect(412);
    api.send(put("No%20Slug", ADMIN_KEY, HOLIDAYS)).await.expect(404);

    let said = refused.str("/errors/0/message");
    assert!(said.starts_with("the event in line 4 (Mărțișor): line 7: DTSTART: "), "{said}");
    assert!(latin.text.contains("line 2: byte 16 of the file is no UTF-8"), "{}", latin.text);
    assert!(nul.text.contains("line 2: the character U+0000"), "{}", nul.text);
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(json.text.contains("send Content-Type: text/calendar"), "{}", json.text);
    assert_eq!(api.get("/calendars/holidays").await.body["version"], 1);
}
