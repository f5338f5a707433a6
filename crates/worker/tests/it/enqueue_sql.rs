//! `orchestrator.enqueue`: runs that other programs add in their own transactions, by SQL alone.

use orchestrator_engine::id::RunId;
use orchestrator_engine::store::{self, data_limit, invariant, queue};
use orchestrator_testkit::{FakeTools, TestApp, task};
use serde_json::{Value, json};
use sqlx::PgConnection;

const NOW: &str = "2026-03-01T08:00:00Z";

fn named(name: &str, fields: &Value) -> Value {
    let mut declared = task(
        "manual",
        "",
        &json!([{"id": "one", "uses": "test.echo", "with": {"of": "${params.who}"}}]),
    );
    declared["name"] = json!(name);
    declared["payload"]["params"] = json!({"who": "nobody"});
    for (field, value) in fields.as_object().expect("fields") {
        declared[field] = value.clone();
    }
    declared
}

/// What the call gives: an id, or `SQLSTATE message`.
async fn call(conn: &mut PgConnection, arguments: &str) -> Result<uuid::Uuid, String> {
    let query = format!("select orchestrator.enqueue({arguments})");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(conn).await.map_err(|error| {
        let error = error.into_database_error().expect("the database refuses");
        format!("{} {}", error.code().unwrap_or_default(), error.message())
    })
}

#[tokio::test]
async fn a_run_added_in_a_transaction_runs_when_that_commits_and_never_was_when_it_does_not() {
    let app = TestApp::at(NOW).await;
    let id = app.add_task(named("greet", &json!({}))).await;
    let tools = FakeTools::default();
    let worker = app.start_worker(&tools);

    let mut tx = app.servers.pool.begin().await.expect("the database answers");
    call(&mut tx, "'greet'").await.expect("a run");
    tx.rollback().await.expect("the database answers");
    let mut tx = app.servers.pool.begin().await.expect("the database answers");
    let by_name = call(&mut tx, r#"'greet', '{"who": "Ada"}'"#).await.expect("a run");
    let by_id = call(&mut tx, &format!("'{id}', priority => 1")).await.expect("a run");
    tx.commit().await.expect("the database answers");
    app.until("select count(*) from run", 2).await;
    worker.stop().await;

    assert_eq!(app.until_idle().await, [("succeeded".to_owned(), 2)]);
    let (_, _, _, output) = app.finished(RunId(by_name)).await;
    assert_eq!(output, Some(json!({"of": "Ada"})));
    let (_, _, _, output) = app.finished(RunId(by_id)).await;
    assert_eq!(output, Some(json!({"of": "nobody"})));
    assert_eq!(by_name.get_version_num(), 7);
    assert_eq!(by_name.get_variant(), uuid::Variant::RFC4122);
    app.check_invariants().await;
}

#[tokio::test]
async fn what_the_task_declares_holds_for_runs_added_by_sql() {
    let app = TestApp::at(NOW).await;
    let fields = json!({"priority": 3, "expires_after_seconds": 60, "concurrency_key": "door",
                        "dedupe_key": "d", "dedupe_window_seconds": 60,
                        "policy": {"overlap": "queue_all"}});
    app.add_task(named("careful", &fields)).await;
    app.add_task(named("plain", &json!({}))).await;
    let mut conn = app.servers.pool.acquire().await.expect("the database answers");

    let first = call(&mut conn, "'careful'").await.expect("a run");
    let second = call(&mut conn, "'careful'").await.expect("the first run");
    let other = call(&mut conn, "'careful', dedupe_key => 'e'").await.expect("a run");
    let later = call(
        &mut conn,
        "'plain', run_at => now() + interval '1 day', expires_after => '1 hour', priority => 9",
    )
    .await
    .expect("a run");
    let past = call(&mut conn, "'plain', run_at => '2000-01-01'").await.expect("a run");

    assert_eq!((first == second, first == other), (true, false));
    let shown: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', priority, revision, trigger, held, concurrency_key, serial,
                          expires_at - run_at, run_at = scheduled_at, nominal_at = run_at,
                          run_at > now() - interval '1 minute', run_at > now() + interval '23 hours')
         from due_work where run_id = any($1) order by array_position($1, run_id)",
    )
    .bind(vec![first, later, past])
    .fetch_all(&mut *conn)
    .await
    .expect("runs");
    assert_eq!(
        shown,
        [
            "3 1 run_now concurrency door t 00:01:00 t t f",
            "9 1 run_now f 01:00:00 t t t t",
            "5 1 run_now f t t f"
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_with_a_code_and_a_sentence() {
    let app = TestApp::at(NOW).await;
    let gone = app.add_task(named("gone", &json!({}))).await;
    sqlx::query("update task set status = 'canceled', next_fire_at = null")
        .execute(&app.servers.pool)
        .await
        .expect("the database answers");
    app.add_task(named("greet", &json!({}))).await;
    app.add_task(named("twice", &json!({}))).await;
    sqlx::query(
        "with other as (insert into agent (id, name, scopes, created_at)
                        values (gen_random_uuid(), 'other', '{}', now()) returning id),
              copy as (insert into task (id, agent_id, name, title, schedule_kind, status, revision,
                                         cursor_at, created_at, updated_at)
                       select gen_random_uuid(), other.id, 'twice', 'x', 'manual', 'active', 1, now(),
                              now(), now() from other returning id, agent_id)
         insert into task_revision (task_id, revision, spec, created_at, created_by)
         select copy.id, 1, r.spec, now(), copy.agent_id
         from copy, task_revision r join task t on t.id = r.task_id where t.name = 'twice' limit 1",
    )
    .execute(&app.servers.pool)
    .await
    .expect("the database answers");
    let mut conn = app.servers.pool.acquire().await.expect("the database answers");
    data_limit::set(&mut conn, 20_000).await.expect("the database answers");

    for (arguments, told) in [
        ("'nope'", r#"P0002 there is no task "nope""#),
        ("null", "P0002 there is no task"),
        ("'gone'", r#"P0002 there is no task "gone""#),
        (&format!("'{gone}'"), &format!("55000 the task {gone} is canceled: it runs no more")),
        ("'greet', agent => 'other'", r#"P0002 there is no task "greet" of an agent "other""#),
        ("'twice'", r#"P0003 several agents have a task named "twice""#),
        ("'greet', priority => 10", "22023 priority is 10, but must be 1 (first) to 9"),
        ("'greet', '[]'", "22023 params must be an object, not of type array"),
        ("'greet', '{\"whom\": 1}'", r#"22023 the task declares no parameter "whom""#),
        (
            "'greet', jsonb_build_object('who', repeat('x', 19990))",
            "54000 params are 20001 bytes of JSON, more than RUN_DATA_MAX_BYTES (20000)",
        ),
        (
            "'greet', ('{\"who\": ' || repeat('[', 100) || repeat(']', 100) || '}')::jsonb",
            "22023 params are nested deeper than 100",
        ),
        ("'greet', '{\"who\": [1e400]}'", "22023 params have a number that is too large"),
        ("'greet', '{\"who\": -1e309}'", "22023 params have a number that is too large"),
        ("'greet', run_at => 'infinity'", "22023 run_at is infinity, but must be at most"),
        ("'greet', expires_after => '0'", "22023 expires_after is 00:00:00, but must"),
        ("'greet', dedupe_key => 'd'", "22023 dedupe_key needs a dedupe_window"),
        ("'greet', dedupe_key => ''", "22023 dedupe_key must have 1 to 200 characters"),
    ] {
        let refused = call(&mut conn, arguments).await.expect_err(arguments);
        assert!(refused.starts_with(told), "{arguments}: {refused}");
    }
    assert_eq!(app.count("select count(*) from due_work").await, 0);
    let deep =
        "'greet', ('{\"who\": ' || repeat('[', 99) || '1e308' || repeat(']', 99) || '}')::jsonb";
    call(&mut conn, deep).await.expect("it is as deep as can be");
    let fits = "'greet', jsonb_build_object('who', repeat('x', 19988))";
    call(&mut conn, fits).await.expect("it has 19,999 bytes");
    call(&mut conn, "'twice', agent => 'other'").await.expect("a run");
    call(&mut conn, "'twice', agent => 'tester'").await.expect("a run");
}

/// A role that may call the function, and nothing else of ours.
#[tokio::test]
async fn a_role_needs_nothing_but_the_right_to_call_the_function() {
    let app = TestApp::at(NOW).await;
    app.add_task(named("greet", &json!({}))).await;
    let role = format!("caller_{}", uuid::Uuid::new_v4().simple());
    let run = |sql: String| {
        let pool = app.servers.pool.clone();
        async move { sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await }
    };
    let asked = format!("set role {role}; select orchestrator.enqueue('greet'); reset role");
    run(format!("create role {role}")).await.expect("a role");

    let mut conn = app.servers.pool.acquire().await.expect("the database answers");
    let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(asked.clone())).execute(&mut *conn).await;
    sqlx::raw_sql("reset role").execute(&mut *conn).await.expect("the database answers");
    run(format!(
        "grant usage on schema orchestrator to {role};
         grant execute on function orchestrator.enqueue to {role}"
    ))
    .await
    .expect("rights");
    let made = sqlx::raw_sql(sqlx::AssertSqlSafe(asked)).execute(&mut *conn).await;
    run(format!("drop owned by {role}; drop role {role}")).await.expect("the role goes");

    assert!(refused.is_err());
    assert!(made.is_ok(), "{made:?}");
    assert_eq!(app.count("select count(*) from due_work").await, 1);
}

/// The tests' role is called orchestrator, as that of most installations, and so is the schema of the
/// function; what is made without a schema must not go in there.
#[tokio::test]
async fn a_second_start_finds_its_migrations_though_role_and_schema_have_one_name() {
    let app = TestApp::at(NOW).await;
    let tables = "select count(*) from pg_class where relkind in ('r', 'p')";
    let (before, first) = (app.count(tables).await, store::migrate::known_version());

    let second = store::migrate(&app.servers.pool).await.expect("nothing is missing");
    let in_force = store::migrate::version(&app.servers.pool).await.expect("the database answers");

    assert_eq!((second, in_force), (first, first));
    assert_eq!(app.count(tables).await, before);
    let strays = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
                  where n.nspname = 'orchestrator'";
    assert_eq!(app.count(strays).await, 0);
}

#[tokio::test]
async fn an_output_larger_than_the_setting_fails_its_step() {
    let app = TestApp::with(NOW, &[("RUN_DATA_MAX_BYTES", "16384")]).await;
    let declared = task(
        "manual",
        "",
        &json!([{"id": "big", "uses": "test.echo", "with": {"x": "x".repeat(16_380)}}]),
    );
    let task = app.add_task(declared).await;
    let worker = app.start_worker(&FakeTools::default());

    let run = app.run_now(task).await;
    app.until("select count(*) from run", 1).await;
    worker.stop().await;

    let message: String = sqlx::query_scalar("select error ->> 'message' from run where id = $1")
        .bind(run)
        .fetch_one(&app.servers.pool)
        .await
        .expect("the run");
    assert_eq!(message, "`with` is 16388 bytes of JSON, more than RUN_DATA_MAX_BYTES (16384)");
}

/// No check of the table refuses it: checks took nearly half of what it costs to add a run.
#[tokio::test]
async fn a_row_written_by_hand_that_is_not_whole_violates_an_invariant() {
    let app = TestApp::at(NOW).await;
    let mut conn = app.servers.pool.acquire().await.unwrap();
    for spoil in [
        "priority = 10",
        "trigger = 'whim'",
        "definition = null",
        "revision = 1",
        "held = 'whim'",
        "concurrency_key = 'door'",
        "rate_key = 'door', rate_limit = 0, rate_period_seconds = 1",
    ] {
        let mut tx = sqlx::Connection::begin(&mut *conn).await.unwrap();
        queue::enqueue(&mut tx, app.work(None)).await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(format!("update due_work set {spoil}")))
            .execute(&mut *tx)
            .await
            .unwrap();

        let asked = invariant::check(&mut tx).await.unwrap();

        let whole = asked.iter().find(|one| one.name == "queued_runs_whole").unwrap();
        assert_eq!(whole.violations, 1, "{spoil}");
        tx.rollback().await.unwrap();
    }
    app.check_invariants().await;
}
