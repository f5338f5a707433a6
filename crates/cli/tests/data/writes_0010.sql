-- A run that waits for its rate, the window of that, one that will expire, and one that triggers may move.
do $$
declare
    elder constant uuid := '00000000-0000-7000-8000-000000000001';
    moment constant timestamptz := clock_timestamp();
    name constant text := gen_random_uuid()::text;
    steps constant jsonb := '{"pipeline": [{"id": "one", "uses": "test.echo", "with": {"n": 1}}]}';
begin
    insert into due_work (run_id, agent_id, priority, run_at, trigger, scheduled_at, definition, held, rate_key,
                          rate_limit, rate_period_seconds)
    values (overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid, elder, 5, moment,
            'run_now', moment, steps, 'rate', name, 10, 60);
    insert into rate_window (agent_id, key, starts, kept, last_limit, last_period_seconds)
    values (elder, name, array[moment - interval '5 seconds'], 11, 10, 60);
    insert into due_work (run_id, agent_id, priority, run_at, trigger, scheduled_at, definition, expires_at)
    values (overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid, elder, 5, moment,
            'run_now', moment, steps, moment + interval '1 hour');
    insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, scheduled_at, debounce_until)
    select overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid, elder, id, 1, 5, moment,
           'run_now', moment, moment + interval '1 minute'
    from task where schedule_kind = 'manual' and status = 'active' order by created_at limit 1;
end $$;
