-- A run that fired and waits, one of no task, one whose worker has died, one between two attempts with a
-- step on record; and one that was finished.
do $$
declare
    elder constant uuid := '00000000-0000-7000-8000-000000000001';
    steps constant jsonb := '{"params": {}, "pipeline": [{"id": "one", "uses": "test.echo", "with": {"n": 1}}]}';
    of_task constant uuid := (select id from task where schedule_kind = 'manual' order by created_at desc limit 1);
    moment constant timestamptz := clock_timestamp();
    new_id uuid;
begin
    new_id := overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid;
    insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, nominal_at, scheduled_at)
    values (new_id, elder, of_task, 1, 5, moment, 'schedule', moment, moment);
    insert into occurrence (task_id, nominal_at, disposition, run_id, revision, decided_at)
    values (of_task, moment, 'fired', new_id, 1, moment);

    new_id := overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid;
    insert into due_work (run_id, agent_id, priority, run_at, trigger, scheduled_at, definition)
    values (new_id, elder, 5, moment, 'run_now', moment, steps);
    insert into dedupe (agent_id, key, run_id, until) values (elder, 'key-' || new_id, new_id, moment + interval '1 day');

    new_id := overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid;
    insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, scheduled_at, attempt,
                          started_at, locked_by, locked_until, token)
    values (new_id, elder, of_task, 1, 5, moment, 'run_now', moment, 1, moment, gen_random_uuid(),
            moment - interval '1 minute', nextval('lease_token'));

    new_id := overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid;
    insert into due_work (run_id, agent_id, task_id, revision, priority, run_at, trigger, scheduled_at, attempt,
                          started_at, last_error)
    values (new_id, elder, of_task, 1, 9, moment, 'run_now', moment, 1, moment, '{"kind": "timeout", "message": "late"}');
    insert into run_step (run_id, path, attempt, id, uses, status, started_at, finished_at, error)
    values (new_id, 'one', 1, 'one', 'test.echo', 'failed', moment, moment, '{"kind": "timeout", "message": "late"}');

    new_id := overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid;
    insert into run (id, agent_id, task_id, revision, status, priority, attempt, trigger, scheduled_at, started_at,
                     finished_at, output)
    values (new_id, elder, of_task, 1, 'succeeded', 5, 1, 'run_now', moment, moment, moment, '{"n": 1}');
    insert into run_step (run_id, path, attempt, id, uses, status, started_at, finished_at, input, output)
    values (new_id, 'one', 1, 'one', 'test.echo', 'succeeded', moment, moment, '{"n": 1}', '{"n": 1}');
    new_id := overlay(gen_random_uuid()::text placing left(uuid_at(moment)::text, 13) from 1)::uuid;
    insert into run (id, agent_id, status, priority, attempt, trigger, scheduled_at, finished_at, definition, error)
    values (new_id, elder, 'failed', 5, 3, 'run_now', moment, moment, steps, '{"kind": "timeout", "message": "late"}');
end $$;
