//! What became of a task's times: explained, made up for, looked at before a change.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::harness::{ADMIN_KEY, TestApi, start, task_with};

/// An hourly task in Chisinau (+02:00), made at 08:00Z; six hours later its scheduler has seen three
/// of its times.
async fn hourly(api: &TestApi) {
    let declared = json!({"name": "t", "schedule_kind": "cron", "schedule_expr": "0 * * * *",
                          "timezone": "Europe/Chisinau"});
    api.post("/tasks", task_with(declared)).await.expect(201);
    let task: uuid::Uuid =
        sqlx::query_scalar("select id from task").fetch_one(&api.db.pool).await.unwrap();
    api.clock.set(start() + TimeDelta::hours(6) + TimeDelta::minutes(30));
    for (hour, disposition, reason) in
        [(9, "fired", None), (10, "skipped_overlap", Some("the previous run had not ended"))]
    {
        sqlx::query("insert into occurrence (task_id, nominal_at, disposition, reason, run_id, revision, decided_at)
                     values ($1, $2, $3, $4, $5, 1, now())")
            .bind(task)
            .bind(at(hour))
            .bind(disposition)
            .bind(reason)
            .bind((disposition == "fired").then(uuid::Uuid::now_v7))
            .execute(&api.db.pool)
            .await
            .unwrap();
    }
    sqlx::query("insert into occurrence (task_id, nominal_at, disposition, revision, until_at, count, decided_at)
                 values ($1, $2, 'skipped_too_old', 1, $3, 3, now())")
        .bind(task)
        .bind(at(11))
        .bind(at(13))
        .execute(&api.db.pool)
        .await
        .unwrap();
    sqlx::query("update task set cursor_at = $1, next_fire_at = $2")
        .bind(at(13))
        .bind(at(14))
        .execute(&api.db.pool)
        .await
        .unwrap();
}

fn at(hour: u32) -> DateTime<Utc> {
    format!("2026-03-02T{hour:02}:00:00Z").parse().unwrap()
}

async fn verdict(api: &TestApi, when: &str) -> (String, String) {
    let told = api.get(&format!("/tasks/t/explain?at={when}")).await.expect(200);
    (told.str("/verdict"), told.str("/answer"))
}

#[tokio::test]
async fn every_kind_of_time_is_explained_in_words() {
    let api = TestApi::new().await;
    hourly(&api).await;

    for (when, wanted, says) in [
        ("2026-03-02T09:00:00Z", "fired", "It ran as run "),
        // The same time on the task's wall clock.
        ("2026-03-02T11:00", "fired", "It ran as run "),
        ("2026-03-02T10:00:00Z", "skipped_overlap", "the previous run had not ended"),
        ("2026-03-02T12:00:00Z", "skipped_too_old", "3 times from 2026-03-02T13:00:00+02:00"),
        (
            "2026-03-02T12:20:00Z",
            "not_due",
            "2026-03-02T14:00:00+02:00 and 2026-03-02T15:00:00+02:00",
        ),
        ("2026-03-02T14:00:00Z", "undecided", "30 min ago and no scheduler has dealt with it"),
        ("2026-03-02T15:00:00Z", "planned", "It is planned"),
        ("2026-03-01T15:00:00Z", "not_followed", "The task did not exist then"),
        ("2026-03-29T02:30", "not_due", "02:30 does not exist on 2026-03-29 in Europe/Chisinau"),
    ] {
        let (found, answer) = verdict(&api, when).await;
        assert_eq!(found, wanted, "{when}: {answer}");
        assert!(answer.contains(says), "{when}: {answer}");
    }
    let nonsense = api.get("/tasks/t/explain?at=yesterday").await.expect(400);
    assert_eq!(nonsense.str("/errors/0/parameter"), "at");
    api.get("/tasks/t/explain").await.expect(400);
}

#[tokio::test]
async fn a_pause_a_limit_and_an_exclusion_are_explained_before_they_happen() {
    let api = TestApi::new().await;
    let declared = json!({"name": "t", "schedule_kind": "cron", "schedule_expr": "0 * * * *",
                          "max_fires": 5, "exclude": ["2026-03-03"]});
    api.post("/tasks", task_with(declared)).await.expect(201);

    assert_eq!(verdict(&api, "2026-03-02T13:00").await.0, "planned");
    let (limit, answer) = verdict(&api, "2026-03-02T14:00").await;
    assert_eq!(limit, "not_followed", "{answer}");
    assert!(answer.contains("max_fires"), "{answer}");
    api.call("PATCH", "/tasks/t", ADMIN_KEY, json!({"max_fires": null})).await.expect(200);
    let (excluded, answer) = verdict(&api, "2026-03-03T14:00").await;
    assert_eq!(excluded, "skipped_excluded", "{answer}");
    api.post("/tasks/t/pause", json!({"reason": "holidays"})).await.expect(200);
    let (paused, answer) = verdict(&api, "2026-03-02T14:00").await;
    assert_eq!(paused, "not_followed");
    assert!(answer.contains("by admin (holidays)"), "{answer}");
}

#[tokio::test]
async fn a_backfill_makes_runs_for_what_did_not_run_and_says_so_in_the_ledger() {
    let api = TestApi::new().await;
    hourly(&api).await;
    let range = json!({"from": at(8), "to": at(13), "dry_run": true});

    let shown = api.post("/tasks/t/backfill", range.clone()).await.expect(200);
    let actions: Vec<_> =
        shown.body["items"].as_array().unwrap().iter().map(|i| i["action"].as_str()).collect();
    assert_eq!(shown.body["runs"], 4);
    // 08:00 has no row: it was before the task's first look, and the schedule names it.
    let (run, leave) = (Some("run"), Some("leave"));
    assert_eq!(actions, [run, leave, run, run, run]);
    assert_eq!(api.get("/runs").await.body["items"], json!([]));

    let done =
        api.post("/tasks/t/backfill", json!({"from": at(9), "to": at(13)})).await.expect(202);
    assert_eq!(done.body["runs"], 3);
    let runs = api.get("/runs?trigger=backfill").await;
    assert_eq!(runs.body["items"].as_array().unwrap().len(), 3);
    assert_eq!(runs.body["items"][0]["waits_for"], "catch_up");
    let ledger =
        api.get("/tasks/t/occurrences?from=2026-03-02T08:00:00Z&to=2026-03-02T14:00:00Z").await;
    let rows: Vec<_> = ledger.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["nominal_at"].as_str().unwrap()[11..13].to_owned(),
                row["disposition"].as_str().unwrap(),
            )
        })
        .collect();
    let wanted = [
        ("09", "fired"),
        ("10", "backfilled"),
        ("11", "backfilled"),
        ("12", "backfilled"),
        ("13", "skipped_too_old"),
    ];
    assert_eq!(rows, wanted.map(|(hour, word)| (hour.to_owned(), word)));

    let again =
        api.post("/tasks/t/backfill", json!({"from": at(9), "to": at(13)})).await.expect(202);
    assert_eq!(again.body["runs"], 0);
    api.post("/tasks/t/backfill", json!({"from": at(9), "to": at(20)})).await.expect(422);
    api.post("/tasks/t/backfill", json!({"from": at(9), "to": at(9)})).await.expect(422);
}

#[tokio::test]
async fn a_resume_leaves_to_the_scheduler_what_the_policy_makes_up_for() {
    for (policy, body, cursor, skipped) in [
        (json!({"catch_up": "none"}), json!({}), "10:20", 2),
        (json!({"catch_up": "latest", "catch_up_window_seconds": 7200}), json!({}), "09:59", 1),
        (json!({"catch_up": "latest", "catch_up_window_seconds": 600}), json!({}), "10:20", 2),
        (json!({"catch_up": "all", "catch_up_window_seconds": 86_400}), json!({}), "08:00", 0),
        (json!({"catch_up": "all"}), json!({"skip_missed": true}), "10:20", 2),
    ] {
        let api = TestApi::new().await;
        let declared = json!({"name": "t", "schedule_kind": "cron", "schedule_expr": "0 * * * *",
                              "policy": policy});
        api.post("/tasks", task_with(declared)).await.expect(201);
        api.post("/tasks/t/pause", json!({"reason": "a look"})).await.expect(200);
        api.clock.set(start() + TimeDelta::minutes(140));
        api.post("/tasks/t/resume", body.clone()).await.expect(200);

        let found: String =
            sqlx::query_scalar("select to_char(cursor_at at time zone 'UTC', 'HH24:MI') from task")
                .fetch_one(&api.db.pool)
                .await
                .unwrap();
        let rows: Option<i64> = sqlx::query_scalar(
            "select sum(count) from occurrence where disposition = 'skipped_paused'
             and reason like 'the task was paused by admin from 2026-03-02T08:00:00Z on: a look'",
        )
        .fetch_one(&api.db.pool)
        .await
        .unwrap();
        assert_eq!((found.as_str(), rows.unwrap_or(0)), (cursor, skipped), "{policy} {body}");
    }
}

#[tokio::test]
async fn a_dry_run_of_a_change_shows_which_fires_move_and_changes_nothing() {
    let api = TestApi::new().await;
    let declared = json!({"name": "t", "schedule_kind": "cron", "schedule_expr": "0 8,20 * * *"});
    api.post("/tasks", task_with(declared)).await.expect(201);
    let patch = json!({"schedule_expr": "0 8,21 * * *"});

    let shown = api.call("PATCH", "/tasks/t?dry_run=true", ADMIN_KEY, patch).await.expect(200);

    let first = |list: &str| shown.body["fires"][list][0].as_str().unwrap_or_default().to_owned();
    assert_eq!(shown.body["changed"], json!(["schedule_expr"]));
    assert_eq!(first("removed"), "2026-03-02T20:00:00Z");
    assert_eq!(first("added"), "2026-03-02T21:00:00Z");
    assert_eq!(first("kept"), "2026-03-02T08:00:00Z");
    let still = api.get("/tasks/t").await;
    assert_eq!(
        (still.str("/schedule_expr"), &still.body["revision"]),
        ("0 8,20 * * *".to_owned(), &json!(1))
    );
    let wrong = api
        .call("PATCH", "/tasks/t?dry_run=true", ADMIN_KEY, json!({"schedule_expr": "61 * * * *"}))
        .await
        .expect(422);
    assert_eq!(wrong.pointers(), ["/schedule_expr"]);
}

/// What the schedule itself leaves out has come and gone without a fire: it is said to be so before the
/// ledger knows it, and stays so when the task is paused, resumed and canceled.
#[tokio::test]
async fn an_excluded_time_that_has_passed_was_excluded_whatever_becomes_of_the_task() {
    let api = TestApi::new().await;
    let declared = json!({"name": "t", "schedule_kind": "cron", "schedule_expr": "0 * * * *",
                          "policy": {"catch_up": "none"}, "exclude": ["2026-03-02"]});
    api.post("/tasks", task_with(declared)).await.expect(201);
    api.clock.set(at(10) + TimeDelta::minutes(30));

    let (told, answer) = verdict(&api, "2026-03-02T10:00").await;
    assert_eq!(told, "skipped_excluded");
    assert_eq!(answer, "It did not run: 2026-03-02 is in exclude.");
    let shown = occurrences(&api).await;
    let excluded = |hour: u32, count: i64| (at(hour), "skipped_excluded".to_owned(), count);
    assert_eq!(shown, [excluded(9, 1), excluded(10, 1)]);

    api.post("/tasks/t/pause", json!({"reason": "a look"})).await.expect(200);
    api.clock.set(at(12) + TimeDelta::minutes(30));
    assert_eq!(verdict(&api, "2026-03-02T12:00").await.0, "skipped_excluded");
    api.post("/tasks/t/resume", json!({})).await.expect(200);
    assert_eq!(occurrences(&api).await, [excluded(9, 4)]);

    api.clock.set(at(13) + TimeDelta::minutes(30));
    let id = api.get("/tasks/t").await.str("/id");
    api.call("DELETE", "/tasks/t", ADMIN_KEY, json!(null)).await.expect(204);
    let last = api.get(&format!("/tasks/{id}/explain?at=2026-03-02T13:00:00Z")).await.expect(200);
    assert_eq!(last.str("/verdict"), "skipped_excluded");
    assert_eq!(last.body["occurrence"]["nominal_at"], "2026-03-02T13:00:00Z");
}

/// The ledger of the 2nd of March, and what will be in it.
async fn occurrences(api: &TestApi) -> Vec<(DateTime<Utc>, String, i64)> {
    let day = "from=2026-03-02T00:00:00Z&to=2026-03-03T00:00:00Z";
    let shown = api.get(&format!("/tasks/t/occurrences?{day}")).await.expect(200);
    let items = shown.body["items"].as_array().unwrap().iter();
    items
        .map(|item| {
            (
                item["nominal_at"].as_str().unwrap().parse().unwrap(),
                item["disposition"].as_str().unwrap().to_owned(),
                item["count"].as_i64().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_snooze_shows_in_what_is_planned() {
    let api = TestApi::new().await;
    let declared = json!({"name": "t", "schedule_kind": "cron", "schedule_expr": "0 9-13 * * *"});
    api.post("/tasks", task_with(declared)).await.expect(201);
    api.post("/tasks/t/snooze", json!({"until": "2026-03-02T11:15:00Z"})).await.expect(200);

    let planned = |hour: u32| (at(hour), "planned".to_owned(), 1);
    assert_eq!(occurrences(&api).await, [planned(11), planned(12), planned(13)]);
    let shown = api.get("/tasks/t/occurrences").await;
    let reason = shown.str("/items/0/reason");
    assert!(reason.contains("snoozed until 2026-03-02T11:15:00+00:00"), "{reason}");
    let feed = api.get("/tasks/t.ics?days=1").await.expect(200).text;
    let starts: Vec<_> = feed.lines().filter(|line| line.starts_with("DTSTART")).take(3).collect();
    assert_eq!(
        starts,
        ["DTSTART:20260302T111500Z", "DTSTART:20260302T120000Z", "DTSTART:20260302T130000Z"]
    );
}
