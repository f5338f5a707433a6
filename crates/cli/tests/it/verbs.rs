//! Verbs against a whole system: API, scheduler, worker and its built-in tools.

use orchestrator_engine::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::system::{ADMIN_KEY, Place, Said, System, is_private, words};

const TASKS: &str = r#"
name: greeting
title: Greeting
schedule_kind: rrule
schedule_expr: FREQ=DAILY;BYHOUR=8;BYMINUTE=30;BYSECOND=0
timezone: Europe/Berlin
payload:
  params: {who: world}
  pipeline:
    - {id: greet, uses: core.echo, with: {text: "hello ${params.who}"}}
---
name: doomed
title: Doomed
schedule_kind: manual
max_retries: 0
payload:
  pipeline:
    - {id: first, uses: core.echo, with: {a: 1}}
    - {id: boom, uses: core.fail, with: {message: no luck}}
"#;

fn time(text: &Value) -> chrono::DateTime<chrono::Utc> {
    text.as_str().unwrap().parse().unwrap()
}

fn actions(outcomes: &Value) -> Vec<(&str, &str)> {
    let outcomes = outcomes.as_array().map_or(&[][..], Vec::as_slice);
    outcomes
        .iter()
        .filter_map(|one| Some((one["name"].as_str()?, one["action"].as_str()?)))
        .collect()
}

/// Files become tasks; the same files again change nothing; a changed file changes what differs; what
/// is in no file is canceled on demand.
#[tokio::test]
async fn apply_makes_tasks_be_as_files_declare_them() {
    let system = System::start().await;
    let place = &system.place;
    place.file("tasks/all.yaml", TASKS);
    let apply =
        |more: &[&str]| place.call(&[&["apply", "-f", "tasks", "-o", "json"], more].concat());

    let dry = apply(&["--dry-run"]).json();
    let none = place.call(&["task", "list"]).expect(0);
    let made = apply(&[]).json();
    let again = apply(&[]).json();
    place.file("tasks/all.yaml", &TASKS.replace("hello", "good morning").replace("=8", "=7"));
    let differs = place.call(&["apply", "-f", "tasks", "--dry-run"]).expect(0);
    let changed = apply(&[]).json();
    let as_now = place.call(&["task", "show", "greeting", "-o", "json"]).json();

    assert_eq!(actions(&dry), [("greeting", "would_create"), ("doomed", "would_create")]);
    assert_eq!(none, "nothing\n");
    assert_eq!(actions(&made), [("greeting", "created"), ("doomed", "created")]);
    assert_eq!(actions(&again), [("greeting", "unchanged"), ("doomed", "unchanged")]);
    let change =
        "payload.pipeline[greet].with.text: hello ${params.who} → good morning ${params.who}";
    assert!(differs.contains(change), "{differs}");
    assert!(differs.contains("BYHOUR=8;BYMINUTE=30;BYSECOND=0 → FREQ=DAILY;BYHOUR=7"), "{differs}");
    assert_eq!(actions(&changed), [("greeting", "updated"), ("doomed", "unchanged")]);
    assert_eq!(as_now["revision"], 2);
    assert_eq!(as_now["schedule_expr"], "FREQ=DAILY;BYHOUR=7;BYMINUTE=30;BYSECOND=0");

    place.file("tasks/all.yaml", TASKS.split("---").next().unwrap());
    let unasked = apply(&["--prune"]).refused(2);
    let pruned = apply(&["--prune", "--yes"]).json();
    let left = place.call(&["task", "list", "-o", "json"]).json();

    assert!(unasked.contains("--yes"), "{unasked}");
    assert_eq!(actions(&pruned), [("greeting", "updated"), ("doomed", "canceled")]);
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn while_anything_is_wrong_nothing_is_applied_and_each_place_is_named() {
    let system = System::start().await;
    let place = &system.place;
    let wrong = TASKS
        .replace("uses: core.fail", "uses: core.fale")
        .replace("Europe/Berlin", "Europe/Berln")
        .replace("title: Doomed", "titel: Doomed");
    place.file("all.yaml", &wrong);

    let told = place.call(&["apply", "-f", "all.yaml"]).refused(1);

    for said in [
        "all.yaml (1): greeting is wrong",
        "timezone: ",
        "all.yaml (2): doomed is wrong",
        "payload.pipeline[boom].uses: ",
        "titel",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert_eq!(place.call(&["task", "list"]).expect(0), "nothing\n");
}

/// What `task show` prints as YAML is a declaration; a field left out goes back to its default.
#[tokio::test]
async fn what_is_shown_can_be_applied_and_what_is_left_out_goes_back_to_its_default() {
    let system = System::start().await;
    let place = &system.place;
    place.call_with_input(&["apply", "-f", "-"], TASKS).expect(0);

    let shown = place.call(&["task", "show", "doomed", "--output", "yaml"]).expect(0);
    let same = place.call_with_input(&["apply", "-f", "-"], &shown).expect(0);
    let shorter = TASKS.replace("max_retries: 0\n", "");
    let differs = place.call_with_input(&["apply", "-f", "-"], &shorter).expect(0);

    assert!(same.contains("1 unchanged"), "{same}");
    assert!(differs.contains("max_retries: 0 → 3"), "{differs}");
    assert!(differs.contains("1 updated, 1 unchanged"), "{differs}");
}

#[tokio::test]
async fn a_run_is_watched_to_its_end_and_its_exit_code_says_how_it_went() {
    let system = System::start().await;
    let place = &system.place;
    place.call_with_input(&["apply", "-f", "-"], TASKS).expect(0);

    let well = place.call(&["task", "run", "greeting", "--watch", "--param", "who=Ada"]).expect(0);
    let badly = place.call(&["task", "run", "doomed", "--watch"]).expect(1);
    let whole = place.call(&["run", "watch", "doomed", "-o", "json"]);
    let shown = place.call(&["run", "show", "doomed"]).expect(0);
    let refused = place.call(&["task", "run", "greeting", "--param", "whom=Ada"]).refused(1);

    assert!(well.contains("step succeeded  greet  core.echo"), "{well}");
    assert!(well.contains("run  succeeded after") && well.contains("hello Ada"), "{well}");
    assert!(badly.contains("step failed     boom  core.fail"), "{badly}");
    assert!(badly.contains("run  failed after") && badly.contains("no luck"), "{badly}");
    assert_eq!(whole.code, 1);
    assert_eq!(whole.json()["status"], "failed");
    let steps: Vec<_> = words(&shown).into_iter().filter(|line| line.contains(&"1")).collect();
    assert!(
        steps.iter().any(|step| step.starts_with(&["first", "core.echo", "succeeded"])),
        "{shown}"
    );
    assert!(steps.iter().any(|step| step.starts_with(&["boom", "core.fail", "failed"])), "{shown}");
    assert!(refused.contains("params.whom"), "{refused}");

    let again = place.call(&["run", "retry", "doomed", "--watch"]).expect(1);
    let over = place.call(&["run", "cancel", "doomed"]).refused(1);
    let runs = place.call(&["run", "list", "--task", "doomed", "-o", "json"]).json();
    let id = runs["items"][0]["id"].as_str().unwrap();
    let by_part = place.call(&["run", "show", &id[id.len() - 8..], "-o", "json"]).json();

    assert!(again.contains("run  failed"), "{again}");
    assert!(over.contains("failed already"), "{over}");
    assert_eq!(runs["items"].as_array().unwrap().len(), 1, "a retry is the same run");
    assert_eq!(by_part["id"], id);
}

/// A call is a run of one step: programs read what the tool answered and nothing else, and a call that
/// fails says why.
#[tokio::test]
async fn a_tool_is_called_by_hand_and_its_exit_code_says_how_it_went() {
    let system = System::start().await;
    let place = &system.place;
    let call = |args: &[&str]| place.call(&[&["tool", "call"], args].concat());
    let object = r#"{"text": "1 + 1 = ${1 + 1}"}"#;
    place.file("input.json", object);

    let shown = call(&["core.echo", "-w", "text=hello", "-w", "days=[1,2]"]).expect(0);
    let fields = call(&["core.echo", "-w", "text=hello", "-w", "days=[1,2]", "-o", "json"]).json();
    let given = call(&["core.echo", "--with", object, "-o", "json"]).json();
    let read = call(&["core.echo", "--with-file", "input.json", "-o", "yaml"]).expect(0);
    let piped = ["tool", "call", "core.echo", "--with-file", "-", "-o", "json"];
    let piped = place.call_with_input(&piped, object).json();
    let failed = call(&["core.fail", "-w", "message=no luck"]).expect(1);
    let silent = call(&["core.fail", "-w", "message=no luck", "-o", "json"]);
    let wrong = call(&["core.echoo"]).refused(1);
    let long = call(&["core.echo", "--timeout", "52w"]).refused(1);
    call(&["core.echo", "--timeout", "7s"]).expect(0);
    let runs = place.call(&["run", "list", "-o", "json"]).json();
    let last = runs["items"][0]["id"].as_str().unwrap();
    let last = place.call(&["run", "show", last, "-o", "json"]).json();

    assert!(shown.contains("step succeeded  call  core.echo"), "{shown}");
    assert!(shown.contains("\"text\": \"hello\""), "{shown}");
    assert_eq!(fields, json!({"text": "hello", "days": [1, 2]}));
    assert_eq!(given, json!({"text": "1 + 1 = 2"}));
    assert_eq!((read.trim(), &piped), ("text: 1 + 1 = 2", &given));
    assert!(failed.contains("step failed     call  core.fail") && failed.contains("no luck"));
    assert_eq!((silent.code, &silent.out[..]), (1, ""));
    assert!(silent.err.contains("no luck") && silent.err.contains("(run "), "{silent:?}");
    assert!(wrong.contains("\n  uses: ") && wrong.contains("core.echo"), "{wrong}");
    assert!(long.contains("\n  timeout_seconds: must be 1 to"), "{long}");
    assert_eq!(last["steps"].as_array().unwrap().len(), 1);
    assert_eq!((&last["task_id"], &last["status"]), (&json!(null), &json!("succeeded")));
}

/// Many runs are counted, somebody is asked, and then it is done.
#[tokio::test]
async fn runs_that_match_are_retried_and_ended_after_somebody_was_asked() {
    let system = System::start().await;
    let place = &system.place;
    place.call_with_input(&["apply", "-f", "-"], TASKS).expect(0);
    place.call(&["task", "run", "doomed", "--watch"]).expect(1);
    place.call(&["task", "run", "doomed", "--watch"]).expect(1);
    let retry = |more: &[&str]| {
        place.call(&[&["run", "retry", "--task", "doomed", "--failed"], more].concat())
    };

    let dry = retry(&["--dry-run", "-o", "json"]).json();
    let recent = retry(&["--from", "1h", "--dry-run", "-o", "json"]).json();
    let older = retry(&["--to", "1h", "--dry-run", "-o", "json"]).json();
    let listed = place.call(&["run", "list", "--from", "1h", "-o", "json"]).json();
    let unasked = retry(&[]).refused(2);
    let other = retry(&["--error-kind", "timeout", "--yes"]).expect(0);
    let done = retry(&["--yes", "-o", "json"]).json();
    let nothing = place.call(&["run", "cancel"]).refused(2);
    let both = place.call(&["run", "cancel", "doomed", "--all"]).refused(2);
    let ended = place.call(&["run", "cancel", "--from", "2100-01-01", "--yes"]).expect(0);

    assert_eq!((&dry["matched"], &dry["done"]), (&json!(2), &json!(0)));
    assert_eq!((&recent["matched"], &older["matched"]), (&json!(2), &json!(0)));
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(unasked.contains("retry 2 runs") && unasked.contains("--yes"), "{unasked}");
    assert!(other.contains("queued  0"), "{other}");
    assert_eq!((&done["done"], &done["more"]), (&json!(2), &json!(false)));
    assert!(nothing.contains("--all"), "{nothing}");
    assert!(both.contains("cannot be used with"), "{both}");
    assert!(ended.contains("canceled  0"), "{ended}");
}

#[tokio::test]
async fn a_task_is_paused_resumed_snoozed_and_canceled_and_says_when_it_is_next() {
    let system = System::start().await;
    let place = &system.place;
    place.call_with_input(&["apply", "-f", "-"], TASKS).expect(0);
    let json = |args: &[&str]| place.call(&[args, &["-o", "json"]].concat()).json();

    let paused = json(&["task", "pause", "greeting", "--reason", "holiday"]);
    let resumed = json(&["task", "resume", "greeting"]);
    let snoozed = json(&["task", "snooze", "greeting", "2d"]);
    let next = json(&["task", "next", "greeting", "-n", "2"]);
    let misspelt = place.call(&["task", "pause", "greting"]).refused(1);
    let canceled = json(&["task", "cancel", "greeting"]);
    let twice = place.call(&["task", "cancel", "greeting"]).refused(1);
    let near = place.call(&["task", "cancel", "greting"]).refused(1);
    let shown = json(&["task", "show", canceled["id"].as_str().unwrap()]);

    assert_eq!((&paused["status"], &paused["pause_reason"]), (&json!("paused"), &json!("holiday")));
    assert_eq!(resumed["status"], "active");
    assert_eq!(snoozed["next_fire_at"], snoozed["snoozed_until"]);
    assert_eq!(next["fires"].as_array().unwrap().len(), 2);
    assert_eq!(time(&next["fires"][0]["at"]), time(&snoozed["snoozed_until"]), "put off");
    assert!(time(&next["fires"][1]["at"]) > time(&snoozed["snoozed_until"]), "{next}");
    assert!(next["fires"][1]["local"].as_str().unwrap().contains("T08:30:00+0"), "{next}");
    assert!(misspelt.contains("did you mean greeting?"), "{misspelt}");
    assert_eq!(canceled["status"], "canceled");
    assert!(twice.contains("greeting is canceled already"), "{twice}");
    assert!(twice.contains(canceled["id"].as_str().unwrap()), "{twice}");
    assert!(near.contains("no task greting; `orchestrator task list`"), "{near}");
    assert_eq!(shown["status"], "canceled");
    assert!(!place.call(&["task", "list"]).expect(0).contains("greeting"));
    assert!(place.call(&["task", "list", "--all"]).expect(0).contains("greeting"));
}

/// Tasks without times of their own, one that is over, and one whose last times are put off.
#[tokio::test]
async fn what_makes_a_task_run_is_said_where_no_time_does() {
    let system = System::start().await;
    let place = &system.place;
    let task = |name: &str, schedule: &str| {
        let steps = "{pipeline: [{uses: core.echo, with: {a: 1}}]}";
        let text = format!("name: {name}\ntitle: {name}\n{schedule}\npayload: {steps}\n");
        place.call_with_input(&["apply", "-f", "-"], &text).expect(0);
    };
    let next = |name: &str| place.call(&["task", "next", name]).expect(0);
    task("asked", "schedule_kind: manual");
    task("told", "schedule_kind: event\nschedule_expr: mail.*");
    task("over", "schedule_kind: interval\nschedule_expr: PT1S\nmax_fires: 1");
    task("few", "schedule_kind: cron\nschedule_expr: 30 8 * * *\nmax_fires: 2");
    place.call(&["task", "snooze", "few", "36h"]).expect(0);

    let few = place.call(&["task", "next", "few", "-o", "json"]).json();
    place.call(&["task", "pause", "few"]).expect(0);
    let is_over = |said: &String| said.contains("completed");
    let over = std::iter::repeat_with(|| next("over")).take(400).find(is_over);
    let over = over.expect("it completes after a second");

    assert!(next("asked").contains("`orchestrator task run` makes it run"));
    assert!(next("told").contains("`orchestrator event publish`"));
    assert_eq!(over, "The task is completed: its schedule is over.\n");
    assert_eq!(few["fires"].as_array().unwrap().len(), 2, "one stands for two: {few}");
    assert_eq!(few["exhausted"], true);
    assert!(next("few").starts_with("The task is paused: its schedule is not followed"));
}

#[tokio::test]
async fn a_schedule_is_previewed_and_an_event_published_once_under_its_key() {
    let system = System::start().await;
    let place = &system.place;

    let cron = place
        .call(&[
            "schedule",
            "preview",
            "30 8 * * MON",
            "-z",
            "Europe/Berlin",
            "-n",
            "2",
            "--from",
            "2026-12-24 00:00",
        ])
        .expect(0);
    let once = place.call(&["schedule", "preview", "2020-01-01T00:00:00Z"]).expect(0);
    let wrong = place.call(&["schedule", "preview", "61 8 * * *"]).refused(1);
    let publish = || {
        place.call(&["event", "publish", "mail.arrived", r#"{"a": 1}"#, "--key", "k", "-o", "json"])
    };
    let (first, second) = (publish().json(), publish().json());
    let events = place.call(&["event", "list", "-o", "json"]).json();

    assert!(cron.contains("2026-12-28 08:30:00+01:00"), "{cron}");
    assert!(cron.contains("2027-01-04 08:30:00+01:00"), "{cron}");
    assert!(once.contains("It never fires."), "{once}");
    assert!(wrong.contains("schedule_expr: "), "{wrong}");
    assert_eq!(first["event_id"], second["event_id"]);
    assert_eq!(events["items"][0]["payload"], json!({"a": 1}));
}

#[tokio::test]
async fn an_agent_is_made_with_a_key_that_opens_no_more_than_its_scopes() {
    let system = System::start().await;
    let place = &system.place;
    place.call_with_input(&["apply", "-f", "-"], TASKS).expect(0);
    let url = place.call(&["doctor", "-o", "json"]).json();
    let url = url.as_array().unwrap().iter().find(|line| line["check"] == "server").unwrap();
    let url = url["says"].as_str().unwrap().split_whitespace().next().unwrap().to_owned();

    let key = place.call(&["agent", "create", "claude", "--scope", "tasks:read"]).expect(0);
    let theirs =
        Place::new().with("ORCHESTRATOR_URL", &url).with("ORCHESTRATOR_API_KEY", key.trim());
    let list = theirs.call(&["task", "list"]).expect(0);
    let event = theirs.call(&["event", "publish", "x.y"]).refused(1);
    let hint = &key[..8];
    place.call(&["agent", "key", "revoke", "claude", hint]).expect(0);
    let late = theirs.call(&["task", "list"]).refused(1);
    let stranger = Place::new().with("ORCHESTRATOR_URL", &url).call(&["task", "list"]).refused(1);
    let misspelt = place.call(&["agent", "disable", "claud"]).refused(1);
    place.call(&["agent", "disable", "claude"]).expect(0);
    let agents = place.call(&["agent", "list"]).expect(0);

    assert_eq!(key.lines().count(), 1, "the key alone");
    assert_eq!(list, "nothing\n", "others' tasks are not theirs");
    assert!(event.contains("events:publish"), "{event}");
    assert!(late.contains("orchestrator agent key create"), "{late}");
    assert!(stranger.contains("no key was shown"), "{stranger}");
    assert!(misspelt.contains("did you mean claude?"), "{misspelt}");
    assert!(
        words(&agents).iter().any(|line| line.starts_with(&["claude", "disabled"])),
        "{agents}"
    );
}

/// Before there is any agent, whoever has the database makes the first; it is recorded.
#[tokio::test]
async fn the_first_agent_is_made_straight_in_the_database() {
    let servers = orchestrator_testkit::TestServers::fresh().await;
    let place = Place::new()
        .with("DATABASE_URL", &servers.database_url)
        .with("ORCHESTRATOR_URL", "http://127.0.0.1:1");

    let key = place.call(&["agent", "create", "root", "--scope", "admin"]).expect(0);
    let twice = place.call(&["agent", "create", "root", "--scope", "admin"]).refused(1);
    let wrong = place.call(&["agent", "create", "x", "--scope", "tasks:raed"]).refused(2);
    let last = place.call(&["agent", "disable", "root"]).refused(1);
    let keys = place.call(&["agent", "key", "list", "root", "-o", "json"]).json();
    let recorded: i64 = sqlx::query_scalar("select count(*) from audit_log where agent_id is null")
        .fetch_one(&servers.pool)
        .await
        .unwrap();

    assert!(key.starts_with("orc_"), "{key}");
    assert!(twice.contains("already"), "{twice}");
    assert!(wrong.contains("tasks:read"), "{wrong}");
    assert!(last.contains("no agent with the scope admin"), "{last}");
    assert_eq!(keys["items"][0]["hint"], key[..8]);
    assert_eq!(recorded, 2, "the agent and its key");
}

#[tokio::test]
async fn doctor_finds_nothing_wrong_with_a_system_that_is_up() {
    let system = System::start().await;

    // Scheduler and worker are heard of a moment after they are up.
    let look = || system.place.call(&["doctor", "-o", "json"]);
    let is_well = |said: &Said| said.code == 0 && !said.out.contains("\"warn\"");
    let said = std::iter::repeat_with(look).take(200).find(is_well).expect("all is well at last");

    let checks: Vec<_> = said.out.lines().filter(|line| line.contains("\"status\"")).collect();
    assert!(checks.len() >= 9, "{said:?}");
    assert!(checks.iter().all(|line| line.contains("\"ok\"")), "{said:?}");
    assert!(is_private(&system.data_dir().join("admin.key")));
    assert_eq!(
        std::fs::read_to_string(system.data_dir().join("admin.key")).unwrap().trim(),
        ADMIN_KEY
    );
    system.servers.pool.close().await;
}

/// A file becomes a calendar, a task rests on it, and its planned runs are read from a feed's URL.
#[tokio::test]
async fn a_calendar_is_put_from_a_file_and_a_feed_is_a_url() {
    let system = System::start().await;
    let place = &system.place;
    let today = SystemClock.now().date_naive();
    let event = format!(
        "BEGIN:VEVENT\nSUMMARY:Fest\nDTSTART;VALUE=DATE:{}\nEND:VEVENT",
        today.format("%Y%m%d")
    );
    place.file("fest.ics", &format!("BEGIN:VCALENDAR\n{event}\nEND:VCALENDAR\n"));
    place.file(
        "broken.ics",
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART:x\nEND:VEVENT\nEND:VCALENDAR\n",
    );
    place.file(
        "all.yaml",
        &TASKS
            .split("---")
            .next()
            .unwrap()
            .replace("payload:", "exclude: [\"calendar:fest\"]\npayload:"),
    );

    let broken = place.call(&["calendar", "put", "fest", "broken.ics"]).refused(1);
    let put = place.call(&["calendar", "put", "fest", "fest.ics"]).expect(0);
    place.call(&["apply", "-f", "all.yaml"]).expect(0);
    let list = place.call(&["calendar", "list"]).expect(0);
    let dates = place.call(&["calendar", "dates", "fest"]).expect(0);
    let near = place.call(&["calendar", "show", "fesd"]).refused(1);
    let used = place.call(&["calendar", "delete", "fest"]).refused(1);
    let url = place.call(&["calendar", "feed", "create"]).expect(0);
    orchestrator_boot::install_crypto();
    let feed = reqwest::get(url.trim()).await.unwrap().text().await.unwrap();
    let tokens = place.call(&["calendar", "feed", "list", "-o", "json"]).json();
    let id = tokens["items"][0]["id"].as_str().unwrap();
    place.call(&["calendar", "feed", "revoke", id]).expect(0);
    let closed = reqwest::get(url.trim()).await.unwrap().status();

    assert!(broken.contains("line 3: DTSTART: \"x\" is no date"), "{broken}");
    assert!(words(&put).contains(&vec!["dates", "1"]), "{put}");
    assert_eq!(words(&list)[1][..5], ["fest", "1", &today.to_string(), &today.to_string(), "1"]);
    assert_eq!(words(&dates)[1][2], "Fest");
    assert!(near.contains("did you mean fest?"), "{near}");
    assert!(used.contains("in exclude: greeting"), "{used}");
    assert!(
        feed.starts_with("BEGIN:VCALENDAR\r\n") && feed.contains("SUMMARY:Greeting\r\n"),
        "{feed}"
    );
    assert_eq!(closed, 401);
}
