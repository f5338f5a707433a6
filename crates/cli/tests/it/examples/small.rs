//! The examples that need nothing but themselves.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::System;

const FRIDAY: &str = "2026-03-27T12:01:00Z";

async fn run_now(system: &System, name: &str, params: &[&str]) -> Value {
    let mut args = vec!["task", "run", name, "--watch"];
    for param in params {
        args.extend(["--param", param]);
    }
    system.say(&args).await;
    system.runs(1).await.remove(0)
}

#[tokio::test]
async fn hello_greets_three_times_and_is_completed() {
    let system = System::at(FRIDAY).await;
    system.apply("hello", json!({"name": "Ada"})).await;

    for count in 1..=3 {
        system.app.clock.advance(TimeDelta::seconds(10));
        let run = system.runs(count).await.remove(0);
        let said = format!("Hello Ada, it is 14:01:{count}0.");
        assert_eq!((&run["status"], &run["trigger"]), (&json!("succeeded"), &json!("schedule")));
        assert_eq!(run["output"], json!({"number": count, "text": said}));
    }

    assert_eq!(system.get("tasks/hello").await["status"], "completed");
    system.end().await;
}

#[tokio::test]
async fn a_page_is_watched_and_only_a_change_is_told() {
    let system = System::at(FRIDAY).await;
    system.apply("watch-a-page", json!({})).await;
    let here = format!("url={}", system.world.url("/page"));
    let gone = format!("url={}", system.world.url("/gone"));
    let mut seen = Vec::new();

    for (page, url) in [("one", &here), ("one", &here), ("one", &gone), ("two", &here)] {
        system.world.write_page(page);
        system.app.clock.advance(TimeDelta::seconds(1));
        let run = run_now(&system, "watch-a-page", &[url]).await;
        let told = run["steps"].as_array().unwrap().iter().find(|step| step["id"] == "tell");
        let output = &run["output"];
        seen.push((
            output["reached"].as_bool().unwrap(),
            output["changed"].as_bool().unwrap(),
            told.unwrap()["status"] == "succeeded",
        ));
    }

    let (quiet, unreached) = ((true, false, false), (false, false, false));
    assert_eq!(seen, [quiet, quiet, unreached, (true, true, true)]);
    system.end().await;
}

#[tokio::test]
async fn an_event_is_reacted_to_with_what_it_carries() {
    let system = System::at(FRIDAY).await;
    system.apply("react-to-event", json!({})).await;
    let mut came = Vec::new();

    for (count, topic, payload) in [
        (1, "order.paid", r#"{"number": 17, "total": 250, "currency": "EUR"}"#),
        (2, "order.paid", r#"{"number": 18, "total": 20}"#),
        (3, "order.canceled", r#"{"number": 17}"#),
    ] {
        system.app.clock.advance(TimeDelta::seconds(1));
        system.say(&["event", "publish", topic, payload]).await;
        let run = system.runs(count).await.remove(0);
        assert_eq!((&run["status"], &run["trigger"]), (&json!("succeeded"), &json!("event")));
        came.push(run["output"].clone());
    }

    assert_eq!(
        came,
        [
            json!({"text": "Order 17 is paid.", "is_large": true}),
            json!({"text": "Order 18 is paid.", "is_large": false}),
            json!({"text": "Order 17 is canceled.", "is_large": false}),
        ]
    );
    system.end().await;
}

#[tokio::test]
async fn the_report_is_made_on_friday_at_five_in_its_zone() {
    let system = System::at(FRIDAY).await;
    system.apply("cron-report", json!({})).await;

    system.app.clock.set("2026-03-27T15:00:00Z".parse().unwrap());
    let run = system.runs(1).await.remove(0);

    assert_eq!(
        (&run["status"], &run["nominal_at"]),
        (&json!("succeeded"), &json!("2026-03-27T15:00:00Z"))
    );
    let text = "| project | hours |\n|---|---|\n| orchestrator | 21.5 |\n| garden | 4 |\n\
                | accordion | none |\n| all | 25.5 |";
    assert_eq!(run["output"], json!({"title": "Week until 27 March 2026", "text": text}));
    system.end().await;
}
