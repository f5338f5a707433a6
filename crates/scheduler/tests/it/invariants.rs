//! An invariant that is violated is seen.

use orchestrator_engine::store::invariant;
use orchestrator_testkit::TestApp;

/// The names of those that are violated, and how often.
async fn violated(app: &TestApp) -> Vec<(&'static str, i64)> {
    let mut conn = app.servers.pool.acquire().await.unwrap();
    let found = invariant::check(&mut conn).await.unwrap();
    found.iter().filter(|one| one.violations > 0).map(|one| (one.name, one.violations)).collect()
}

async fn write(app: &TestApp, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&app.servers.pool).await.unwrap();
}

/// By hand, what no program of ours writes: a run that is queued and over, and held by two; and what names runs
/// that are not there.
#[tokio::test]
async fn rows_that_contradict_are_counted() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    write(
        &app,
        "create function an_id(word text) returns uuid language sql as $$
             select (left(uuid_at(now())::text, 14) || substr(md5(word)::uuid::text, 15))::uuid $$;
         insert into due_work (run_id, agent_id, priority, run_at, trigger, scheduled_at, definition)
             select an_id(w), an_id('a'), 5, now(), 'run_now', now(), '{}' from unnest('{both,queued}'::text[]) w;
         insert into run (id, agent_id, status, priority, attempt, trigger, scheduled_at, finished_at)
             select an_id(w), an_id('a'), 'succeeded', 5, 1, 'run_now', now(), now() from unnest('{both,over}'::text[]) w;
         insert into lease (token, worker, until, made_at, run_ids, begun)
             select n, an_id('w'), now() + interval '1 hour', now(), array[an_id('both'), an_id('over')], '{}'
             from generate_series(1, 2) n;
         insert into occurrence (task_id, nominal_at, disposition, run_id, revision, decided_at)
             select an_id('t'), now() + n * interval '1 s', 'fired', an_id(w), 1, now()
             from unnest('{queued,over,none,nobody}'::text[]) with ordinality as w(w, n);
         insert into run_step (run_id, path, attempt, id, status, started_at)
             select an_id(w), 'one', 1, 'one', 'running', now() from unnest('{queued,over,none}'::text[]) w;
         insert into event (id, topic, payload, received_at, consumed_at)
             select an_id(w), 'mail', '{}', now(), case when w = 'done' then now() end from unnest('{done,open}'::text[]) w;
         insert into event_run select an_id(w), an_id('t'), an_id('over') from unnest('{done,open}'::text[]) w",
    )
    .await;

    let expected = [
        ("run_in_one_place", 1),
        ("fired_has_run", 2),
        ("step_has_run", 1),
        ("consumed_event_once", 1),
        ("one_lease_a_run", 1),
    ];
    assert_eq!(violated(&app).await, expected);
}

/// Of two tasks and two concurrency keys of two agents each a run has been held for ten minutes, and nobody is in.
/// Then a run of one task and one agent ends.
#[tokio::test]
async fn a_held_run_that_nobody_lets_in_is_counted_unless_one_has_just_ended() {
    let app = TestApp::at("2026-03-01T08:00:00Z").await;
    write(
        &app,
        "insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, scheduled_at, held,
                               serial, concurrency_key, concurrency_limit)
             select gen_random_uuid(), md5(who)::uuid, md5(who || 't')::uuid, 1, 5, now() - interval '10 minutes',
                    'run_now', now(), held, held = 'overlap', case held when 'concurrency' then 'key' end,
                    case held when 'concurrency' then 1 end
             from unnest('{a,b}'::text[]) who cross join unnest('{overlap,overlap}'::text[]) held
             union all
             select gen_random_uuid(), md5(who)::uuid, md5(who || 'k')::uuid, 1, 5, now() - interval '10 minutes',
                    'run_now', now(), 'concurrency', false, 'key', 1
             from unnest('{a,b}'::text[]) who cross join generate_series(1, 2)",
    )
    .await;

    let before = violated(&app).await;
    write(
        &app,
        "insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger, scheduled_at, finished_at)
         values (uuid_at(now()), md5('a')::uuid, md5('at')::uuid, 1, 'succeeded', 5, 1, 'run_now', now(), now())",
    )
    .await;
    let after = violated(&app).await;

    assert_eq!(before, [("held_runs_move", 4)], "one of each task and key has its turn");
    assert_eq!(after, [("held_runs_move", 2)]);
}
