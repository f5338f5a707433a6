//! Lists in pages.

use serde_json::{Value, json};

use crate::harness::{TestApi, task, task_with};

fn titles(body: &Value) -> Vec<String> {
    let items = body["items"].as_array().unwrap();
    items.iter().map(|item| item["title"].as_str().unwrap().to_owned()).collect()
}

/// While somebody reads page by page, others add tasks: nothing is seen twice, nothing is missed.
#[tokio::test]
async fn pages_stay_what_they_are_while_tasks_are_added() {
    let api = TestApi::new().await;
    for n in 0..7 {
        api.clock.advance(chrono::TimeDelta::seconds(1));
        api.post("/tasks", task(&format!("t{n}"))).await.expect(201);
    }

    let mut seen = Vec::new();
    let mut path = "/tasks?limit=3".to_owned();
    loop {
        let page = api.get(&path).await.expect(200);
        seen.extend(titles(&page.body));
        api.clock.advance(chrono::TimeDelta::seconds(1));
        api.post("/tasks", task("new")).await.expect(201);
        match page.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("/tasks?limit=3&cursor={cursor}"),
            None => break,
        }
    }

    assert_eq!(seen, ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]);
}

#[tokio::test]
async fn a_list_is_narrowed_by_its_filters() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"title": "Morning 100%", "name": "am"}))).await.expect(201);
    let manual = json!({"title": "By hand", "schedule_kind": "manual", "schedule_expr": ""});
    api.post("/tasks", task_with(manual)).await.expect(201);
    api.post("/tasks/am/pause", json!({})).await.expect(200);

    for (query, expected) in [
        ("status=paused", vec!["Morning 100%"]),
        ("status=active", vec!["By hand"]),
        ("schedule_kind=manual", vec!["By hand"]),
        ("q=MORNING", vec!["Morning 100%"]),
        ("q=am", vec!["Morning 100%"]),
        ("q=0%25", vec!["Morning 100%"]),
        ("q=_", vec![]),
        ("created_by=admin&status=canceled", vec![]),
        ("created_by=nobody", vec![]),
    ] {
        let page = api.get(&format!("/tasks?{query}")).await.expect(200);
        assert_eq!(titles(&page.body), expected, "{query}");
    }
}

#[tokio::test]
async fn occurrences_come_in_pages_too() {
    let api = TestApi::new().await;
    api.post("/tasks", task_with(json!({"name": "t"}))).await.expect(201);
    let base = "/tasks/t/occurrences?from=2026-03-02T08:30:00Z&to=2026-03-07T08:30:00Z&limit=2";

    let mut seen = Vec::new();
    let mut path = base.to_owned();
    loop {
        let page = api.get(&path).await.expect(200);
        for item in page.body["items"].as_array().unwrap() {
            seen.push(item["nominal_at"].as_str().unwrap().to_owned());
        }
        match page.body["next_cursor"].as_str() {
            Some(cursor) => path = format!("{base}&cursor={cursor}"),
            None => break,
        }
    }

    let expected: Vec<_> = (2..=6).map(|day| format!("2026-03-0{day}T08:30:00Z")).collect();
    assert_eq!(seen, expected);
    let path = "/tasks/t/occurrences?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z";
    api.get(path).await.expect(400);
}
